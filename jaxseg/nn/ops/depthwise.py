"""Depthwise convolution, in which each channel has its own kernel.

XLA's depthwise convolution is slow on CPUs: there it is a sum of shifted products, one for each tap. On other devices
it is XLA's convolution. `benchmarks/primitives.py` compares the two.

oneDNN is not used: it takes 0.6 to 1.2 times as long for single layers of up to 640 channels, but half as long again
for the whole of SegFormer-B0, 40 times as long at an atrous rate of 6, and 70 times for the gradient of the input at
stride 2.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise_conv2d(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int) -> jax.Array:
    """Convolves f[b,h,w,c] with f[u,v,1,c], zero-padded by `padding` on every side -> f[b,y,x,c]."""
    return _convolve(x, kernel, stride, dilation, padding)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int) -> jax.Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _shifted(x, kernel, stride, dilation, padding),
        default=lambda x, kernel: _convolution(x, kernel, stride, dilation, padding),
    )


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, stride, dilation, padding), (x, kernel)


def _backward(
    stride: int, dilation: int, padding: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def default(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, pullback = jax.vjp(lambda x, kernel: _convolution(x, kernel, stride, dilation, padding), x, kernel)
        return pullback(dy)

    def cpu(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _shifted_gradients(x, kernel, dy, stride, dilation, padding)

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


def _shifted(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: int) -> jax.Array:
    """The sum over the kernel's taps of the pixels that each tap reads, times its weight; summed in float32."""
    size = [_output_size(n, k, stride, dilation, padding) for n, k in zip(x.shape[1:3], kernel.shape)]
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    total = jnp.zeros((x.shape[0], *size, x.shape[-1]), jnp.float32)
    for u in range(kernel.shape[0]):
        for v in range(kernel.shape[1]):
            tap = _window(x, u * dilation, v * dilation, size, stride).astype(jnp.float32)
            total = total + tap * kernel[u, v].astype(jnp.float32).reshape(1, 1, 1, -1)
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

    def row(image: jax.Array, i: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(image, i, 1, axis=1).astype(jnp.float32)

    def add(i: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        gradient = row(dy, i)
        rows = [row(x, i * stride + u * dilation) for u in range(size[0])]
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
