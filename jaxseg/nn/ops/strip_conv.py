"""Depthwise convolution with a kernel of one row or one column, as a sum of shifted products.

XLA's grouped convolution is slow on CPUs and gathers the batch of a mesh (`nn.ops.by_device`). A sum of shifted
products has neither fault; XLA computes it in one pass over the image.
"""

import functools
from collections.abc import Iterator
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
    taps = zip(_windows(x, kernel.shape[0], axis), kernel, strict=True)
    total = sum(window.astype(jnp.float32) * tap.reshape(1, 1, 1, -1) for window, tap in taps)
    return jnp.asarray(total).astype(x.dtype)


def _windows(x: jax.Array, size: int, axis: Axis) -> Iterator[jax.Array]:
    """The images that the taps of the kernel multiply, first tap first."""
    side, margins = x.shape[axis], [(0, 0)] * 4
    margins[axis] = (size // 2, size // 2)
    padded = jnp.pad(x, margins)
    for u in range(size):
        yield padded[:, u : u + side] if axis == 1 else padded[:, :, u : u + side]


def _forward(x: jax.Array, kernel: jax.Array, axis: Axis) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return strip_conv2d(x, kernel, axis), (x, kernel)


def _backward(axis: Axis, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    wide = dy.astype(jnp.float32)
    sums = [jnp.sum(window.astype(jnp.float32) * wide, axis=(0, 1, 2)) for window in _windows(x, len(kernel), axis)]
    return strip_conv2d(dy, kernel[::-1], axis), jnp.stack(sums).astype(kernel.dtype)


strip_conv2d.defvjp(_forward, _backward)
