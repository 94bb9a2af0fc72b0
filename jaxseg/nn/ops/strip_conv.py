"""Depthwise convolution with a kernel of one row or one column, as a sum of shifted products.

XLA's grouped convolution is slow on CPUs and gathers the batch of a mesh (`nn.ops.by_device`). A sum of shifted
products has neither fault; XLA computes it in one pass over the image. The gradient of the kernel is a loop over the
taps, since XLA on CPUs writes out the products of all taps before it sums them: of 21 taps, 20 images like x. The loop
moves the image by one pixel at a time, and not by slices whose place it counts, so that devices which share the rows
of an image exchange one row and do not gather the image.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

Axis = Literal[1, 2]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def strip_conv2d(x: jax.Array, kernel: jax.Array, axis: Axis) -> jax.Array:
    """y_i = Σ_u x_(i+u-p) K_u of each channel along one axis: f[b,h,w,c], f[k,c] -> f[b,h,w,c], k = 2 p + 1.

    It is summed in float32 and has the dtype of x. The backward pass keeps x and the kernel.

    Args:
        x: f[b,h,w,c], zero beyond its sides.
        kernel: f[k,c] of odd k.
        axis: 1, along a column of the image; 2, along a row.
    """
    side, margins = x.shape[axis], [(0, 0)] * 4
    margins[axis] = (len(kernel) // 2, len(kernel) // 2)
    padded, total = jnp.pad(x, margins), jnp.zeros((), jnp.float32)
    for u in range(len(kernel)):
        window = padded[:, u : u + side] if axis == 1 else padded[:, :, u : u + side]
        total = total + window.astype(jnp.float32) * kernel[u].reshape(1, 1, 1, -1)
    return total.astype(x.dtype)


def _forward(x: jax.Array, kernel: jax.Array, axis: Axis) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return strip_conv2d(x, kernel, axis), (x, kernel)


def _backward(axis: Axis, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    wide, reach = dy.astype(jnp.float32), len(kernel) // 2

    def tap(x: jax.Array) -> jax.Array:
        return jnp.sum(x.astype(jnp.float32) * wide, axis=(0, 1, 2))

    def next_tap(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        x = _moved(x, axis, -1)
        return x, tap(x)

    def previous_tap(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        x = _moved(x, axis, 1)
        return x, tap(x)

    _, before = jax.lax.scan(previous_tap, x, None, length=reach)
    _, after = jax.lax.scan(next_tap, x, None, length=reach)
    taps = jnp.concatenate([before[::-1], tap(x)[None], after])
    return strip_conv2d(dy, kernel[::-1], axis), taps.astype(kernel.dtype)


def _moved(x: jax.Array, axis: Axis, places: Literal[1, -1]) -> jax.Array:
    """The image moved by one pixel along the axis, with zeros at the side that it leaves."""
    side = x.shape[axis]
    zeros = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
    if places == 1:
        return jnp.concatenate([zeros, jax.lax.slice_in_dim(x, 0, side - 1, axis=axis)], axis)
    return jnp.concatenate([jax.lax.slice_in_dim(x, 1, side, axis=axis), zeros], axis)


strip_conv2d.defvjp(_forward, _backward)
