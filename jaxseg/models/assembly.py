"""What every architecture does around its own idea: make the encoder, walk up a pyramid, end in logits, name stages.

Each function is called inside the compact `__call__` of a model, whose children it makes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.fields import field_names
from jaxseg.nn import classifier, crop_to, resize
from jaxseg.nn.conv import Initializer, near_zero


def make_encoder(encoder: EncoderFactory, **layers: Any) -> nn.Module:
    """Returns the encoder as the child "encoder", with those of `layers` (norm, act, dtype) that it has.

    A family whose published weights belong to one activation (ResNet's ReLU, MobileNetV3's hard swish) has no field
    `act` and keeps its own.
    """
    cls = encoder.func if isinstance(encoder, functools.partial) else encoder
    known = field_names(cls)
    return encoder(**{name: value for name, value in layers.items() if name in known}, name="encoder")


def check_widths(owner: str, widths: Sequence[int], levels: int) -> None:
    """Raises ValueError unless there is a width for each of the decoder's levels, one fewer than the encoder's."""
    if len(widths) < levels - 1:
        raise ValueError(f"{owner}: widths {tuple(widths)} are too few for an encoder of {levels} levels.")


def walk_up(stage: Callable[[int], nn.Module], pyramid: Sequence[jax.Array], *, train: bool) -> tuple[jax.Array, ...]:
    """Applies `stage(i)(x, pyramid[i])` from the second coarsest level to the finest, starting from the coarsest.

    Returns:
        The result of each stage, finest first: one level fewer than the pyramid.
    """
    x, features = pyramid[-1], []
    for i in reversed(range(len(pyramid) - 1)):
        x = stage(i)(x, pyramid[i], train=train)
        features.insert(0, x)
    return tuple(features)


def to_logits(
    x: jax.Array,
    num_classes: int,
    padded: tuple[int, int],
    size: tuple[int, int] | None = None,
    *,
    kernel_init: Initializer = near_zero,
    dtype: Any = None,
    name: str = "head",
) -> jax.Array:
    """f[b,y,x,c] -> f32[b,*size,k]: the 1x1 classifier, bilinear up-sampling to `padded`, the crop to `size`.

    Args:
        padded: height and width of what the encoder saw.
        size: those of the image, where it was padded; None: the same.
    """
    logits = classifier(num_classes, kernel_init=kernel_init, dtype=dtype, name=name)(x).astype(jnp.float32)
    if logits.shape[1:3] != tuple(padded):
        logits = resize(logits, tuple(padded))
    return logits if size is None else crop_to(logits, size)


def name_stages(**groups: Sequence[jax.Array]) -> dict[str, jax.Array]:
    """Returns {"encoder/stage0": ..., "decoder/stage0": ...} for encoder=pyramid, decoder=features."""
    return {f"{group}/stage{i}": feature for group, features in groups.items() for i, feature in enumerate(features)}
