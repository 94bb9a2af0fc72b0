"""What the layers of a network have in common: norm, activation, compute dtype, mapped axis and initial kernels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg.nn.initializers import he_normal
from jaxseg.nn.joined import Features, Joined, whole
from jaxseg.nn.norm import BatchNorm, Identity, make_norm
from jaxseg.types import Activation, Initializer, NormFactory

_BATCH_NORM = make_norm("batch")

# Of these each value of the result depends on one value of the input.
_ELEMENTWISE = (
    jax.nn.relu,
    jax.nn.sigmoid,
    jax.nn.leaky_relu,
    jax.nn.relu6,
    jax.nn.elu,
    jax.nn.selu,
    jax.nn.celu,
    jax.nn.gelu,
    jax.nn.silu,
    jax.nn.hard_swish,
    jax.nn.softplus,
    jax.nn.tanh,
)


@dataclasses.dataclass(frozen=True)
class Layers:
    """Five settings that a network hands down unchanged to every layer, in the field `common` of each module.

    Layers are equal, and of equal hash, if their five fields are, so that equal networks share a compilation.

    Attributes:
        norm: builds a norm layer, `norm(name="norm1")(x, train=train)`; see `make_norm`. None: no norm.
        act: the activation. None: no activation.
        dtype: compute dtype; parameters are float32. None: the dtype of the input and the parameters together.
        axis_name: the mapped axis that the batch is split over, along which dropout is drawn. `norm` has its own.
        kernel_init: draws the kernels of the convolutions that belong to a norm or an activation, and of the shortcuts
            around them. Others have their own: heads, transposed convolutions, transformers, ConvNeXt and DCGAN.
    """

    norm: NormFactory | None = _BATCH_NORM
    act: Activation | None = jax.nn.relu
    dtype: Any = jnp.float32
    axis_name: str | None = None
    kernel_init: Initializer = he_normal

    def replace(self, **changes: Any) -> "Layers":
        """Returns the same settings with `changes`."""
        return dataclasses.replace(self, **changes)

    def normalise(self, x: Features, name: str, *, train: bool) -> Any:
        """Applies a norm layer, the child `name` of the compact module that calls this: f[...,c] -> f[...,c]."""
        if self.norm is None:
            return x
        layer = self.norm(name=name)
        return layer(x if type(layer) in (BatchNorm, Identity) else whole(x), train=train)

    def activate(self, x: Features) -> Any:
        """Applies the activation, if there is one: f[...] -> f[...]."""
        if self.act is None:
            return x
        if isinstance(x, Joined) and any(self.act is each for each in _ELEMENTWISE):
            return x.apply(self.act)
        return self.act(whole(x))


BARE = Layers(norm=None, dtype=None)
"""The default of the blocks of `jaxseg.nn`: no norm, and the dtype of the input."""
