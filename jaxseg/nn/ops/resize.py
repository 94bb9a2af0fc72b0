"""Nearest and bilinear resizing with both corner conventions, padding and cropping.

The numbers are those of torch's `F.interpolate` without antialiasing; those of `jax.image.resize` differ.
"""

import functools
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.arguments import check_value
from jaxseg.errors import ArgumentError
from jaxseg.nn.ops.by_device import splits_rows
from jaxseg.nn.ops.product import along_axis
from jaxseg.nn.ops.sizes import Side, is_known
from jaxseg.nn.ops.tracing import traced_once

Method = Literal["bilinear", "nearest"]


def resize(x: jax.Array, size: tuple[int, ...], method: str = "bilinear", *, align_corners: bool = False) -> jax.Array:
    """Resizes f[b,h,w,c] to f[b,*size,c].

    Args:
        x: images.
        size: output height and width.
        method: "bilinear", or "nearest" (the pixel at floor(i * in / out), torch's "nearest").
        align_corners: for "bilinear". False: pixels are areas, and sample i lies at (i + .5) in / out - .5, clipped at
            the border. True: pixels are points, the corners keep their place, and sample i lies at
            i (in - 1) / (out - 1).

    Raises:
        ArgumentError: for an unknown method, a size below 1, or align_corners with "nearest".
    """
    if x.ndim != 4 or 0 in x.shape[1:3]:
        raise ValueError(f"resize takes an array [b,h,w,c] with h, w >= 1, got shape {x.shape}.")
    if any(is_known(side) and side < 1 for side in size):
        raise ArgumentError(f"size of resize must be at least 1x1, got {tuple(size)}.")
    if method == "nearest":
        if align_corners:
            raise ArgumentError("align_corners of resize must be False with method='nearest', got True.")
        return _nearest_axis(_nearest_axis(x, 1, size[0]), 2, size[1])
    if method != "bilinear":
        check_value("method of resize", method, Method)
    # The axis that shrinks more goes first, so that the second has less to do.
    known = is_known(*size, *x.shape[1:3])
    axes = sorted((1, 2), key=lambda axis: size[axis - 1] / x.shape[axis]) if known else (1, 2)
    for axis in axes:
        x = _bilinear_axis(x, axis, size[axis - 1], align_corners)
    return x


def resize_windows(x: jax.Array, size: tuple[int, ...], window: int) -> jax.Array:
    """Undoes `avg_pool(x, window, ceil_mode=True)` of f[b,*size,c]: bilinear between the centres of the windows.

    Equal to `resize` where `window` divides both sides. Where it does not, the last window of an axis is smaller, and
    its centre is nearer to that of the window before: `resize`, which takes all windows to be of one size, would
    displace the result.

    Raises:
        ValueError: if the height and width of x are not those of such a pooling.
    """
    if x.shape[1:3] != tuple(-(-side // window) for side in size):
        raise ValueError(f"Windows of {window} on {tuple(size)} pixels are not {x.shape[1:3]} of them.")
    if all(side % window == 0 for side in size):
        return resize(x, size)
    for axis, side in zip((1, 2), size):
        if side % window:
            starts = np.arange(x.shape[axis]) * window
            centres = (starts + np.minimum(starts + window, side) - 1) / 2
            position = np.interp(np.arange(side), centres, np.arange(len(centres)))
            x = _sample_axis(x, axis, position)
        else:
            x = _bilinear_axis(x, axis, side, align_corners=False)
    return x


def upsample(x: jax.Array, factor: int = 2, method: str = "bilinear", *, align_corners: bool = False) -> jax.Array:
    """Enlarges f[b,h,w,c] to f[b,h*factor,w*factor,c]; see `resize`.

    For networks of your own; those of jaxseg resize to the size of a skip, which a factor may miss by a pixel.
    """
    return resize(x, (x.shape[1] * factor, x.shape[2] * factor), method, align_corners=align_corners)


def _nearest_axis(x: jax.Array, axis: int, out: int) -> jax.Array:
    size = x.shape[axis]
    if out == size:
        return x
    if out % size == 0 and is_known(out // size):
        return jnp.repeat(x, out // size, axis=axis)
    # In float32, as in torch: where i * in / out is whole, its rounding decides.
    if not is_known(size, out):
        scale = jnp.asarray(size, jnp.float32) / jnp.asarray(out, jnp.float32)
        places = jnp.floor(jnp.arange(out, dtype=jnp.float32) * scale).astype(jnp.int32)
        return jnp.take(x, jnp.minimum(places, jnp.asarray(size, jnp.int32) - 1), axis=axis, mode="clip")
    index = np.floor(np.arange(out, dtype=np.float32) * (np.float32(size) / np.float32(out))).astype(np.int32)
    return jnp.take(x, np.minimum(index, size - 1), axis=axis)


def _positions(size: int, out: int, align_corners: bool) -> np.ndarray:
    """Returns where in [0, size - 1] each output sample lies."""
    if align_corners:
        return np.arange(out) * ((size - 1) / max(out - 1, 1))
    return np.clip((np.arange(out) + 0.5) * (size / out) - 0.5, 0.0, size - 1.0)


def _bilinear_axis(x: jax.Array, axis: int, out: int, align_corners: bool) -> jax.Array:
    size = x.shape[axis]
    if out == size:
        return x
    if out % size == 0 and not align_corners and is_known(out // size):
        return _enlarge_axis(x, axis, out // size)
    if not is_known(size, out):
        return _sample_unknown(x, axis, out, align_corners)
    return _sample_axis(x, axis, _positions(size, out, align_corners))


def _sample_axis(x: jax.Array, axis: int, position: np.ndarray) -> jax.Array:
    """Linear interpolation along axis 1 or 2 at each `position` in [0, size - 1]."""
    size, out = x.shape[axis], len(position)
    low = np.minimum(np.floor(position).astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((out, size), np.float32)
    np.add.at(matrix, (np.arange(out), low), 1.0 - (position - low))
    np.add.at(matrix, (np.arange(out), high), position - low)
    return along_axis(matrix, x, axis)


def _sample_unknown(x: jax.Array, axis: int, out: Side, align_corners: bool) -> jax.Array:
    """As `_sample_axis` at `_positions`, for symbolic sizes: the positions are fractions of whole numbers."""
    last = jnp.asarray(x.shape[axis], jnp.int32) - 1
    count, i = jnp.asarray(out, jnp.int32), jnp.arange(out, dtype=jnp.int32)
    below = jnp.maximum(count - 1, 1) if align_corners else 2 * count
    above = i * last if align_corners else (2 * i + 1) * (last + 1) - count
    above = jnp.clip(above, 0, last * below)
    low = above // below
    share = ((above - low * below).astype(jnp.float32) / below.astype(jnp.float32)).reshape(
        (1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1)
    )
    first = jnp.take(x, low, axis=axis, mode="clip").astype(jnp.float32)
    second = jnp.take(x, jnp.minimum(low + 1, last), axis=axis, mode="clip").astype(jnp.float32)
    return ((1 - share) * first + share * second).astype(x.dtype)


@traced_once("axis", "factor")
def _blend_axis(x: jax.Array, axis: int, factor: int) -> jax.Array:
    """Enlarges by a whole factor: each of the `factor` phases blends a pixel with one neighbour, without any gather."""
    size = x.shape[axis]
    x32 = x.astype(jnp.float32)
    before, after = _neighbour(x32, axis, -1, x32), _neighbour(x32, axis, 1, x32)
    phases = [(1 - abs(offset)) * x32 + abs(offset) * (before if offset < 0 else after) for offset in _offsets(factor)]
    y = jnp.stack(phases, axis + 1).astype(x.dtype)
    return y.reshape(*x.shape[:axis], size * factor, *x.shape[axis + 1 :])


def _neighbour(x: jax.Array, axis: int, step: Literal[-1, 1], border: jax.Array) -> jax.Array:
    """Returns the pixel of x before (step -1) or after each along an axis; at the border, the pixel of `border`."""
    size = x.shape[axis]
    if axis == 1 and splits_rows():
        # XLA exchanges a row for it, and whole images for two arrays one after the other.
        pads = [(0, 0, 0)] * axis + [(-step, step, 0)] + [(0, 0, 0)] * (x.ndim - axis - 1)
        moved = lax.pad(x, jnp.zeros((), x.dtype), pads)
        row = lax.broadcasted_iota(jnp.int32, (1, size, 1, 1), axis)
        return jnp.where(row == (0 if step < 0 else size - 1), border, moved)
    cut = functools.partial(lax.slice_in_dim, axis=axis)
    if step < 0:
        return jnp.concatenate([cut(border, 0, 1), cut(x, 0, size - 1)], axis)
    return jnp.concatenate([cut(x, 1, size), cut(border, size - 1, size)], axis)


def _offsets(factor: int) -> list[float]:
    """Returns where the `factor` output pixels of a pixel sample, from its centre, in pixels of the smaller image."""
    return [(u + 0.5) / factor - 0.5 for u in range(factor)]


@traced_once("axis", "factor")
def _reduce_axis(axis: int, factor: int, _: None, dy: jax.Array) -> tuple[jax.Array]:
    """The gradient of `_blend_axis`; the automatic one takes longer, see `benchmarks/primitives.py`."""
    size = dy.shape[axis] // factor
    phases = dy.astype(jnp.float32).reshape(*dy.shape[:axis], size, factor, *dy.shape[axis + 1 :])
    centre, low, high = 0.0, 0.0, 0.0  # for the pixel itself, the one before it, the one after it
    for u, offset in enumerate(_offsets(factor)):
        phase = lax.index_in_dim(phases, u, axis + 1, keepdims=False)
        centre += (1 - abs(offset)) * phase
        if offset < 0:
            low += abs(offset) * phase
        else:
            high += offset * phase
    # Each sum moves to the neighbour; at the border, where there is no neighbour, it stays at the pixel itself.
    low, high = cast(jax.Array, low), cast(jax.Array, high)  # of two phases or more
    low, high = _neighbour(low, axis, 1, high), _neighbour(high, axis, -1, low)
    return ((centre + low + high).astype(dy.dtype),)


_enlarge_axis = jax.custom_vjp(_blend_axis, nondiff_argnums=(1, 2))
_enlarge_axis.defvjp(lambda x, axis, factor: (_blend_axis(x, axis, factor), None), _reduce_axis)


def resize_to_sizes(x: jax.Array, sizes: jax.Array, canvas: tuple[int, ...]) -> jax.Array:
    """Resizes example i of f[b,h,w,k] bilinearly to (height, width) sizes[i], in the top left of f[b,*canvas,k].

    `sizes` i32[b,2] may be traced. The values outside an example's size are arbitrary. It samples as `resize` does with
    align_corners=False.
    """

    def one(image: jax.Array, size: jax.Array) -> jax.Array:
        for axis in (0, 1):
            length, out = image.shape[axis], canvas[axis]
            step = length / size[axis].astype(jnp.float32)
            position = jnp.clip((jnp.arange(out, dtype=jnp.float32) + 0.5) * step - 0.5, 0.0, length - 1.0)
            low = jnp.floor(position)
            share = (position - low).astype(image.dtype).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            low = low.astype(jnp.int32)
            first = jnp.take(image, low, axis=axis, mode="clip")
            second = jnp.take(image, jnp.minimum(low + 1, length - 1), axis=axis, mode="clip")
            image = first + share * (second - first)
        return image

    return jax.vmap(one)(x, jnp.asarray(sizes))


def pad_to_multiple(
    x: jax.Array, multiple: int | tuple[int, int], mode: str = "constant"
) -> tuple[jax.Array, tuple[int, int]]:
    """Pads f[b,h,w,c] at the bottom and right to multiples of `multiple`; returns it and the former (h, w).

    Args:
        x: normalised images, in which zero is the mean.
        multiple: the number that divides the new height and width, or one for either.
        mode: "constant" (zeros) or "edge" (repeats the border).
    """
    multiples = multiple if isinstance(multiple, tuple) else (multiple, multiple)
    if min(multiples) < 1:
        raise ArgumentError(f"multiple of pad_to_multiple must be a whole number of at least 1, got {multiple!r}.")
    check_value("mode of pad_to_multiple", mode, Literal["constant", "edge"])
    h, w = x.shape[1:3]
    bottom, right = (-(-side // each) * each - side for side, each in zip((h, w), multiples))
    if (bottom, right) != (0, 0):
        x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)), mode=mode)
    return x, (h, w)


def crop_to(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Returns the top left (h, w) = size of f[b,y,x,c] -> f[b,h,w,c]; it undoes `pad_to_multiple`."""
    h, w = size
    if is_known(*size, *x.shape[1:3]) and (h > x.shape[1] or w > x.shape[2]):
        raise ValueError(f"crop_to {size} is larger than the image, {x.shape[1:3]}.")
    return x[:, :h, :w]
