"""Windows of a feature map: its pixels in squares or grids, cyclic shifts, and biases by the distance of two of them.

With side s a window has t = s² pixels. All functions take sizes that are not known (`jaxseg.nn.ops.sizes`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.nn.ops.sizes import Side


def to_windows(x: jax.Array, side: int) -> jax.Array:
    """f[b,h,w,c] -> f[b·m,t,c]: the m = h w / t windows of each image, row by row; `side` divides h and w."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // side, side, w // side, side, c).swapaxes(2, 3)
    return x.reshape(b * (h // side) * (w // side), side**2, c)


def from_windows(x: jax.Array, side: int, size: Sequence[Side]) -> jax.Array:
    """f[b·m,t,c] -> f[b,h,w,c], (h, w) = size: it undoes `to_windows`."""
    rows, columns = (n // side for n in size)
    x = x.reshape(-1, rows, columns, side, side, x.shape[-1]).swapaxes(2, 3)
    return x.reshape(-1, *size, x.shape[-1])


def to_grid(x: jax.Array, side: int) -> jax.Array:
    """f[b,h,w,c] -> f[b·m,t,c]: the m = h w / t sets of pixels h/s rows and w/s columns apart; `side` divides h and w.

    Each set spans the whole map (Tu et al. 2022, "MaxViT", section 3.2, grid attention).
    """
    b, h, w, c = x.shape
    x = x.reshape(b, side, h // side, side, w // side, c).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(b * (h // side) * (w // side), side**2, c)


def from_grid(x: jax.Array, side: int, size: Sequence[Side]) -> jax.Array:
    """f[b·m,t,c] -> f[b,h,w,c], (h, w) = size: it undoes `to_grid`."""
    rows, columns = (n // side for n in size)
    x = x.reshape(-1, rows, columns, side, side, x.shape[-1]).transpose(0, 3, 1, 4, 2, 5)
    return x.reshape(-1, *size, x.shape[-1])


def shifted(x: jax.Array, places: int) -> jax.Array:
    """f[b,h,w,c] -> the same, cyclically moved up and left by `places`; down and right if it is negative."""
    for axis in (1, 2):
        size = x.shape[axis]
        cut = places if places > 0 else size + places
        # The slices of lax take sides that are not known, of which indexing would make a gather.
        parts = (jax.lax.slice_in_dim(x, cut, size, axis=axis), jax.lax.slice_in_dim(x, 0, cut, axis=axis))
        x = jnp.concatenate(parts, axis)
    return x


def shift_mask(size: Sequence[Side], side: int, places: int) -> jax.Array:
    """Returns bool[m,t,t]: whether two pixels of a window of the map that `shifted` moved were neighbours before.

    In the last row and column of windows pixels from two borders of the map meet (Liu 2021, section 3.2, Fig. 4).

    Args:
        size: h and w of the map.
        side: of a window.
        places: of the shift.
    """

    def part(count: Side) -> jax.Array:
        i = jnp.arange(count)
        return (i >= count - side).astype(jnp.int32) + (i >= count - places).astype(jnp.int32)

    rows, columns = (part(count) for count in size)
    parts = to_windows((3 * rows[:, None] + columns[None])[None, :, :, None], side)
    return parts == parts.swapaxes(1, 2)


def distances(side: int) -> np.ndarray:
    """Returns i32[(2s-1)²,2]: the distances in rows and columns between pixels of a window, in the order of a table."""
    steps = np.arange(1 - side, side)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)


def by_distance(table: jax.Array, side: int) -> jax.Array:
    """f[(2s-1)²,n], a number for each of `distances` -> f[n,t,t], that of each query and key of a window.

    It is made of reshapes alone, so that the gradient is a sum in a fixed order.
    """
    n = table.shape[-1]
    x = _toeplitz(table.reshape(2 * side - 1, 2 * side - 1, n))  # rows of query and key, columns of distance
    x = _toeplitz(x.transpose(2, 0, 1, 3))  # columns of query and key, rows of query and key
    return x.transpose(4, 2, 0, 3, 1).reshape(n, side**2, side**2)


def _toeplitz(x: jax.Array) -> jax.Array:
    """f[2s-1,...] -> f[s,s,...], whose entry (i, j) is x[i - j + s - 1]."""
    side, rest = (x.shape[0] + 1) // 2, x.shape[1:]
    x = x[::-1]
    # Rows of 2s entries, cut into rows of 2s - 1: each begins one entry earlier than the one before.
    x = jnp.broadcast_to(jnp.concatenate([x, x[:1]])[None], (side, 2 * side, *rest)).reshape(2 * side**2, *rest)
    return x[: side * (2 * side - 1)].reshape(side, 2 * side - 1, *rest)[:, side - 1 :]
