"""A convolution whose images are split by rows: each device exchanges the rows at its edges with its neighbours.

XLA does this by itself for an ordinary convolution. For the gradient of the kernel of a grouped one it gathers the
whole images instead (jaxlib 0.10 to 0.12).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxseg.nn.ops.by_device import BATCH_AXIS, SPACE_AXIS, STATE_AXIS, mesh_axes


def is_divided(x: jax.Array, size: int, stride: int, dilation: int, padding: int) -> bool:
    """Returns whether `convolve_rows` computes the convolution of f[b,h,w,c] with a kernel of this geometry.

    There is a mesh with the axis `SPACE_AXIS`; it divides the rows into equal parts, of the input and of the output,
    and the other axes the images; and no device needs rows from beyond its neighbours.
    """
    sizes = mesh_axes()
    if SPACE_AXIS not in sizes or sizes[SPACE_AXIS] == 1 or x.shape[0] % (sizes[BATCH_AXIS] * sizes[STATE_AXIS]):
        return False
    rows, reach = x.shape[1] // sizes[SPACE_AXIS], dilation * (size - 1)
    outputs = (x.shape[1] + 2 * padding - reach - 1) // stride + 1
    return (
        x.shape[1] % (sizes[SPACE_AXIS] * stride) == 0
        and outputs * stride == x.shape[1]
        and max(_halo(reach, stride, padding)) <= rows
    )


def convolve_rows(
    convolve: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int,
    dilation: int,
    padding: int,
) -> jax.Array:
    """Convolves f[b,h,w,c], split by rows, with a kernel f[u,v,i,o] -> f[b,y,x,o], split by rows; see `is_divided`.

    Args:
        convolve: the convolution of (x, kernel), padded by `padding` at the left and right, and not at top and bottom.
        x: images.
        kernel: of the convolution.
        stride, dilation, padding: of the convolution.
    """
    count = mesh_axes()[SPACE_AXIS]
    above, below = _halo(dilation * (kernel.shape[0] - 1), stride, padding)
    crop = min(0, dilation * (kernel.shape[0] - 1) - padding - stride + 1)  # rows that no output of this device reads

    def local(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # A device without a neighbour receives zeros, which are the padding of the image.
        down, up = [(i, i + 1) for i in range(count - 1)], [(i + 1, i) for i in range(count - 1)]
        own = x[:, : x.shape[1] + crop]
        parts = [lax.ppermute(x[:, x.shape[1] - above :], SPACE_AXIS, down)] if above else []
        parts += [own] + ([lax.ppermute(x[:, :below], SPACE_AXIS, up)] if below else [])
        return convolve(jnp.concatenate(parts, axis=1), kernel)

    images = PartitionSpec((BATCH_AXIS, STATE_AXIS), SPACE_AXIS)
    return jax.shard_map(local, in_specs=(images, PartitionSpec()), out_specs=images, check_vma=False)(x, kernel)


def _halo(reach: int, stride: int, padding: int) -> tuple[int, int]:
    """Returns how many rows of the neighbours above and below a device reads."""
    return padding, max(0, reach - padding - stride + 1)
