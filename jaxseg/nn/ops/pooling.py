"""Max and average pooling, un-pooling with indices, and global average pooling of f[b,h,w,c], any h and w.

Output sizes are torch's: (h + 2 padding - window) // stride + 1. With `ceil_mode` the quotient is rounded up, but a
last window that would start in the padding at the bottom or right is left out.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.errors import ArgumentError
from jaxseg.nn.ops.forms import convolution_forms
from jaxseg.nn.ops.product import along_axis
from jaxseg.nn.ops.sizes import Side, is_known
from jaxseg.nn.ops.tracing import traced_once


def max_pool(
    x: jax.Array, window: int = 2, stride: int | None = None, padding: int = 0, *, ceil_mode: bool = False
) -> jax.Array:
    """Largest value of each window: f[b,h,w,c] -> f[b,y,x,c]. The first of equal maxima gets the gradient.

    Args:
        x: images.
        window: side of the square window.
        stride: step between windows; None is `window`.
        padding: cells of -inf on every side, at most half the window.
        ceil_mode: whether an incomplete last window counts.

    Raises:
        ValueError: if no window fits, or the padding is more than half the window.
    """
    stride = window if stride is None else stride
    pads = _pads(x, window, stride, padding, ceil_mode, "max_pool")
    x = _crop(x, pads)
    if window <= _SMALL and convolution_forms() != "plain":
        return _max_of_windows(jnp.pad(x, pads, constant_values=-jnp.inf), window, stride)
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), pads)


# Up to this side of the window, the maximum and its gradient are window^2 comparisons per pixel, which are many times
# faster than XLA's gradient of a window maximum.
_SMALL = 3


@traced_once("window", "stride")
def _maximum(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Max pooling where every pixel is in a window: f[b,h,w,c] -> f[b,y,x,c], h = (y - 1) stride + window."""
    return functools.reduce(jnp.maximum, _taps(x, window, stride))


def _taps(x: jax.Array, window: int, stride: int) -> list[jax.Array]:
    """The window^2 pixels of each window in reading order, each f[b,y,x,c]."""
    b, h, w, c = x.shape
    if window == stride:
        tiles = x.reshape(b, h // window, window, w // window, window, c)
        return [tiles[:, :, i, :, j] for i in range(window) for j in range(window)]
    high, wide = h - window + 1, w - window + 1
    return [
        lax.slice(x, (0, i, j, 0), (b, i + high, j + wide, c), (1, stride, stride, 1))
        for i in range(window)
        for j in range(window)
    ]


@traced_once("window", "stride")
def _winner(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Which pixel of each window, counted in reading order, is its first maximum -> i8[b,y,x,c]."""
    first, *rest = _taps(x, window, stride)
    best, place = first, jnp.zeros(first.shape, jnp.int8)
    for k, tap in enumerate(rest, start=1):
        place = jnp.where(tap > best, jnp.int8(k), place)
        best = jnp.maximum(best, tap)
    return place


def _max_of_windows_bwd(window: int, stride: int, winner: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    # Pixel (stride q + u) is tap u + stride e of window q - e, for every tile q alike.
    b, y, x, c = dy.shape
    shifts = -(-window // stride)
    pad = ((0, 0), (0, shifts - 1), (0, shifts - 1), (0, 0))

    def from_tap(i: int, j: int) -> jax.Array:
        """The gradient that each window gives to its tap (i, j), on the grid of tiles."""
        part = jnp.where(winner == jnp.int8(i * window + j), dy, jnp.zeros((), dy.dtype))
        low, left = i // stride, j // stride
        return jnp.pad(part, (pad[0], (low, shifts - 1 - low), (left, shifts - 1 - left), pad[3]))

    rows = []
    for u in range(stride):
        row = []
        for v in range(stride):
            taps = [from_tap(i, j) for i in range(u, window, stride) for j in range(v, window, stride)]
            row.append(sum(taps) if taps else jnp.zeros((b, y + shifts - 1, x + shifts - 1, c), dy.dtype))
        rows.append(jnp.stack(row, 3))
    tiles = jnp.stack(rows, 2)
    whole = tiles.reshape(b, stride * tiles.shape[1], stride * tiles.shape[3], c)
    return (whole[:, : (y - 1) * stride + window, : (x - 1) * stride + window],)


_max_of_windows = jax.custom_vjp(_maximum, nondiff_argnums=(1, 2))
_max_of_windows.defvjp(
    lambda x, window, stride: (_maximum(x, window, stride), _winner(x, window, stride)), _max_of_windows_bwd
)


def avg_pool(
    x: jax.Array, window: int = 2, stride: int | None = None, padding: int = 0, *, ceil_mode: bool = False
) -> jax.Array:
    """Mean of the pixels of each window, without padding: f[b,h,w,c] -> f[b,y,x,c].

    Arguments and errors as in `max_pool`; torch's count_include_pad=False.
    """
    stride = window if stride is None else stride
    pads = _pads(x, window, stride, padding, ceil_mode, "avg_pool")
    dims, strides = (1, window, window, 1), (1, stride, stride, 1)
    x = _crop(x, pads)
    if window == stride and all(pad == (0, 0) for pad in pads) and convolution_forms() != "plain":
        total = cast(jax.Array, sum(tap.astype(jnp.float32) for tap in _taps(x, window, stride)))
        return (total / window**2).astype(x.dtype)
    total = lax.reduce_window(x.astype(jnp.float32), 0.0, lax.add, dims, strides, pads)
    count = lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1), jnp.float32), 0.0, lax.add, dims, strides, pads)
    return (total / count).astype(x.dtype)


def _crop(x: jax.Array, pads: list[tuple[int, int]]) -> jax.Array:
    """Cuts off the pixels at the bottom and right that no window reaches; negative pads become zero."""
    sizes = [size + min(0, high) if is_known(high) else size for size, (_, high) in zip(x.shape, pads)]
    pads[:] = [(low, max(0, high) if is_known(high) else high) for low, high in pads]
    return x[:, : sizes[1], : sizes[2]]


def _pads(x: jax.Array, window: int, stride: int, padding: int, ceil_mode: bool, name: str) -> list[tuple[int, int]]:
    """Returns the padding of each axis that gives torch's output size; it is negative where pixels are left over."""
    if x.ndim != 4:
        raise ValueError(f"{name} takes an array [b,h,w,c], got shape {x.shape}.")
    if not 0 <= padding <= window // 2:
        raise ArgumentError(
            f"padding of {name} must be in [0, {window // 2}], half of the window {window}, got {padding!r}."
        )
    pads = [(0, 0)]
    for size in x.shape[1:3]:
        if not is_known(size):
            # Padding that no window reaches does no harm; a last window never starts in none at all.
            whole = (size - window + stride - 1) // stride * stride + window
            pads.append((padding, whole - size if ceil_mode and not padding else padding))
            continue
        span = size + 2 * padding - window
        steps = -(-span // stride) if ceil_mode else span // stride
        if ceil_mode and steps * stride >= size + padding:
            steps -= 1
        if steps < 0:
            raise ValueError(f"{name} of window {window} and padding {padding} has no room in {x.shape[1:3]} pixels.")
        pads.append((padding, steps * stride + window - size - padding))
    return [*pads, (0, 0)]


def max_pool_with_indices(x: jax.Array, window: int = 2) -> tuple[jax.Array, jax.Array]:
    """Max pooling with the places of the maxima: f[b,h,w,c] -> (f[b,y,x,c], i32[b,y,x,c]); windows do not overlap.

    The index is row * w + column of the (first) maximum in its channel, as with torch's return_indices. Rows and
    columns that do not fill a window are left out.
    """
    b, h, w, c = x.shape
    y, z = h // window, w // window
    if y == 0 or z == 0:
        raise ValueError(f"max_pool_with_indices of window {window} has no room in {(h, w)} pixels.")
    x = x[:, : y * window, : z * window]
    if window == 2:
        pooled, place = _max_of_windows(x, 2, 2), _winner(lax.stop_gradient(x), 2, 2).astype(jnp.int32)
    else:
        tiles = x.reshape(b, y, window, z, window, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, y, z, window * window, c)
        place = jnp.argmax(lax.stop_gradient(tiles), axis=3).astype(jnp.int32)
        pooled = jnp.take_along_axis(tiles, place[:, :, :, None], axis=3)[:, :, :, 0]
    row = place // window + jnp.arange(y, dtype=jnp.int32).reshape(1, y, 1, 1) * window
    column = place % window + jnp.arange(z, dtype=jnp.int32).reshape(1, 1, z, 1) * window
    return pooled, row * w + column


def max_unpool(y: jax.Array, indices: jax.Array, size: tuple[int, ...], window: int = 2) -> jax.Array:
    """Puts f[b,y,x,c] at the places that `max_pool_with_indices` gave, zeros elsewhere -> f[b,h,w,c], (h, w) = size.

    Raises:
        ValueError: if `size` does not pool to the shape of `y`.
    """
    h, w = size
    if (h // window, w // window) != y.shape[1:3] or y.shape != indices.shape:
        raise ValueError(
            f"max_unpool of {y.shape} with indices {indices.shape} and window {window} cannot give {size} pixels."
        )

    def spread(v: jax.Array) -> jax.Array:
        return jnp.repeat(jnp.repeat(v, window, axis=1), window, axis=2)

    rows, columns = y.shape[1] * window, y.shape[2] * window
    place = jnp.arange(rows, dtype=jnp.int32)[:, None] * w + jnp.arange(columns, dtype=jnp.int32)[None, :]
    full = jnp.where(spread(indices) == place[None, :, :, None], spread(y), jnp.zeros((), y.dtype))
    return jnp.pad(full, ((0, 0), (0, h - rows), (0, w - columns), (0, 0)))


def max_along(x: jax.Array, axis: int) -> jax.Array:
    """Largest value along one axis, which is kept with length 1. The first of equal maxima gets the gradient.

    The gradient of `jnp.max` compares the input with the maximum and divides by the number of equal values. Where XLA
    computes the input a second time with another rounding, that number is 0 and the gradient NaN.
    """
    return _max_along(x, axis)


def _largest(x: jax.Array, axis: int) -> jax.Array:
    return jnp.max(x, axis=axis, keepdims=True)


def _max_along_fwd(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    place = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis % x.ndim)
    return _largest(x, axis), place == jnp.argmax(x, axis, keepdims=True)


def _max_along_bwd(axis: int, winner: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    del axis
    return (jnp.where(winner, dy, jnp.zeros((), dy.dtype)),)


_max_along = jax.custom_vjp(_largest, nondiff_argnums=(1,))
_max_along.defvjp(_max_along_fwd, _max_along_bwd)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over the image, summed in float32: f[b,h,w,c] -> f[b,1,1,c]."""
    return x.astype(jnp.float32).mean((1, 2), keepdims=True).astype(x.dtype)


def adaptive_avg_pool(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Means over a grid of `size` windows that cover the image: f[b,h,w,c] -> f[b,*size,c].

    Window i of n spans the pixels floor(i h / n) to ceil((i + 1) h / n) - 1, as torch's AdaptiveAvgPool2d; windows
    overlap where n does not divide h, and repeat pixels where n is larger than h. It is computed as two products with
    constant matrices, each summed in float32.

    Raises:
        ValueError: for a size below 1 or an image without pixels.
    """
    if x.ndim != 4 or 0 in x.shape[1:3]:
        raise ValueError(f"adaptive_avg_pool takes an array [b,h,w,c] with h, w >= 1, got shape {x.shape}.")
    if min(size) < 1:
        raise ArgumentError(f"size of adaptive_avg_pool must be at least 1x1, got {tuple(size)}.")
    if not is_known(*x.shape[1:3]):
        rows, columns = (_unknown_means(have, want) for have, want in zip(x.shape[1:3], size))
        y = jnp.einsum("yh,bhwc->bywc", rows, x.astype(jnp.float32), precision="highest")
        return jnp.einsum("xw,bhwc->bhxc", columns, y, precision="highest").astype(x.dtype)
    rows, columns = (_window_means(have, want) for have, want in zip(x.shape[1:3], size))
    return along_axis(columns, along_axis(rows, x, axis=1), axis=2)


def _window_means(size: int, windows: int) -> np.ndarray:
    """Returns the matrix f32[windows,size] that takes the mean of each window."""
    matrix = np.zeros((windows, size), np.float32)
    for i in range(windows):
        low, high = i * size // windows, -(-(i + 1) * size // windows)
        matrix[i, low:high] = 1 / (high - low)
    return matrix


def _unknown_means(size: Side, windows: int) -> jax.Array:
    """As `_window_means`, for a symbolic size."""
    i, pixel = jnp.arange(windows, dtype=jnp.int32)[:, None], jnp.arange(size, dtype=jnp.int32)[None]
    side = jnp.asarray(size, jnp.int32)
    low, high = i * side // windows, -(-(i + 1) * side // windows)
    return jnp.where((pixel >= low) & (pixel < high), 1 / (high - low).astype(jnp.float32), 0.0)
