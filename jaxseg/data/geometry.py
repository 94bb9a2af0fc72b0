"""Maps of an image and its label: the matrices, elastic shifts, and the resampling of both.

A matrix f32[3,3] maps (row, column, 1) of a pixel of the result to the position in the input that it comes from; pixel
centres are whole numbers, as in `scipy.ndimage.affine_transform`. A product of matrices combines several maps into one:
in `a @ b` the step of `a` comes first. The image is resampled bilinearly and extended by its edge pixels; the label
takes the nearest pixel, and IGNORE outside the input. The identity returns image and label bit for bit unchanged.
"""

import functools
import math
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import IGNORE, Array, Key

Size: TypeAlias = tuple[int, ...]  # (height, width), as the first two of an array's shape


def rotation_matrix(degrees: Array | float, size: Size) -> jax.Array:
    """Returns f32[3,3] that rotates an image of `size` (h, w) counter-clockwise about its centre."""
    turn = jnp.asarray(degrees, jnp.float32) / 180.0
    # The cosine is computed as a sine: this is exact at 90 degrees, where the cosine itself has an error of 4e-8.
    cos, sin = jnp.sin(jnp.pi * (0.5 - jnp.abs(turn))), jnp.sin(jnp.pi * turn)
    return _about(((cos, sin), (-sin, cos)), *_centre(size))


def shear_matrix(tangent: Array | float, size: Size) -> jax.Array:
    """Returns f32[3,3] that shears an image of `size` (h, w) about its centre, moving its rows sideways."""
    return _about(((1.0, 0.0), (tangent, 1.0)), *_centre(size))


def zoom_matrix(factor: Array | float, row: Array | float, column: Array | float) -> jax.Array:
    """Returns f32[3,3] that magnifies by `factor` about the point (row, column)."""
    return _about(((1.0 / factor, 0.0), (0.0, 1.0 / factor)), row, column)


def flip_matrix(flipped: Array | bool, axis: int, size: Size) -> jax.Array:
    """Returns f32[3,3] that mirrors an image of `size` (h, w) along `axis` if `flipped`, the identity if not."""
    mirror = np.eye(3, dtype=np.float32)
    mirror[axis, axis], mirror[axis, 2] = -1.0, size[axis] - 1
    return jnp.where(flipped, mirror, np.eye(3, dtype=np.float32))


def tilt_matrix(row: Array | float, column: Array | float, size: Size) -> jax.Array:
    """Returns f32[3,3] of the perspective of a plane that is tilted about the centre of an image of `size` (h, w).

    The scale at the bottom is 1 + `row` of that at the centre, at the top 1 - `row`, and 1 ± `column` at the sides. The
    sum of their amounts must be below 1. Such a matrix is no affine map; see `projective` of `warp_image`.
    """
    down, right = _centre(size)
    lean_down, lean_right = row / max(down, 0.5), column / max(right, 0.5)
    to_centre = np.array([[1.0, 0.0, -down], [0.0, 1.0, -right], [0.0, 0.0, 1.0]], np.float32)
    back = np.array([[1.0, 0.0, down], [0.0, 1.0, right], [0.0, 0.0, 1.0]], np.float32)
    lean = jnp.zeros((3, 3), jnp.float32).at[2, 0].set(lean_down).at[2, 1].set(lean_right)
    highest = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    return highest(back, highest(jnp.eye(3, dtype=jnp.float32) + lean, to_centre))


def elastic_shift(key: Key, size: Size, amount: float, spacing: float) -> jax.Array:
    """Returns f32[h,w,2], smooth random shifts (rows, columns) in pixels, the elastic deformation of U-Net.

    Shifts are drawn with the standard deviation `amount` at points `spacing` pixels apart, the first one before the
    image, and interpolated by cubic splines that pass through them (Catmull and Rom 1974), so that between points
    they are smaller (Ronneberger et al. 2015, section 3.1: 10 pixels, at 3x3 points).
    """
    weights = [_cubic_weights(side, spacing) for side in size]
    coarse = amount * jax.random.normal(key, (weights[0].shape[1], weights[1].shape[1], 2))
    return jnp.einsum("yi,xj,ijd->yxd", *weights, coarse, precision=jax.lax.Precision.HIGHEST)


def warp(image: Array, label: Array, matrix: Array) -> tuple[jax.Array, jax.Array]:
    """Returns image f32[h,w,c] and label i[h,w] transformed by matrix f32[3,3].

    Raises:
        ValueError: if image and label differ in size.
    """
    check_pair(image, label)
    return warp_image(image, matrix), warp_label(label, matrix)


def warp_image(
    image: Array,
    matrix: Array,
    origin: Array | Size = (0, 0),
    size: Size | None = None,
    shift: Array | None = None,
    projective: bool = False,
) -> jax.Array:
    """Returns the window of `size` (default: the whole image) at `origin` of the transformed image f32[h,w,c].

    Args:
        image: f32[h,w,c].
        matrix: f32[3,3].
        origin: first row and column of the window.
        size: (height, width) of the window.
        shift: f32[h,w,2], rows and columns in pixels that are added before the matrix, of the whole image.
        projective: whether the third row of the matrix counts too, see `tilt_matrix`.
    """
    height, width, channels = image.shape
    y, x = _source(matrix, origin, (height, width) if size is None else size, shift, projective)
    (i, down), (j, right) = _cell(y, height), _cell(x, width)
    # Four gathers of whole pixels and three blends: the fastest form measured on CPU, in half the time of
    # map_coordinates.
    pixels, corner = jnp.asarray(image).reshape(height * width, channels), i * width + j

    def take(row: int, column: int) -> jax.Array:
        step = row * width * (height > 1) + column * (width > 1)
        return pixels.at[corner + step].get(mode="promise_in_bounds")

    # Both weights are written out: a + t (b - a) is not b at t = 1.
    upper = (1 - right) * take(0, 0) + right * take(0, 1)
    lower = (1 - right) * take(1, 0) + right * take(1, 1)
    return (1 - down) * upper + down * lower


def warp_label(
    label: Array, matrix: Array, ignore: int = IGNORE, shift: Array | None = None, projective: bool = False
) -> jax.Array:
    """Returns the transformed label i[h,w], with `ignore` outside the input; see `warp_image` for the others."""
    height, width = label.shape
    y, x = (jnp.floor(at + 0.5) for at in _source(matrix, (0, 0), label.shape, shift, projective))
    inside = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    index = jnp.clip(y, 0, height - 1).astype(jnp.int32) * width + jnp.clip(x, 0, width - 1).astype(jnp.int32)
    moved = jnp.asarray(label).reshape(-1).at[index].get(mode="promise_in_bounds")
    return jnp.where(inside, moved, jnp.asarray(ignore, label.dtype))


def check_pair(image: Array, label: Array) -> None:
    """Raises ValueError unless image is [h,w,c] and label [h,w]."""
    if image.ndim != 3 or label.ndim != 2 or image.shape[:2] != label.shape:
        raise ValueError(f"Expected image [h,w,c] and label [h,w] of one size, got {image.shape} and {label.shape}.")


def _cubic_weights(side: int, spacing: float) -> np.ndarray:
    """Returns f32[side,points], the weight of each point of a cubic spline at each pixel; pixel 0 is at the second."""
    place = np.arange(side)[:, None] / spacing + 1
    away = np.abs(place - np.arange(math.ceil((side - 1) / spacing) + 3)[None])
    near, far = 1.5 * away**3 - 2.5 * away**2 + 1, -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    return np.where(away < 1, near, np.where(away < 2, far, 0.0)).astype(np.float32)


def _centre(size: Size) -> tuple[float, float]:
    return (size[0] - 1) / 2, (size[1] - 1) / 2


def _about(linear: Sequence[Sequence[Array | float]], row: Array | float, column: Array | float) -> jax.Array:
    """Returns f32[3,3] of the map p + linear (x - p), with p = (row, column)."""
    entries = []
    for (a, b), p in zip(linear, (row, column)):
        entries += [a, b, p - (a * row + b * column)]
    return jnp.stack([jnp.asarray(e, jnp.float32) for e in (*entries, 0.0, 0.0, 1.0)]).reshape(3, 3)


def _source(
    matrix: Array, origin: Array | Size, size: Size, shift: Array | None, projective: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns the input rows and columns f32[h,w] from which the window of `size` at `origin` of the result comes."""
    rows = (origin[0] + jnp.arange(size[0])).astype(jnp.float32)[:, None]
    columns = (origin[1] + jnp.arange(size[1])).astype(jnp.float32)[None, :]
    if shift is not None:
        here = jax.lax.dynamic_slice(jnp.asarray(shift), (*origin, 0), (*size, 2))
        rows, columns = rows + here[:, :, 0], columns + here[:, :, 1]
    y, x = (matrix[i, 0] * rows + matrix[i, 1] * columns + matrix[i, 2] for i in range(2))
    if projective:
        # Shifts can push a pixel beyond the horizon, where the depth is 0: it takes what is far outside.
        depth = jnp.maximum(matrix[2, 0] * rows + matrix[2, 1] * columns + matrix[2, 2], 1e-3)
        y, x = y / depth, x / depth
    return y, x


def _cell(at: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """Returns the first of the two neighbours i32[h,w] and the weight f32[h,w,1] of the second."""
    at = jnp.clip(at, 0, length - 1)
    first = jnp.clip(jnp.floor(at), 0, max(length - 2, 0))
    return first.astype(jnp.int32), (at - first)[:, :, None]
