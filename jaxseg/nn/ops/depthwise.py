"""Depthwise convolution, in which each channel has its own kernel.

XLA's depthwise convolution is slow on CPUs: there it is a sum of shifted products, one for each tap, which reads a
window of the padded image. At an atrous rate that is large beside the image each tap reads the pixels that it has, and
no padded copy of the image is made. On other devices it is XLA's convolution. `benchmarks/primitives.py` compares the
two.

oneDNN is not used: it takes 0.6 to 1.2 times as long for single layers of up to 640 channels, but half as long again
for the whole of SegFormer-B0, 40 times as long at an atrous rate of 6, and 70 times for the gradient of the input at
stride 2.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.conv_taps import LARGEST_SHARE, Span, add_at, inputs_of, live_share, live_taps, outputs_of
from jaxseg.nn.ops.sizes import is_known
from jaxseg.nn.ops.tracing import bound

# With more taps than these, windows of the padded image are read. Forward and both gradients on two cores, float32,
# minima in milliseconds of 12 interleaved rounds while other programs ran: windows / taps. Kernels of 3x3: 23 / 0.8 at
# 4 images of 8x8x2048 and rate 12, 217 / 42 at 4 of 32x32x512 and rate 18, where the workspace is 78 / 1.5 MB. Kernels
# of 7x7: 20 / 88 at 4 of 32x32x96, 8 / 20 at 4 of 8x8x384. At rate 1 a 3x3 layer alone is faster by taps too (3.7 / 2.0
# at 4 of 32x32x128), but a training step of SegFormer-B0 then needs 226 MB in place of 164, and is not faster.
MOST_TAPS = 9


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise_conv2d(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int) -> jax.Array:
    """Convolves f[b,h,w,c] with f[u,v,1,c], zero-padded by `padding` on every side -> f[b,y,x,c]."""
    return _convolve(x, kernel, stride, dilation, padding)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int) -> jax.Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=bound(_on_cpu, stride=stride, dilation=dilation, padding=padding),
        default=bound(_convolution, stride=stride, dilation=dilation, padding=padding),
    )


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, stride, dilation, padding), (x, kernel)


def _backward(
    stride: int, dilation: int, padding: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    cpu = bound(_gradients_on_cpu, stride=stride, dilation=dilation, padding=padding)
    default = bound(_gradients_of_convolution, stride=stride, dilation=dilation, padding=padding)
    return lax.platform_dependent(*saved, dy, cpu=cpu, default=default)


depthwise_conv2d.defvjp(_forward, _backward)


def _convolution(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _gradients_of_convolution(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int, dilation: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(lambda x, kernel: _convolution(x, kernel, stride, dilation, padding), x, kernel)[1](dy)


def _goes_by_taps(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int) -> bool:
    if stride > 1 or dilation == 1 or not is_known(*x.shape[1:3]):
        return False
    if len(live_taps(x.shape, kernel.shape, dilation, padding)) > MOST_TAPS:
        return False
    return live_share(x.shape, len(kernel), dilation, padding) <= LARGEST_SHARE


def _on_cpu(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int) -> jax.Array:
    if _goes_by_taps(x, kernel, stride, dilation, padding):
        return _by_taps(x, kernel, dilation, padding)
    return _shifted(x, kernel, stride, dilation, padding)


def _gradients_on_cpu(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int, dilation: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    if _goes_by_taps(x, kernel, stride, dilation, padding):
        return _gradients_by_taps(x, kernel, dy, dilation, padding)
    return _shifted_gradients(x, kernel, dy, stride, dilation, padding)


def _by_taps(x: jax.Array, kernel: jax.Array, dilation: int, padding: int) -> jax.Array:
    """As `_shifted` at stride 1, without a padded copy of the image."""
    more = 2 * padding - dilation * (len(kernel) - 1)
    y = jnp.zeros((x.shape[0], x.shape[1] + more, x.shape[2] + more, x.shape[3]), jnp.float32)
    for (u, v), (rows, columns) in live_taps(x.shape, kernel.shape, dilation, padding).items():
        pixels = inputs_of(x, rows, columns).astype(jnp.float32)
        y = add_at(y, pixels * _weight(kernel, u, v), rows.out, columns.out)
    return y.astype(x.dtype)


def _gradients_by_taps(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, dilation: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    dx = jnp.zeros(x.shape, jnp.float32)
    none = jnp.zeros(x.shape[-1:], jnp.float32)
    taps = [[none] * kernel.shape[1] for _ in range(kernel.shape[0])]
    live = live_taps(x.shape, kernel.shape, dilation, padding)
    for (u, v), (rows, columns) in live.items():
        part = outputs_of(dy, rows, columns).astype(jnp.float32)
        dx = add_at(dx, part * _weight(kernel, u, v), rows.into, columns.into)
    for u in range(kernel.shape[0]):
        columns = {v: span for (row, v), (_, span) in live.items() if row == u}
        if columns:
            sums = _row_of_taps(x, dy, live[u, min(columns)][0], list(columns.values()))
            for v, total in zip(columns, sums, strict=True):
                taps[u][v] = total
    dk = jnp.stack([jnp.stack(row) for row in taps])
    return dx.astype(x.dtype), dk.reshape(kernel.shape).astype(kernel.dtype)


def _row_of_taps(x: jax.Array, dy: jax.Array, rows: Span, columns: list[Span]) -> list[jax.Array]:
    """Sums the pixels that each tap of one row of the kernel reads times dy -> f32[c] for each tap.

    It goes row by row of the image, so that the products are never all in memory.
    """

    def add(i: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        pixels, gradient = _row(x, rows.into + i), _row(dy, rows.out + i)
        return tuple(
            total + _part(pixels, span.into, span.length) * _part(gradient, span.out, span.length)
            for total, span in zip(sums, columns, strict=True)
        )

    zeros = tuple(jnp.zeros((x.shape[0], 1, span.length, x.shape[-1]), jnp.float32) for span in columns)
    return [total.sum((0, 1, 2)) for total in lax.fori_loop(0, rows.length, add, zeros)]


def _row(image: jax.Array, i: jax.Array) -> jax.Array:
    return lax.dynamic_slice_in_dim(image, i, 1, axis=1).astype(jnp.float32)


def _part(row: jax.Array, left: int, length: int) -> jax.Array:
    return row[:, :, left : left + length]


def _weight(kernel: jax.Array, u: int, v: int) -> jax.Array:
    return kernel[u, v].astype(jnp.float32).reshape(1, 1, 1, -1)


def _shifted(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int) -> jax.Array:
    """The sum over the kernel's taps of the pixels that each tap reads, times its weight; summed in float32."""
    size = [_output_size(n, k, stride, dilation, padding) for n, k in zip(x.shape[1:3], kernel.shape)]
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    total = jnp.zeros((x.shape[0], *size, x.shape[-1]), jnp.float32)
    for u in range(kernel.shape[0]):
        for v in range(kernel.shape[1]):
            tap = _window(x, u * dilation, v * dilation, size, stride).astype(jnp.float32)
            total = total + tap * _weight(kernel, u, v)
    return total.astype(x.dtype)


def _shifted_gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int, dilation: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    """That of x is dy dilated by the stride under the mirrored kernel; that of a tap the pixels it reads times dy."""
    pads = [(0, 0, 0)]
    for n, k, m in zip(x.shape[1:3], kernel.shape, dy.shape[1:3]):
        low = (k - 1) * dilation - padding
        spread = (m - 1) * stride + 1
        pads.append((low, n + (k - 1) * dilation - low - spread, stride - 1))
    wide = lax.pad(dy, jnp.zeros((), dy.dtype), [*pads, (0, 0, 0)])
    dx = _shifted(wide, kernel[::-1, ::-1], 1, dilation, 0)
    taps = _kernel_gradient(x, dy, kernel.shape[:2], stride, dilation, padding)
    return dx, taps.reshape(kernel.shape).astype(kernel.dtype)


def _kernel_gradient(
    x: jax.Array, dy: jax.Array, size: tuple[int, ...], stride: int, dilation: int, padding: int
) -> jax.Array:
    """Sums, for each tap, the pixels that it reads times dy: f[b,h,w,c], f[b,y,x,c] -> f32[u v,c].

    It goes row by row, so that each pixel is loaded once for all taps and the running sums stay small.
    """
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    b, h, w, c = dy.shape

    def add(i: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        gradient = _row(dy, i)
        rows = [_row(x, i * stride + u * dilation) for u in range(size[0])]
        taps = [_window(pixels, 0, v * dilation, (1, w), stride) for pixels in rows for v in range(size[1])]
        return tuple(total + tap * gradient for total, tap in zip(sums, taps, strict=True))

    zeros = jnp.zeros((b, 1, w, c), jnp.float32)
    sums = lax.fori_loop(0, h, add, (zeros,) * (size[0] * size[1]))
    return jnp.stack([total.sum((0, 1, 2)) for total in sums])


def _output_size(size: int, taps: int, stride: int, dilation: int, padding: int) -> int:
    return (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1


def _window(x: jax.Array, top: int, left: int, size: tuple[int, ...] | list[int], stride: int) -> jax.Array:
    """The pixels of f[b,h,w,c] that one tap reads: every `stride`-th from (top, left) on -> f[b,*size,c]."""
    b, _, _, c = x.shape
    bottom, right = top + (size[0] - 1) * stride + 1, left + (size[1] - 1) * stride + 1
    return lax.slice(x, (0, top, left, 0), (b, bottom, right, c), (1, stride, stride, 1))
