"""Max and average pooling, un-pooling with indices, and global average pooling of f[b,h,w,c], any h and w.

Sizes are torch's: (h + 2 padding - window) // stride + 1, or that rounded up in `ceil_mode`, where a last window that
would start in the padding on the right is left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def max_pool(
    x: jax.Array, window: int = 2, stride: int | None = None, padding: int = 0, *, ceil_mode: bool = False
) -> jax.Array:
    """Largest value of each window: f[b,h,w,c] -> f[b,y,x,c]. The gradient of a tie goes to its first pixel.

    Args:
        x: images.
        window: side of the square window.
        stride: step between windows; None is `window`.
        padding: cells of -inf on every side, at most half the window.
        ceil_mode: keeps the pixels of an incomplete last window.

    Raises:
        ValueError: if no window fits, or the padding is more than half the window.
    """
    stride = window if stride is None else stride
    pads = _pads(x, window, stride, padding, ceil_mode, "max_pool")
    x = _crop(x, pads)
    if window == stride == 2 and padding == 0:
        return _max_pool_2x2(jnp.pad(x, pads, constant_values=-jnp.inf))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), pads)


@jax.custom_vjp
def _max_pool_2x2(x: jax.Array) -> jax.Array:
    """Max pooling of even sizes; XLA's own gradient of a window maximum is many times slower than the comparison."""
    a, b, c, d = _quarters(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _quarters(x: jax.Array) -> tuple[jax.Array, ...]:
    """The four pixels of each 2x2 window in reading order, each f[b,h/2,w/2,c]."""
    b, h, w, c = x.shape
    tiles = x.reshape(b, h // 2, 2, w // 2, 2, c)
    return tiles[:, :, 0, :, 0], tiles[:, :, 0, :, 1], tiles[:, :, 1, :, 0], tiles[:, :, 1, :, 1]


def _winner(x: jax.Array) -> jax.Array:
    """Which pixel of each 2x2 window, 0 to 3 in reading order, is its first maximum -> i8[b,h/2,w/2,c]."""
    a, b, c, d = _quarters(x)
    top = jnp.maximum(a, b) >= jnp.maximum(c, d)
    return jnp.where(top, jnp.where(a >= b, 0, 1), jnp.where(c >= d, 2, 3)).astype(jnp.int8)


def _max_pool_2x2_bwd(winner: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    b, h, w, c = dy.shape
    place = jnp.arange(4, dtype=jnp.int8).reshape(1, 1, 2, 1, 2, 1)
    here = winner[:, :, None, :, None] == place
    return (jnp.where(here, dy[:, :, None, :, None], jnp.zeros((), dy.dtype)).reshape(b, 2 * h, 2 * w, c),)


_max_pool_2x2.defvjp(lambda x: (_max_pool_2x2(x), _winner(x)), _max_pool_2x2_bwd)


def avg_pool(
    x: jax.Array, window: int = 2, stride: int | None = None, padding: int = 0, *, ceil_mode: bool = False
) -> jax.Array:
    """Mean of the image's own pixels in each window (padding is not counted): f[b,h,w,c] -> f[b,y,x,c].

    Arguments and errors as in `max_pool`; torch's count_include_pad=False.
    """
    stride = window if stride is None else stride
    pads = _pads(x, window, stride, padding, ceil_mode, "avg_pool")
    dims, strides = (1, window, window, 1), (1, stride, stride, 1)
    x = _crop(x, pads)
    total = lax.reduce_window(x.astype(jnp.float32), 0.0, lax.add, dims, strides, pads)
    count = lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1), jnp.float32), 0.0, lax.add, dims, strides, pads)
    return (total / count).astype(x.dtype)


def _crop(x: jax.Array, pads: list[tuple[int, int]]) -> jax.Array:
    """Cuts off the pixels at the bottom and right that no window reaches; their padding becomes zero."""
    sizes = [size + min(0, high) for size, (_, high) in zip(x.shape, pads)]
    pads[:] = [(low, max(0, high)) for low, high in pads]
    return x[:, : sizes[1], : sizes[2]]


def _pads(x: jax.Array, window: int, stride: int, padding: int, ceil_mode: bool, name: str) -> list[tuple[int, int]]:
    """Padding of each axis that gives torch's output size; negative where pixels are left over."""
    if x.ndim != 4:
        raise ValueError(f"{name} takes an array [b,h,w,c], got shape {x.shape}.")
    if not 0 <= padding <= window // 2:
        raise ValueError(f"{name} needs 0 <= padding <= window // 2, got padding {padding} and window {window}.")
    pads = [(0, 0)]
    for size in x.shape[1:3]:
        span = size + 2 * padding - window
        steps = -(-span // stride) if ceil_mode else span // stride
        if ceil_mode and steps * stride >= size + padding:
            steps -= 1
        if steps < 0:
            raise ValueError(f"{name} of window {window} and padding {padding} has no room in {x.shape[1:3]} pixels.")
        pads.append((padding, steps * stride + window - size - padding))
    return [*pads, (0, 0)]


def max_pool_with_indices(x: jax.Array, window: int = 2) -> tuple[jax.Array, jax.Array]:
    """Max pooling that remembers where: f[b,h,w,c] -> (f[b,y,x,c], i32[b,y,x,c]), windows side by side.

    The index is row * w + column of the (first) maximum in its own channel, as torch's return_indices.
    Rows and columns that fill no window are left out.
    """
    b, h, w, c = x.shape
    y, z = h // window, w // window
    if y == 0 or z == 0:
        raise ValueError(f"max_pool_with_indices of window {window} has no room in {(h, w)} pixels.")
    x = x[:, : y * window, : z * window]
    if window == 2:
        pooled, place = _max_pool_2x2(x), _winner(lax.stop_gradient(x)).astype(jnp.int32)
    else:
        tiles = x.reshape(b, y, window, z, window, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, y, z, window * window, c)
        place = jnp.argmax(lax.stop_gradient(tiles), axis=3).astype(jnp.int32)
        pooled = jnp.take_along_axis(tiles, place[:, :, :, None], axis=3)[:, :, :, 0]
    row = place // window + jnp.arange(y, dtype=jnp.int32).reshape(1, y, 1, 1) * window
    column = place % window + jnp.arange(z, dtype=jnp.int32).reshape(1, 1, z, 1) * window
    return pooled, row * w + column


def max_unpool(y: jax.Array, indices: jax.Array, size: tuple[int, int], window: int = 2) -> jax.Array:
    """Puts f[b,y,x,c] back where `max_pool_with_indices` found it, zeros elsewhere -> f[b,h,w,c], (h, w) = size.

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


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over the image, summed in float32: f[b,h,w,c] -> f[b,1,1,c]."""
    return x.astype(jnp.float32).mean((1, 2), keepdims=True).astype(x.dtype)


def adaptive_avg_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Means over a grid of `size` windows that cover the image: f[b,h,w,c] -> f[b,*size,c].

    Window i of n spans the pixels floor(i h / n) to ceil((i + 1) h / n) - 1, as torch's AdaptiveAvgPool2d; windows
    overlap where n does not divide h, and repeat pixels where n is larger. It is two products with constant matrices,
    summed in float32.

    Raises:
        ValueError: for a size below 1 or an image without pixels.
    """
    if x.ndim != 4 or 0 in x.shape[1:3]:
        raise ValueError(f"adaptive_avg_pool takes an array [b,h,w,c] with h, w >= 1, got shape {x.shape}.")
    if min(size) < 1:
        raise ValueError(f"adaptive_avg_pool needs a size of at least 1x1, got {tuple(size)}.")
    rows, columns = (_window_means(have, want) for have, want in zip(x.shape[1:3], size))
    y = jnp.einsum("yh,bhwc->bywc", rows, x.astype(jnp.float32), precision="highest")
    return jnp.einsum("xw,bywc->byxc", columns, y, precision="highest").astype(x.dtype)


def _window_means(size: int, windows: int) -> np.ndarray:
    """The matrix f32[windows,size] that takes the mean of each window."""
    matrix = np.zeros((windows, size), np.float32)
    for i in range(windows):
        low, high = i * size // windows, -(-(i + 1) * size // windows)
        matrix[i, low:high] = 1 / (high - low)
    return matrix
