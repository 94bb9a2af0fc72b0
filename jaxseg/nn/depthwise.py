"""Depthwise convolution at stride 1, as sums of shifted images where XLA has nothing fast of its own."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv2d(x: jax.Array, kernel: jax.Array, dilation: int = 1, padding: int = 1) -> jax.Array:
    """Convolves each channel of f[b,h,w,c] with its own kernel, f[u,v,1,c], zero-padded on every side -> f[b,y,x,c].

    On a CPU, XLA's grouped convolution takes about ten times as long, forward and backward; elsewhere it is used.
    """
    return lax.platform_dependent(
        x, kernel, cpu=functools.partial(_shifted, dilation=dilation, padding=padding),
        default=functools.partial(_grouped, dilation=dilation, padding=padding),
    )  # fmt: skip


def _grouped(x: jax.Array, kernel: jax.Array, dilation: int, padding: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(padding, padding)] * 2, rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1],
    )  # fmt: skip


def _taps(x: jax.Array, kernel_shape: tuple[int, ...], dilation: int, padding: int) -> list[list[jax.Array]]:
    """The image that each tap of the kernel sees, f32[b,y,x,c] by row and column of the kernel."""
    rows, columns = kernel_shape[:2]
    h = x.shape[1] + 2 * padding - dilation * (rows - 1)
    w = x.shape[2] + 2 * padding - dilation * (columns - 1)
    # A negative padding crops.
    padded = lax.pad(x.astype(jnp.float32), 0.0, [(0, 0, 0), (padding, padding, 0), (padding, padding, 0), (0, 0, 0)])
    return [
        [padded[:, u * dilation :, v * dilation :][:, :h, :w] for v in range(columns)] for u in range(rows)
    ]  # fmt: skip


def _shifted(x: jax.Array, kernel: jax.Array, dilation: int, padding: int) -> jax.Array:
    taps = _taps(x, kernel.shape, dilation, padding)
    total = sum(tap * kernel[u, v].reshape(1, 1, 1, -1) for u, row in enumerate(taps) for v, tap in enumerate(row))
    return total.astype(x.dtype)


def _shifted_backward(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, dilation: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    reach = dilation * (kernel.shape[0] - 1)
    dx = _shifted(dy, kernel[::-1, ::-1], dilation, reach - padding)
    # The sum over pixels as a product with ones: XLA's own reduction of leading axes is slower.
    ones = jnp.ones((1, dy[..., 0].size), jnp.float32)
    rows = [
        jnp.stack([ones @ (tap * dy).reshape(-1, x.shape[-1]) for tap in row])
        for row in _taps(x, kernel.shape, dilation, padding)
    ]
    return dx, jnp.stack(rows).astype(kernel.dtype)


def _grouped_backward(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, dilation: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(functools.partial(_grouped, dilation=dilation, padding=padding), x, kernel)[1](dy)


def _backward(
    dilation: int, padding: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return lax.platform_dependent(
        *saved, dy, cpu=functools.partial(_shifted_backward, dilation=dilation, padding=padding),
        default=functools.partial(_grouped_backward, dilation=dilation, padding=padding),
    )  # fmt: skip


depthwise_conv2d.defvjp(
    lambda x, kernel, dilation, padding: (depthwise_conv2d(x, kernel, dilation, padding), (x, kernel)), _backward
)
