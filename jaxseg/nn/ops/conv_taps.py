"""Atrous convolution without the products with padding.

At an atrous rate that is large beside the image, most of what a padded convolution multiplies is padding: at rate 18
the outer taps of a 3x3 kernel reach past every side of an 8x8 image, and the padded image has 30 times its pixels. A
tap that meets only padding is left out on every device (`outer_taps`). On CPUs each other tap is one product of
matrices over the pixels that it has (`conv2d_taps`). The same holds at rate 1 for maps of a few pixels, which deep
encoders make of small images.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.barrier import after_all
from jaxseg.nn.ops.conv_stride1 import conv2d_stride1
from jaxseg.nn.ops.sizes import is_known
from jaxseg.nn.ops.tracing import bound, traced_once

# Above this share of products that are not with padding, a convolution takes the forms of other convolutions. Times on
# two cores, float32, 3x3, forward and both gradients: minima in milliseconds of 12 interleaved rounds while other
# programs ran, so compare inside a row only. PyTorch is 2.13.
#
# | batch, side, c, o, rate | share | by taps, jax 0.10 / 0.12 | otherwise, 0.10 / 0.12 | PyTorch |
# | 4, 8, 2048, 256, 18 | .11 | 52 / 48 | 454 / 472 | 716 |
# | 4, 8, 2048, 256, 6 | .25 | 189 / 188 | 487 / 394 | 848 |
# | 2, 32, 512, 256, 18 | .39 | 347 / 293 | 724 / 854 | 699 |
# | 4, 16, 256, 256, 6 | .56 | 100 / 73 | 177 / 147 | 297 |
# | 2, 65, 64, 64, 18 | .66 | 117 / 47 | 113 / 133 | 267 |
# | 4, 8, 512, 512, 2 | .69 | 157 / 121 | 220 / 196 | 434 |
# | 2, 32, 512, 256, 6 | .77 | 620 / 606 | 616 / 632 | 812 |
# | 4, 32, 256, 256, 2 | .92 | - / 944 | - / 589 | 1005 |
#
# At rate 1, both gradients with jax 0.10, minima of 25 rounds: 12 by taps and 746 otherwise at 8 maps of 2x2x512
# (share .44), 33 and 40 at 8 of 4x4x512 (.69).
#
# At a share of .77 the taps took 52 MB of workspace in place of 20.
LARGEST_SHARE = 0.7


class Span(NamedTuple):
    """What one tap does along one axis: outputs `out` ... `out + length - 1` read the inputs from `into` on."""

    out: int
    into: int
    length: int


def spans(size: int, taps: int, dilation: int, padding: int) -> list[Span]:
    """Returns the span of each tap at stride 1, for `size` inputs; its length is 0 where the tap meets only padding."""
    outputs = size + 2 * padding - dilation * (taps - 1)
    found = []
    for tap in range(taps):
        shift = dilation * tap - padding
        out = max(0, -shift)
        found.append(Span(out, out + shift, max(0, min(outputs, size - shift) - out)))
    return found


def live_share(shape: tuple[int, ...], taps: int, dilation: int, padding: int) -> float:
    """Returns the share of products that are not with padding, at stride 1 of f[b,h,w,c]; 1 for symbolic sizes."""
    if not is_known(*shape[1:3]):
        return 1.0
    share = 1.0
    for size in shape[1:3]:
        found = spans(size, taps, dilation, padding)
        share *= sum(span.length for span in found) / (taps * (size + 2 * padding - dilation * (taps - 1)))
    return share


def outer_taps(shape: tuple[int, ...], taps: int, stride: int, dilation: int, padding: int) -> int:
    """Returns how many taps at each end of both axes of the kernel meet only padding in f[b,h,w,c]; 0 if unknown."""
    if not is_known(*shape[1:3]):
        return 0
    count = taps // 2
    for size in shape[1:3]:
        outputs = (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        before = [tap for tap in range(taps) if (outputs - 1) * stride + dilation * tap < padding]
        behind = [tap for tap in range(taps) if dilation * tap - padding >= size]
        count = min(count, len(before), len(behind))
    return min(count, padding // dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d_taps(x: jax.Array, kernel: jax.Array, dilation: int, padding: int) -> jax.Array:
    """Convolves f[b,h,w,c] with f[u,v,c,o] at stride 1, zero-padded by `padding` on every side -> f[b,y,x,o]."""
    return lax.platform_dependent(
        x,
        kernel,
        cpu=bound(_by_taps, dilation=dilation, padding=padding),
        default=bound(_otherwise, dilation=dilation, padding=padding),
    )


def _otherwise(x: jax.Array, kernel: jax.Array, dilation: int, padding: int) -> jax.Array:
    return conv2d_stride1(x, kernel, dilation, padding)


def _by_taps(x: jax.Array, kernel: jax.Array, dilation: int, padding: int) -> jax.Array:
    """Summed in float32."""
    b, h, w, _ = x.shape
    more = 2 * padding - dilation * (len(kernel) - 1)
    y = jnp.zeros((b, h + more, w + more, kernel.shape[-1]), jnp.float32)
    for (u, v), (rows, columns) in live_taps(x.shape, kernel.shape, dilation, padding).items():
        pixels = inputs_of(x, rows, columns)
        y = add_at(y, _products(pixels, kernel[u, v]), rows.out, columns.out)
    return y.astype(x.dtype)


@traced_once("dilation", "padding")
def _backward(
    dilation: int, padding: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    kernel, dy = after_all(kernel, dy)
    cpu = bound(_gradients_by_taps, dilation=dilation, padding=padding)
    default = bound(_gradients_otherwise, dilation=dilation, padding=padding)
    return lax.platform_dependent(x, kernel, dy, cpu=cpu, default=default)


def _gradients_otherwise(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, dilation: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(lambda x, kernel: conv2d_stride1(x, kernel, dilation, padding), x, kernel)[1](dy)


def _gradients_by_taps(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, dilation: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    dx = jnp.zeros(x.shape, jnp.float32)
    taps = [[jnp.zeros(kernel.shape[2:], jnp.float32)] * kernel.shape[1] for _ in range(kernel.shape[0])]
    for (u, v), (rows, columns) in live_taps(x.shape, kernel.shape, dilation, padding).items():
        part = outputs_of(dy, rows, columns)
        dx = add_at(dx, _products(part, kernel[u, v].T), rows.into, columns.into)
        pixels = inputs_of(x, rows, columns).reshape(-1, x.shape[-1])
        taps[u][v] = lax.dot_general(
            pixels, part.reshape(-1, dy.shape[-1]), (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
    dk = jnp.stack([jnp.stack(row) for row in taps])
    return dx.astype(x.dtype), dk.astype(kernel.dtype)


def _products(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """f[b,h,w,c], f[c,o] -> f32[b,h,w,o], as one product of two matrices."""
    pixels = x.reshape(-1, x.shape[-1])
    y = lax.dot_general(pixels, matrix, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return y.reshape(*x.shape[:3], -1)


conv2d_taps.defvjp(
    lambda x, kernel, dilation, padding: (conv2d_taps(x, kernel, dilation, padding), (x, kernel)), _backward
)


def live_taps(
    shape: tuple[int, ...], kernel: tuple[int, ...], dilation: int, padding: int
) -> dict[tuple[int, int], tuple[Span, Span]]:
    """Returns {(u, v): its spans of rows and columns} of the taps of a kernel that meet pixels of f[b,h,w,c]."""
    rows, columns = (spans(size, taps, dilation, padding) for size, taps in zip(shape[1:3], kernel))
    return {
        (u, v): (row, column)
        for u, row in enumerate(rows)
        for v, column in enumerate(columns)
        if row.length and column.length
    }


def inputs_of(x: jax.Array, rows: Span, columns: Span) -> jax.Array:
    """The pixels of the input that a tap reads."""
    return _cut(x, rows.into, columns.into, rows.length, columns.length)


def outputs_of(y: jax.Array, rows: Span, columns: Span) -> jax.Array:
    """The pixels of the output that a tap adds to."""
    return _cut(y, rows.out, columns.out, rows.length, columns.length)


def _cut(x: jax.Array, top: int, left: int, h: int, w: int) -> jax.Array:
    # `lax` in place of an index, and of `jnp.pad` below: a kernel of 3x3 has dozens of them, and they trace quickly.
    return lax.slice(x, (0, top, left, 0), (x.shape[0], top + h, left + w, x.shape[3]))


def add_at(total: jax.Array, part: jax.Array, top: int, left: int) -> jax.Array:
    """Adds `part` to the pixels of `total` from (top, left) on."""
    (h, w), (m, n) = total.shape[1:3], part.shape[1:3]
    pads = ((0, 0, 0), (top, h - top - m, 0), (left, w - left - n, 0), (0, 0, 0))
    return total + lax.pad(part, jnp.zeros((), part.dtype), pads)
