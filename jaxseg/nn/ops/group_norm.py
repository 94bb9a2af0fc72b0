"""Group normalisation of arrays, with its gradient written out."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.barrier import after_all
from jaxseg.nn.ops.tracing import traced_once


def group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float = 1e-5) -> jax.Array:
    """Normalises f[b,...,c] over space and each of `groups` groups of channels, times f32[c] plus f32[c].

    It takes one pass over x for the sums and one for a multiply-add; the gradient is written out and also takes two.
    """
    return _group_norm(x, scale, bias, groups, epsilon)


@traced_once("groups", "epsilon")
def _group_norm_fwd(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    c = x.shape[-1]
    x32 = x.astype(jnp.float32).reshape(x.shape[0], -1, c)
    # Around one pixel of the channel the sum of squares loses no digits, however far the mean is from zero.
    centre = x32[:, :1]
    first, second = jnp.mean(x32 - centre, 1), jnp.mean(jnp.square(x32 - centre), 1)
    channel_mean = first + centre[:, 0]
    mean = _group_mean(channel_mean, groups)
    spread = jnp.maximum(second - first * first, 0.0) + jnp.square(channel_mean - mean)
    inverse = lax.rsqrt(_group_mean(spread, groups) + epsilon)
    multiplier = (inverse * scale.reshape(1, c))[:, None]
    y = (x32 - mean[:, None]) * multiplier + bias.reshape(1, 1, c)
    return y.astype(x.dtype).reshape(x.shape), (x, scale, mean, inverse)


def _group_mean(v: jax.Array, groups: int) -> jax.Array:
    """Mean over the channels of each group, repeated for each: f32[b,c] -> f32[b,c]."""
    b, c = v.shape
    mean = v.reshape(b, groups, c // groups).mean(2, keepdims=True)
    return jnp.broadcast_to(mean, (b, groups, c // groups)).reshape(b, c)


@traced_once("groups", "epsilon")
def _group_norm_bwd(groups: int, epsilon: float, saved: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, ...]:
    """With z = (x - mean) inverse: dx = inverse (s dy - mean(s dy) - z mean(s dy z)), the means over the group."""
    del epsilon
    x, scale, mean, inverse = saved
    b, c = x.shape[0], x.shape[-1]
    dy32 = dy.astype(jnp.float32).reshape(b, -1, c)
    pixels = dy32.shape[1]
    # Without `after_all` XLA takes x - mean of the forward pass, and keeps it until now.
    mean, sum_dy = after_all(mean, dy32.sum(1))
    centred = x.astype(jnp.float32).reshape(b, -1, c) - mean[:, None]
    sum_dyz = (dy32 * centred).sum(1) * inverse
    scale = scale.reshape(1, c)
    offset = inverse * _group_mean(sum_dy * scale, groups) / pixels
    slope = inverse * inverse * _group_mean(sum_dyz * scale, groups) / pixels
    dx = dy32 * (inverse * scale)[:, None] - offset[:, None] - centred * slope[:, None]
    return dx.astype(x.dtype).reshape(x.shape), sum_dyz.sum(0), sum_dy.sum(0)


_group_norm = jax.custom_vjp(
    lambda x, scale, bias, groups, epsilon: _group_norm_fwd(x, scale, bias, groups, epsilon)[0], nondiff_argnums=(3, 4)
)
_group_norm.defvjp(_group_norm_fwd, _group_norm_bwd)
