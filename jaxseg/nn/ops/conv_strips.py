"""Convolution with both gradients in the forms that XLA computes fastest on CPUs with jax 0.12.

The gradient of the kernel is a convolution whose "kernel" is as large as an image; cutting the images into strips makes
it smaller. The gradient of the input is computed for each phase of the stride. Where the program calls oneDNN
(`forms.convolution_forms`), the forward pass and the gradient of the input are calls of it, and the gradient of the
kernel is kept away from it: oneDNN is made for small kernels. `choose` holds the choice and its measurements.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.barrier import after_all
from jaxseg.nn.ops.forms import convolution_forms

_NHWC = ("NHWC", "HWIO", "NHWC")


class Geometry(NamedTuple):
    """What a convolution is, beside its arrays: as in `conv.conv2d`; `size` is the side of the kernel."""

    size: int
    stride: int
    dilation: int
    groups: int
    padding: int

    @property
    def reach(self) -> int:
        """Distance in pixels between the first and the last tap."""
        return self.dilation * (self.size - 1)


class Forms(NamedTuple):
    """The forms of the gradients of one convolution.

    Attributes:
        phases: whether the gradient of the input is computed for each phase of the stride by itself.
        strips: number of strips of rows that each image is cut into, for the gradient of the kernel.
        swapped: whether input and output gradient exchange their roles in the gradient of the kernel.
        away: whether XLA has to be kept from calling oneDNN for the gradient of the kernel.
    """

    phases: bool
    strips: int
    swapped: bool
    away: bool


def choose(shape: tuple[int, ...], outputs: tuple[int, ...], geometry: Geometry) -> Forms:
    """Returns the forms for an input of this shape [b,h,w,c] and an output of the shape [b,y,x,o].

    Measured with jax 0.12.0.1 on two cores of a Zen 3, float32: minima in milliseconds of interleaved rounds, while
    other programs ran, so compare inside a row only. `benchmarks/operations.py` times the layers of a network.

    Gradient of the kernel, 3x3: by oneDNN; by XLA; by XLA in strips that make 16 images of the batch; PyTorch 2.13.

    | batch, side, c, o | oneDNN | XLA | strips | PyTorch |
    |---|---|---|---|---|
    | 1, 129, 32, 32 | 10.4 | 23.8 | 5.6 | 15.8 |
    | 2, 128, 48, 24 | 11.1 | 16.7 | 7.5 | 12.0 |
    | 3, 50x70, 40, 56 | 10.5 | 12.0 | 7.0 | 19.6 |
    | 4, 128, 64, 32 | 73 | 51 | 33 | 90 |
    | 4, 64, 64, 64 | 24 | 22.7 | 11.5 | 22.6 |
    | 4, 32, 128, 128 | 12.3 | 14.9 | 9.1 | 14.4 |
    | 4, 16, 256, 256 | 12.5 | 12.9 | 9.4 | 12.5 |
    | 8, 64, 64, 64 | 32 | 31 | 33 | 40 |
    | 16, 96, 32, 32 | 189 | 53 | | 65 |
    | 4, 128, 32, 64, stride 2 | 30 | 58 | 30 | 52 |
    | 2, 65, 48, 72, stride 2 | 4.5 | 23.4 | 3.8 | 2.5 |

    A batch of 8 or more needs no strips. XLA multiplies the pixels of all images at one place at once, hence the gain
    from more and smaller images. Strips repeat the rows at their edges, and the left-hand side is also copied for each
    tap, so that it is the array with fewer channels. One product of matrices for each tap took 1 to 5 times as long,
    and a loop over the images 60 times: XLA runs a convolution in a loop on one core.

    Gradient of the input at stride 2, 3x3: dilated by the stride; by phases; PyTorch.

    | batch, side, c, o | dilated | phases | PyTorch |
    |---|---|---|---|
    | 4, 128, 32, 64 | 8.1 | 5.1 | 4.2 |
    | 4, 64, 64, 128 | 5.0 | 4.3 | 3.8 |
    | 16, 96, 32, 64 | 50 | 25 | 32 |
    | 4, 64, 128, 128 in 32 groups | 60 | 6.5 | 2.3 |

    The gradient of the kernel of grouped convolutions took 1940 ms automatically at 4, 32, 128, 128 in 32 groups, and
    4.7 as a grouped convolution by oneDNN (15 by XLA).
    """
    b, rows, narrower = shape[0], outputs[1], shape[3] > outputs[3]
    swapped = narrower and geometry.stride == geometry.groups == 1 and geometry.padding <= geometry.reach
    rows = shape[1] if swapped else rows
    strips = 1 if b >= 8 or geometry.groups > 1 else max(1, min(-(-16 // b), rows))
    return Forms(
        phases=geometry.stride > 1 and geometry.dilation == 1,
        strips=strips,
        swapped=swapped,
        away=geometry.groups == 1 and convolution_forms() == "onednn",
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d_strips(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolves f[b,h,w,c] with f[u,v,c/groups,o] -> f[b,y,x,o]."""
    return _convolve(x, kernel, geometry)


def _convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    _, stride, dilation, groups, padding = geometry
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_NHWC,
        feature_group_count=groups,
    )


def _backward(geometry: Geometry, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    kernel, dy = after_all(kernel, dy)
    forms = choose(x.shape, dy.shape, geometry)
    if forms.phases:
        dx = input_gradient_by_phase(kernel, dy, x.shape, geometry)
    else:
        (dx,) = jax.vjp(lambda x: _convolve(x, kernel, geometry), x)[1](dy)
    return dx, kernel_gradient_in_strips(x, dy, geometry, forms)


conv2d_strips.defvjp(lambda x, kernel, geometry: (_convolve(x, kernel, geometry), (x, kernel)), _backward)


def input_gradient_by_phase(kernel: jax.Array, dy: jax.Array, shape: tuple[int, ...], geometry: Geometry) -> jax.Array:
    """The gradient of the input of `shape` [b,h,w,c], dilation 1: f[u,v,c/groups,o], f[b,y,x,o] -> f[b,h,w,c].

    Row i of the padded input gets from the output row q - e the tap f + stride e, where i = stride q + f: for each
    phase f an ordinary convolution with every stride-th tap.
    """
    size, stride, _, groups, padding = geometry
    b, h, w, c = shape
    # Taps as [u,v,o/groups,c], where the channels of a group of x lie together.
    taps = kernel.reshape(size, size, c // groups, groups, -1).transpose(0, 1, 4, 3, 2)
    taps = taps.reshape(size, size, -1, c)
    tall, wide = -(-(h + padding) // stride), -(-(w + padding) // stride)
    rows = []
    for top in range(stride):
        phases = []
        for left in range(stride):
            part = taps[top::stride, left::stride][::-1, ::-1]
            if 0 in part.shape:  # a stride larger than the kernel leaves pixels out
                phases.append(jnp.zeros((b, tall, wide, c), dy.dtype))
                continue
            pads = [(part.shape[0] - 1, tall - dy.shape[1]), (part.shape[1] - 1, wide - dy.shape[2])]
            phases.append(
                lax.conv_general_dilated(dy, part, (1, 1), pads, dimension_numbers=_NHWC, feature_group_count=groups)
            )
        rows.append(jnp.stack(phases, 3))
    whole = jnp.stack(rows, 2).reshape(b, tall * stride, wide * stride, c)
    return whole[:, padding : padding + h, padding : padding + w]


def kernel_gradient_in_strips(x: jax.Array, dy: jax.Array, geometry: Geometry, forms: Forms) -> jax.Array:
    """Sums x[stride h + dilation u - padding] dy[h] over images and pixels -> f[u,v,c/groups,o].

    It is a convolution in which channels take the place of images and images that of channels; images of few rows,
    which overlap, make more of these "channels".
    """
    _, stride, dilation, groups, padding = geometry
    left, right, before = (dy, x, geometry.reach - padding) if forms.swapped else (x, dy, padding)
    (h, w), (m, n) = left.shape[1:3], right.shape[1:3]
    tall = -(-m // forms.strips)  # rows of `right` in a strip
    count = -(-m // tall)
    span = (tall - 1) * stride + 1 + geometry.reach  # rows of `left` that these meet
    below = (count - 1) * tall * stride + span - h - before
    beside = (n - 1) * stride + 1 + geometry.reach - w - before
    left = lax.pad(left, jnp.zeros((), left.dtype), [(0, 0, 0), (before, below, 0), (before, beside, 0), (0, 0, 0)])
    right = jnp.pad(right, ((0, 0), (0, count * tall - m), (0, 0), (0, 0)))
    left = _strips([left[:, i * tall * stride :][:, :span] for i in range(count)])
    right = right.reshape(-1, tall, *right.shape[2:])
    taps = _correlate(left, right, stride, dilation, groups, forms.away)
    return taps[::-1, ::-1].swapaxes(2, 3) if forms.swapped else taps


def _strips(parts: list[jax.Array]) -> jax.Array:
    """f[b,span,w,c] of each strip -> f[b*strips,span,w,c]; the strips of an image follow one another."""
    return jnp.stack(parts, 1).reshape(-1, *parts[0].shape[1:])


def _correlate(x: jax.Array, dy: jax.Array, stride: int, dilation: int, groups: int, away: bool) -> jax.Array:
    """Sums x[stride h + dilation u] dy[h], with nothing to pad: f[b,h,w,c], f[b,y,x,o] -> f[u,v,c/groups,o]."""
    axes = ("CHWN", "IHWO", "HWNC")
    if groups > 1:  # [c/groups,h,w,groups*b]: each group is a convolution of its own
        b, h, w, c = x.shape
        x = x.reshape(b, h, w, groups, c // groups).transpose(4, 1, 2, 3, 0).reshape(-1, h, w, groups * b)
        axes = ("NHWC", "IHWO", "HWNC")
    pads = [(0, 0), (0, 0)]
    if away:
        # XLA's rewriter to oneDNN takes no convolution with a negative padding. The barrier keeps XLA from merging the
        # added row with it.
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0))))
        pads[0] = (-1, 0)
    return lax.conv_general_dilated(
        x,
        dy,
        (dilation, dilation),
        pads,
        rhs_dilation=(stride, stride),
        dimension_numbers=axes,
        feature_group_count=groups,
    )
