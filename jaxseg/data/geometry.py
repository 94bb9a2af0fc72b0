"""Affine maps of an image and its label: the matrices, and the resampling of both.

A matrix f32[3,3] maps (row, column, 1) of a pixel of the result to the position in the input that it comes from; pixel
centres are whole numbers, as in `scipy.ndimage.affine_transform`. A product of matrices combines several maps into one:
in `a @ b` the step of `a` comes first. The image is resampled bilinearly and extended by its edge pixels; the label
takes the nearest pixel, and IGNORE outside the input. The identity returns image and label bit for bit unchanged.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import IGNORE, Array

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


def warp(image: Array, label: Array, matrix: Array) -> tuple[jax.Array, jax.Array]:
    """Returns image f32[h,w,c] and label i[h,w] transformed by matrix f32[3,3].

    Raises:
        ValueError: if image and label differ in size.
    """
    check_pair(image, label)
    return warp_image(image, matrix), warp_label(label, matrix)


def warp_image(image: Array, matrix: Array, origin: Array | Size = (0, 0), size: Size | None = None) -> jax.Array:
    """Returns the window of `size` (default: the whole image) at `origin` of the transformed image f32[h,w,c]."""
    height, width, channels = image.shape
    y, x = _source(matrix, origin, (height, width) if size is None else size)
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


def warp_label(label: Array, matrix: Array, ignore: int = IGNORE) -> jax.Array:
    """Returns the transformed label i[h,w], with `ignore` outside the input."""
    height, width = label.shape
    y, x = (jnp.floor(at + 0.5) for at in _source(matrix, (0, 0), label.shape))
    inside = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    index = jnp.clip(y, 0, height - 1).astype(jnp.int32) * width + jnp.clip(x, 0, width - 1).astype(jnp.int32)
    moved = jnp.asarray(label).reshape(-1).at[index].get(mode="promise_in_bounds")
    return jnp.where(inside, moved, jnp.asarray(ignore, label.dtype))


def check_pair(image: Array, label: Array) -> None:
    """Raises ValueError unless image is [h,w,c] and label [h,w]."""
    if image.ndim != 3 or label.ndim != 2 or image.shape[:2] != label.shape:
        raise ValueError(f"Expected image [h,w,c] and label [h,w] of one size, got {image.shape} and {label.shape}.")


def _centre(size: Size) -> tuple[float, float]:
    return (size[0] - 1) / 2, (size[1] - 1) / 2


def _about(linear: Sequence[Sequence[Array | float]], row: Array | float, column: Array | float) -> jax.Array:
    """Returns f32[3,3] of the map p + linear (x - p), with p = (row, column)."""
    entries = []
    for (a, b), p in zip(linear, (row, column)):
        entries += [a, b, p - (a * row + b * column)]
    return jnp.stack([jnp.asarray(e, jnp.float32) for e in (*entries, 0.0, 0.0, 1.0)]).reshape(3, 3)


def _source(matrix: Array, origin: Array | Size, size: Size) -> tuple[jax.Array, jax.Array]:
    """Returns the input rows and columns f32[h,w] from which the window of `size` at `origin` of the result comes."""
    rows = (origin[0] + jnp.arange(size[0])).astype(jnp.float32)[:, None]
    columns = (origin[1] + jnp.arange(size[1])).astype(jnp.float32)[None, :]
    y, x = (matrix[i, 0] * rows + matrix[i, 1] * columns + matrix[i, 2] for i in range(2))
    return y, x


def _cell(at: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """Returns the first of the two neighbours i32[h,w] and the weight f32[h,w,1] of the second."""
    at = jnp.clip(at, 0, length - 1)
    first = jnp.clip(jnp.floor(at), 0, max(length - 2, 0))
    return first.astype(jnp.int32), (at - first)[:, :, None]
