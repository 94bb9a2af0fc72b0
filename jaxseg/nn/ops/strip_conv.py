"""Depthwise convolution with a kernel of one row or one column, as a sum of shifted products.

XLA's grouped convolution is slow on CPUs and gathers the batch of a mesh (`nn.ops.by_device`). A sum of shifted
products has neither fault, and XLA computes it in one pass over the image. The gradient of the kernel is as many sums
as it has taps, over the whole image each; they are computed one after the other in a loop, as XLA would write out a
shifted image for each tap of a program without one.
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
    padded, side = _padded(x, len(kernel), axis), x.shape[axis]
    windows = (jax.lax.slice_in_dim(padded, u, u + side, axis=axis) for u in range(len(kernel)))
    taps = zip(windows, kernel, strict=True)
    total = sum(window.astype(jnp.float32) * tap.reshape(1, 1, 1, -1) for window, tap in taps)
    return jnp.asarray(total).astype(x.dtype)


def _padded(x: jax.Array, size: int, axis: Axis) -> jax.Array:
    """The image with the zeros beyond its sides that a kernel of `size` taps reads."""
    margins = [(0, 0)] * 4
    margins[axis] = (size // 2, size // 2)
    return jnp.pad(x, margins)


def _forward(x: jax.Array, kernel: jax.Array, axis: Axis) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return strip_conv2d(x, kernel, axis), (x, kernel)


def _backward(axis: Axis, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return strip_conv2d(dy, kernel[::-1], axis), _sums(x, dy, len(kernel), axis).astype(kernel.dtype)


def _sums(x: jax.Array, dy: jax.Array, size: int, axis: Axis) -> jax.Array:
    """Σ_i x_(i+u-p) dy_i over all pixels of the batch, for each tap u: f32[size,c]."""
    padded, wide, side = _padded(x, size, axis), dy.astype(jnp.float32), x.shape[axis]

    def total(window: jax.Array) -> jax.Array:
        return jnp.sum(window.astype(jnp.float32) * wide, axis=(0, 1, 2))

    if axis == 2:
        return jax.lax.map(lambda u: total(jax.lax.dynamic_slice_in_dim(padded, u, side, axis)), jnp.arange(size))

    # Devices that share an image by its rows would gather it for rows that the loop chooses. One row up a step, they
    # exchange that row.
    def step(padded: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        up = [(0, 0, 0), (-1, 1, 0), (0, 0, 0), (0, 0, 0)]
        return jax.lax.pad(padded, jnp.zeros((), padded.dtype), up), total(padded[:, :side])

    return jax.lax.scan(step, padded, length=size)[1]


strip_conv2d.defvjp(_forward, _backward)
