"""Batch normalisation of arrays with the statistics of the batch, with its gradient written out.

Automatic differentiation keeps x - mean beside x for the backward pass, in two forms: half as much memory again for
each norm, which also has to be written and read.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.barrier import after_all
from jaxseg.nn.ops.tracing import traced_once


def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    centre: jax.Array,
    epsilon: float = 1e-5,
    axis_name: Any = None,
    dtype: Any = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises f[...,c] over all axes but the last, times f32[c] plus f32[c]; returns (y, mean, variance).

    Args:
        x: the input.
        scale, bias: f32[c].
        centre: f32[c], a value near the mean, around which a one-pass variance loses no digits. It has no gradient.
        epsilon: added to the variance.
        axis_name: the mapped axis (or axes) that the statistics are averaged over; None: they are those of `x`.
        dtype: of y; None: that of `x`.
    """
    return _batch_norm(x, scale, bias, centre, epsilon, axis_name, jnp.dtype(dtype or x.dtype).name)


@traced_once("epsilon", "axis_name", "dtype")
def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, centre: jax.Array, epsilon: float, axis_name: Any, dtype: str
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    axes = tuple(range(x.ndim - 1))
    x32 = x.astype(jnp.float32)
    shifted = x32 - _in_front(centre, x)
    first, second = jnp.mean(shifted, axes), jnp.mean(shifted * shifted, axes)
    if axis_name is not None:
        first, second = lax.pmean((first, second), axis_name)
    mean, raw = first + centre, second - first * first
    variance = jnp.maximum(raw, 0.0)
    inverse = lax.rsqrt(variance + epsilon)
    y = (x32 - _in_front(mean, x)) * _in_front(inverse * scale, x) + _in_front(bias, x)
    return (y.astype(dtype), mean, variance), (x, scale, mean, inverse, raw > 0)


@traced_once("epsilon", "axis_name", "dtype")
def _backward(
    epsilon: float, axis_name: Any, dtype: str, saved: tuple[jax.Array, ...], gradients: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """With i = (variance + epsilon)^-1/2 and n values: dx = scale i dy + (d_mean + 2 (x - mean) d_variance) / n, where

    d_mean = -scale i Σ dy and d_variance = -scale i^3 Σ dy (x - mean) / 2, plus the gradients of the two as results.
    Where rounding made the variance 0, it has no gradient.
    """
    del epsilon, dtype
    x, scale, mean, inverse, positive = saved
    dy, d_mean, d_variance = gradients
    axes, n = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
    dy32 = dy.astype(jnp.float32)
    # Without `after_all` XLA takes x - mean of the forward pass, and keeps it until now.
    mean, sum_dy = after_all(mean, dy32.sum(axes))
    centred = x.astype(jnp.float32) - _in_front(mean, x)
    sum_centred = (dy32 * centred).sum(axes)
    multiplier = inverse * scale
    d_mean = d_mean - multiplier * sum_dy
    d_variance = d_variance - 0.5 * multiplier * inverse * inverse * sum_centred
    d_variance = jnp.where(positive, d_variance, 0.0)
    if axis_name is not None:
        d_mean, d_variance = lax.pmean((d_mean, d_variance), axis_name)
    dx = dy32 * _in_front(multiplier, x) + _in_front(d_mean / n, x) + centred * _in_front(2 * d_variance / n, x)
    d_scale = inverse * sum_centred
    return dx.astype(x.dtype), d_scale.astype(scale.dtype), sum_dy.astype(scale.dtype), jnp.zeros_like(mean)


def _in_front(values: jax.Array, x: jax.Array) -> jax.Array:
    """f[c] -> f[1,...,1,c], with as many axes as `x`."""
    return values.reshape((1,) * (x.ndim - 1) + (-1,))


_batch_norm = jax.custom_vjp(
    lambda x, scale, bias, centre, epsilon, axis_name, dtype: _forward(
        x, scale, bias, centre, epsilon, axis_name, dtype
    )[0],
    nondiff_argnums=(4, 5, 6),
)
_batch_norm.defvjp(_forward, _backward)
