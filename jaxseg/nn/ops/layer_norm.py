"""Layer normalisation of arrays, with its gradient written out.

Automatic differentiation keeps x - mean and its product with the scale beside x for the backward pass.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.barrier import after_all
from jaxseg.nn.ops.tracing import traced_once


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float = 1e-5, dtype: Any = None) -> jax.Array:
    """Normalises f[...,c] over its last axis, times f32[c] plus f32[c]; the result has `dtype`, or that of x."""
    return _layer_norm(x, scale, bias, epsilon, jnp.dtype(dtype or x.dtype).name)


@traced_once("epsilon", "dtype")
def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype: str
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    centred = x32 - mean
    inverse = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    shape = (1,) * (x.ndim - 1) + (-1,)
    y = centred * inverse * scale.reshape(shape) + bias.reshape(shape)
    return y.astype(dtype), (x, scale, mean, inverse)


@traced_once("epsilon", "dtype")
def _backward(epsilon: float, dtype: str, saved: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, ...]:
    """With z = (x - mean) inverse: dx = inverse (s dy - mean(s dy) - z mean(s dy z)), the means over the channels."""
    del epsilon, dtype
    x, scale, mean, inverse = saved
    axes, c = tuple(range(x.ndim - 1)), x.shape[-1]
    dy32 = dy.astype(jnp.float32)
    scaled = dy32 * scale.reshape((1,) * len(axes) + (-1,))
    # Without `after_all` XLA takes x - mean of the forward pass, and keeps it until now.
    mean, offset = after_all(mean, scaled.sum(-1, keepdims=True) / c)
    z = (x.astype(jnp.float32) - mean) * inverse
    slope = (scaled * z).sum(-1, keepdims=True) / c
    dx = inverse * (scaled - offset - z * slope)
    d_scale, d_bias = (dy32 * z).sum(axes), dy32.sum(axes)
    return dx.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(scale.dtype)


_layer_norm = jax.custom_vjp(
    lambda x, scale, bias, epsilon, dtype: _forward(x, scale, bias, epsilon, dtype)[0], nondiff_argnums=(3, 4)
)
_layer_norm.defvjp(_forward, _backward)
