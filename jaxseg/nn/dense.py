"""Learned arrays, and the affine map of the last axis."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

from jaxseg.nn.draws import note
from jaxseg.nn.initializers import lecun_normal
from jaxseg.types import Initializer


def parameter(module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
    """The parameter `name` of the compact module that calls this, f32[*shape]: `module.param`, traced more quickly.

    Where the parameter exists with this shape, it is returned as it is. `module.param` would trace `init` again to
    compare the shapes, which takes about half of the time in which a whole network is traced. In `initialise`, a zero
    array stands for a parameter that is drawn with all others.

    Raises:
        flax.errors.ScopeParamShapeError: if the parameter exists with another shape.
    """
    value = module.get_variable("params", name)
    if getattr(value, "shape", None) == shape:
        return value
    noted = note(module, name, init, shape) if value is None else None
    return module.param(name, init, shape, jnp.float32) if noted is None else noted


class Dense(nn.Module):
    """The affine map y = x W + b of the last axis: f[...,c] -> f[...,features].

    Parameters: kernel f32[c,features] and bias f32[features]. For x [n,c] and g = dL/dy the gradients are dL/dW = xᵀ g,
    dL/db = Σ_i g_i and dL/dx = g Wᵀ (Rumelhart et al. 1986); written without transposes they have no shape.

    Attributes:
        features: output channels.
        use_bias: whether b is learned; False: there is none.
        dtype: compute dtype. None: the dtype that the input and the parameters promote to.
    """

    features: int
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = parameter(self, "kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = parameter(self, "bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
