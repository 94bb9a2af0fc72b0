"""A convolution of an image enlarged by 2, computed at the size that the image had before.

Nearest up-sampling repeats a pixel, so that several taps of the kernel read the same pixel: their sum is one tap.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.nn.ops.conv import conv2d, depth_to_space
from jaxseg.nn.ops.resize import upsample

# [tap, output, u]: the taps u of 3 whose sum is a tap of 2, for the output before and behind the middle of two pixels.
_AXIS = np.asarray([[[1, 1, 0], [1, 0, 0]], [[0, 0, 1], [0, 1, 1]]])
# The same for rows and columns. As a product of matrices it has one operation in each direction to compile.
_SUMS = np.einsum("apu,bqv->abpquv", _AXIS, _AXIS).reshape(16, 9)


def conv2d_upsampled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """conv2d(upsample(x, 2, "nearest"), kernel, padding=k // 2): f[b,h,w,c], f[k,k,c,o] -> f[b,2h,2w,o], k = 1 or 3.

    Along one axis output 2i is K_0 x_(i-1) + (K_1 + K_2) x_i, and output 2i - 1 is (K_0 + K_1) x_(i-1) + K_2 x_i: two
    kernels of 2 taps on the same two pixels. In two dimensions the four outputs around a corner of pixels are the
    channels of one 2x2 convolution, which has 4/9 of the products of the 3x3 convolution.

    Raises:
        ValueError: for a kernel of another size.
    """
    sides = kernel.shape[:2]
    if sides == (1, 1):
        return upsample(conv2d(x, kernel), 2, "nearest")
    if sides != (3, 3):
        raise ValueError(f"conv2d_upsampled takes a kernel of 1x1 or 3x3, got {sides[0]}x{sides[1]}.")
    corners = conv2d(x, _taps_at_corners(kernel), padding=1)
    return depth_to_space(corners, 2)[:, 1:-1, 1:-1]


def _taps_at_corners(kernel: jax.Array) -> jax.Array:
    """f[3,3,c,o] -> f[2,2,c,4o]: the taps of the outputs above left, above right, below left and below right."""
    c, o = kernel.shape[2:]
    sums = jnp.asarray(_SUMS, kernel.dtype)
    taps = jnp.matmul(sums, kernel.reshape(9, c * o), precision=lax.Precision.HIGHEST)
    return taps.reshape(2, 2, 2, 2, c, o).transpose(0, 1, 4, 2, 3, 5).reshape(2, 2, c, 4 * o)
