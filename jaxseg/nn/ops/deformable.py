"""The sampling of multi-scale deformable attention (Zhu et al. 2021, "Deformable DETR", section 4.1, eq. 3)."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.nn.ops.sizes import array_module


def deformable_attention(values: Sequence[jax.Array], locations: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the weighted sum of bilinear samples, f[b,q,n,d].

    Args:
        values: f[b,h,w,n,d] of each level, of any sizes.
        locations: f[b,q,n,levels,p,2], x and y of each sample in units of the image, [0, 1]; outside the values are 0.
        weights: f[b,q,n,levels,p].
    """
    total = jnp.zeros((*weights.shape[:3], values[0].shape[-1]), jnp.float32)
    for i, value in enumerate(values):
        total = total + _sample(value, locations[:, :, :, i], weights[:, :, :, i])
    return total.astype(values[0].dtype)


def _sample(value: jax.Array, locations: jax.Array, weights: jax.Array) -> jax.Array:
    """One level: f[b,h,w,n,d], f[b,q,n,p,2], f[b,q,n,p] -> f32[b,q,n,d]."""
    h, w = value.shape[1:3]
    xp = array_module(h, w)
    size = xp.stack([xp.asarray(side, np.float32) for side in (w, h)]).reshape(1, 1, 1, 1, 2)
    position = locations.astype(jnp.float32) * size - 0.5
    low = jnp.floor(position)
    share = position - low
    corners = []
    for right in (0, 1):
        for down in (0, 1):
            x, y = low[..., 0] + right, low[..., 1] + down
            inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
            part = (share[..., 0] if right else 1 - share[..., 0]) * (share[..., 1] if down else 1 - share[..., 1])
            # Clipped before the conversion to integers, where a huge offset would wrap around.
            index = jnp.clip(y, 0, h - 1).astype(jnp.int32) * w + jnp.clip(x, 0, w - 1).astype(jnp.int32)
            corners.append((index, jnp.where(inside, part * weights, 0.0)))
    return lax.platform_dependent(value, corners, cpu=_gather, default=_gather_in_place)


_Corners: TypeAlias = Sequence[tuple[jax.Array, jax.Array]]


def _gather(value: jax.Array, corners: _Corners) -> jax.Array:
    """The weighted sum of pixels -> f32[b,q,n,d].

    Args:
        value: f[b,h,w,n,d].
        corners: pairs of i32[b,q,n,p], row · w + column of the pixels, and f32[b,q,n,p], their weights.
    """
    b, h, w, n, d = value.shape
    q, p = corners[0][0].shape[1::2]
    flat = value.transpose(0, 3, 1, 2, 4).reshape(b, n, h * w, d)
    total = jnp.zeros((b, q, n, d), jnp.float32)
    for index, weight in corners:
        index = index.transpose(0, 2, 1, 3).reshape(b, n, q * p, 1)
        corner = jnp.take_along_axis(flat, index, axis=2).reshape(b, n, q, p, d)
        total = total + jnp.einsum("bnqpd,bqnp->bqnd", corner, weight, preferred_element_type=jnp.float32)
    return total


def _gather_in_place(value: jax.Array, corners: _Corners) -> jax.Array:
    """As `_gather`, without a transpose of the pixels, and with sums that a GPU computes as it reads them."""
    b, h, w, n, d = value.shape
    q, p = corners[0][0].shape[1::2]
    flat = value.reshape(b, h * w, n, d)
    total = jnp.zeros((b, q, n, d), jnp.float32)
    for index, weight in corners:
        index = index.swapaxes(2, 3).reshape(b, q * p, n, 1)
        corner = jnp.take_along_axis(flat, index, axis=1).reshape(b, q, p, n, d)
        total = total + (corner.astype(jnp.float32) * weight.swapaxes(2, 3)[..., None]).sum(2)
    return total
