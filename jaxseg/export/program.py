"""The whole path from an image to classes as one pure function, which `stablehlo` and `onnx` write to a file."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import export

from jaxseg import losses
from jaxseg.build import Parts
from jaxseg.errors import ConfigError
from jaxseg.export.image import extend, resize_floats, resize_image, resize_logits
from jaxseg.export.tiled import Tiles, blend_tiles
from jaxseg.metrics import predict_classes, predict_sets
from jaxseg.state import Network
from jaxseg.types import PyTree, label_type

Program: TypeAlias = Callable[[jax.Array], dict[str, jax.Array]]


def make_program(
    parts: Parts,
    model: Network,
    variables: PyTree,
    *,
    probabilities: bool = False,
    size: tuple[int, ...] | None = None,
    tiles: Tiles | None = None,
) -> Program:
    """Returns the function u8|f32[b,h,w,c] -> {"classes": u8|u16[b,h,w], "probabilities": f32[b,h,w,k]} of a network.

    It computes what `inference.segment` computes image by image: normalisation; the resize of the image to `data.size`
    (data.fit=resize), its extension to multiples of `eval.multiple` (data.fit=crop), or its tiles; the network; the way
    back to the image's size; the argmax, or the set of classes where a pixel may have several. With `data.range` it
    takes f32, the values that the files hold. The batch, height and width of the image may be symbolic.

    Args:
        parts: the parts of the run.
        model: its network, or a form of it that computes the same.
        variables: what `model.apply` takes; they become constants of the program.
        probabilities: whether the result has "probabilities", of which k = 1 (that of class 1) for a binary network.
        size: data.fit=crop: a fixed (height, width) that the image is resized to like with data.fit=resize, for a
            network whose program depends on the size.
        tiles: the tiles in which the network sees the image, at its own scale, from `tiled.make_tiles`; None: it sees
            the whole image.
    """
    config, multilabel = parts.config, parts.loss.multilabel
    limits = tuple(config.data.range)
    fixed = tuple(config.data.size) if config.data.fit == "resize" else size

    def logits_of(image: jax.Array) -> jax.Array:
        return model.apply(variables, parts.prepare(image), train=False)[0]

    def whole(image: jax.Array) -> jax.Array:
        h, w = image.shape[1:3]
        if fixed is None:
            return logits_of(extend(image, config.eval.multiple))[:, :h, :w]
        resize = resize_floats if limits else resize_image
        return resize_logits(logits_of(resize(image, fixed)), (h, w))

    def program(image: jax.Array) -> dict[str, jax.Array]:
        if limits:  # as `data.measured.scaled`
            low, high = limits
            image = jnp.clip((image - jnp.float32(low)) / jnp.float32(high - low), 0.0, 1.0)
        logits = whole(image) if tiles is None else blend_tiles(image, logits_of, tiles)
        found = predict_sets(logits) if multilabel else predict_classes(logits)
        result: dict[str, Any] = {"classes": found.astype(label_type(logits.shape[-1], multilabel))}
        if probabilities:
            result["probabilities"] = losses.probabilities(logits, parts.loss.one_vs_rest)
        return result

    return program


def image_of_any_size(channels: int, dtype: str) -> jax.ShapeDtypeStruct:
    """Returns [b,h,w,channels] of a type, with symbols for b, h and w."""
    b, h, w = export.symbolic_shape("b, h, w")
    return jax.ShapeDtypeStruct((b, h, w, channels), jnp.dtype(dtype))


@contextlib.contextmanager
def deciding_sizes() -> Iterator[None]:
    """Turns JAX's error, that it cannot compare two symbolic sizes, into a ConfigError that says what to do."""
    try:
        yield
    except jax.errors.InconclusiveDimensionOperation as error:
        raise ConfigError(
            "The network chooses its layers by the size of the image, so that one program cannot serve all sizes; give "
            "--size HxW (from Python size=(H, W)), to which every image is then resized before the network, or "
            "--tiles HxW (tiles=(H, W)), in which the network then sees every image."
        ) from error
