"""Bicubic interpolation of small tables, such as the position encodings of a vision transformer, to any size."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.nn.ops.sizes import Side, array_module, is_known
from jaxseg.types import Array

_SLOPE, _SLOPE_ANTIALIASED = -0.75, -0.5  # of the cubic at distance 1: that of OpenCV and torch, and that of Pillow


def resize_cubic(x: jax.Array, size: tuple[Side, ...], *, antialias: bool = False) -> jax.Array:
    """Resizes f[y,x,c] to f32[*size,c] by cubic convolution (Keys 1981, "Cubic Convolution Interpolation", eq. 4).

    The numbers are those of torch's `F.interpolate(mode="bicubic", align_corners=False)`.

    Args:
        x: a table; it may be enlarged and reduced.
        size: height and width; they may be symbols.
        antialias: False: four values of each axis, at the border the last one again, slope -3/4. True: the kernel is as
            many times as wide as the axis shrinks, without values beyond the border, slope -1/2 (as in Pillow).
    """
    table = x.astype(jnp.float32)
    if is_known(*size) and tuple(size) == x.shape[:2]:
        return table
    rows, columns = (_weights(n, out, antialias) for n, out in zip(x.shape[:2], size))
    # At the highest precision: half of the bits would change the encoding of every position.
    return jnp.einsum("hy,wx,yxc->hwc", rows, columns, table, precision="highest")


def _weights(size: int, out: Side, antialias: bool) -> Array:
    """The weight f32[out,size] of each value in each sample, along an axis."""
    xp = array_module(out)
    count = out if xp is np else jnp.asarray(out, jnp.float32)
    places = xp.arange(size)[None]
    if antialias:
        centre = (xp.arange(out) + 0.5)[:, None] * (size / count)
        wider = xp.maximum(size / count, 1.0)
        weights = _cubic(xp, (places + 0.5 - centre) / wider, _SLOPE_ANTIALIASED)
        weights = weights / weights.sum(1, keepdims=True)
    else:
        place = (xp.arange(out) + 0.5)[:, None] * (size / count) - 0.5
        low = xp.floor(place)
        weights = sum(
            _cubic(xp, low + tap - place, _SLOPE) * (xp.clip(low + tap, 0, size - 1) == places) for tap in range(-1, 3)
        )
    return xp.asarray(weights, np.float32)


def _cubic(xp: Any, distance: Array, slope: float) -> Array:
    """Keys's kernel at signed distances, 0 beyond 2."""
    t = abs(distance)
    near = ((slope + 2) * t - (slope + 3)) * t * t + 1
    far = ((slope * t - 5 * slope) * t + 8 * slope) * t - 4 * slope
    return xp.where(t <= 1, near, xp.where(t < 2, far, 0.0))
