"""A network with its variables in one call, for use without configurations."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

from jaxseg import models
from jaxseg.arguments import Count, check_value
from jaxseg.compiler import options_for_once
from jaxseg.config import KEYS
from jaxseg.data.notes import log_once
from jaxseg.errors import ArgumentError, ConfigError, counted
from jaxseg.nn.draws import initialise
from jaxseg.run.weights_source import Origin, read_weights, resolve
from jaxseg.state import TrainState, count_parameters, first_state, keys_of_seed
from jaxseg.types import Array, Key, PyTree

_PATIENCE = 2.0  # seconds after which it is said what takes so long
_SIDE = 64  # height and width of the image that the variables are made with, whose shapes do not depend on it


@struct.dataclass
class SegmentationModel:
    """A network and its variables: `logits, out = model(image)`. It is a pytree, whose leaves are the variables.

    Attributes:
        variables: {"params": ..., "batch_stats": ...}.
        module: the Linen module.
        in_channels: of the images.
        origin: where the weights come from; None where all parameters are drawn.
    """

    variables: dict[str, PyTree]
    module: nn.Module = struct.field(pytree_node=False)
    in_channels: int = struct.field(pytree_node=False)
    origin: Origin | None = struct.field(pytree_node=False)

    def __call__(
        self, image: Array, *, train: bool = False, rngs: Mapping[str, jax.Array] | None = None
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Returns (logits f32[b,h,w,k], the named stages and auxiliary logits) of normalised images f32[b,h,w,c].

        It is compiled once for each shape.

        Raises:
            ArgumentError: if the images have another shape, number of channels or type.

        Args:
            image: of any height and width.
            train: normalise by the statistics of the batch and apply dropout. The updated statistics are dropped here;
                `apply` with `mutable=["batch_stats"]` returns them.
            rngs: {"dropout": key}, where `train` is set and the network has dropout.
        """
        if not isinstance(image, np.ndarray | jax.Array):
            raise ArgumentError(
                f"The network takes an array of images [b,h,w,{self.in_channels}], got an object of type "
                f"{type(image).__name__}; files are read by the `predict` of a run, see `jaxseg.load`."
            )
        if image.ndim != 4 or image.shape[-1] != self.in_channels or 0 in image.shape:
            hint = ""
            if image.ndim == 3 and image.shape[-1] == self.in_channels:
                hint = " One image is image[None]."
            elif image.ndim == 4 and image.shape[1] == self.in_channels:
                hint = " Channels come last, as in np.moveaxis(image, 1, -1)."
            wanted = f"images [b,h,w,{self.in_channels}], no side of them 0"
            raise ArgumentError(f"The network takes {wanted}, got {list(image.shape)}.{hint}")
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise ArgumentError(f"The network takes normalised images of floating-point numbers, got {image.dtype}.")
        return _forward(self.module, self.variables, image, train, rngs)

    def apply(self, variables: PyTree, image: Array, **options: Any) -> Any:
        """Calls `module.apply`: `(logits, out)`, or `((logits, out), updates)` with `mutable=["batch_stats"]`."""
        return self.module.apply(variables, image, **options)

    def train_state(self, optimiser: optax.GradientTransformation, *, ema: bool = False) -> TrainState:
        """Returns the state that training starts from, for `jaxseg.step.make_train_step(model.module, ...)`."""
        # A copy: a compiled step may donate the memory of its state, which must not be that of this model.
        return first_state(jax.tree.map(jnp.array, self.variables), optimiser, ema=ema)

    def __repr__(self) -> str:
        parameters = count_parameters(self.variables["params"])
        origin = "no weights read" if self.origin is None else str(self.origin)
        channels = counted(self.in_channels, "channel")
        return f"{type(self.module).__name__} of {channels}, {parameters:,} parameters; {origin}"


@functools.partial(jax.jit, static_argnums=(0, 3))
def _forward(module: nn.Module, variables: PyTree, image: Array, train: bool, rngs: Any) -> Any:
    mutable = ["batch_stats"] if train else False
    result = module.apply(variables, image, train=train, rngs=rngs, mutable=mutable)
    return result[0] if train else result


def create_model(
    name: str,
    *,
    num_classes: int,
    encoder: str | None = None,
    weights: str | Path | None = None,
    encoder_weights: str | Path | None = None,
    in_channels: int = 3,
    seed: int = 0,
    **fields: Any,
) -> SegmentationModel:
    """Returns a network with its variables: drawn, or read from published weights, a file or a run.

    Published weights expect images in [0, 1], minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225). Where
    `in_channels` is not 3, the first convolution of RGB weights is adapted, see `jaxseg.pretrained.adapt_input`.

    Args:
        name: of the network, one of `list_models()`.
        num_classes: channels of the logits; 1 for a binary network with one sigmoid logit.
        encoder: name of its encoder, one of `list_encoders()`, for networks that take one; None: the network's default.
        weights: a published name such as "imagenet" fills the encoder, or the whole network where it is a network's
            name; a file (.safetensors, .pth, .npz), hf://OWNER/NAME[@REVISION] or the workdir of a run fills the whole
            network, but for a classifier of other classes. What is not filled is drawn.
        encoder_weights: the same sources, for the encoder alone.
        in_channels: of the images.
        seed: of the parameters; they are those that a run with this `seed` starts from.
        **fields: fields of the network, see `jaxseg.models.build`: norm, act, dtype, encoder_args and its own.

    Raises:
        ConfigError: for an unknown name, field or value, with the nearest right one; or a workdir that holds no run.
        WeightsError: if the weights are unknown, cannot be read or do not fit.
        CheckpointError: if the weights are those of a run without a readable checkpoint.
    """
    if encoder is not None:
        fields["encoder"] = encoder
    try:
        in_channels = check_value("in_channels", in_channels, Count)
        seed = check_value("seed", seed, KEYS["seed"].kind)
        module = models.build(name, num_classes=num_classes, **fields)
        shapes = jax.eval_shape(_initialiser(module, in_channels), jax.random.key(seed))
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error).partition("\n")[0]) from error
    wanted = resolve(module, name, weights=weights, encoder_weights=encoder_weights)
    said = (
        f"Drawing the {count_parameters(shapes['params']):,} parameters of {name}: the program that does it is "
        "compiled first, which takes some seconds."
    )
    if wanted is None:
        with _saying_of_a_wait(said):
            return SegmentationModel(_draw(module, in_channels, seed), module, in_channels, None)
    # The weights are read before anything is compiled: their errors come at once.
    planned = read_weights(wanted, module, shapes, channels=in_channels, num_classes=num_classes)
    for each in planned.origin.notes:  # such as the statistics that they expect of images
        log_once(f"{planned.origin.file}: {each}.")
    with _saying_of_a_wait(said):
        variables = planned.fill(_initialiser(module, in_channels), keys_of_seed(seed)[0])
    return SegmentationModel(jax.tree.map(jnp.asarray, variables), module, in_channels, planned.origin)


@contextlib.contextmanager
def _saying_of_a_wait(sentence: str) -> Iterator[None]:
    """Logs a sentence once if the body takes longer than `_PATIENCE`."""
    timer = threading.Timer(_PATIENCE, log_once, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _draw(module: nn.Module, in_channels: int, seed: int) -> dict[str, PyTree]:
    """Returns {"params": ..., "batch_stats": ...} as a run with this seed starts from."""
    draw = jax.jit(_initialiser(module, in_channels), compiler_options=options_for_once())
    return draw(keys_of_seed(seed)[0])


def _initialiser(module: nn.Module, in_channels: int) -> Callable[[Key], dict[str, PyTree]]:
    def init(key: Key) -> dict[str, PyTree]:
        image = jnp.zeros((1, _SIDE, _SIDE, in_channels), jnp.float32)
        variables = initialise(module, {"params": key}, image, train=False)
        statistics = variables["batch_stats"] if "batch_stats" in variables else {}
        return {"params": variables["params"], "batch_stats": statistics}

    return init
