"""Convolution, transposed convolution, and the exchange of channels and space, of arrays f[b,h,w,c]."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.barrier import after_all
from jaxseg.nn.ops.by_device import by_device, even_rows
from jaxseg.nn.ops.conv_stride1 import conv2d_stride1
from jaxseg.nn.ops.conv_strips import Geometry, conv2d_strips
from jaxseg.nn.ops.conv_taps import LARGEST_SHARE, conv2d_taps, live_share, outer_taps
from jaxseg.nn.ops.depthwise import depthwise_conv2d
from jaxseg.nn.ops.forms import convolution_forms
from jaxseg.nn.ops.halo import convolve_rows, is_divided
from jaxseg.nn.ops.sizes import is_known
from jaxseg.nn.ops.tracing import traced_once


def conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1, groups: int = 1, padding: int = 0
) -> jax.Array:
    """Convolves f[b,h,w,c] with f[u,v,c/groups,o], zero-padded by `padding` on every side -> f[b,y,x,o].

    As in all networks this is the correlation y_i = Σ_u x_(i+u) K_u, without mirroring the kernel. The gradient of K is
    a correlation again, that of x the convolution Σ_u g_(j-u) K_u.
    """
    reach = dilation * (kernel.shape[0] - 1) + 1
    y = _conv2d(even_rows(x, reach), kernel, stride, dilation, groups, padding)
    return even_rows(y, reach)


def _conv2d(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, groups: int, padding: int) -> jax.Array:
    geometry = Geometry(kernel.shape[0], stride, dilation, groups, padding)
    if convolution_forms() == "plain":
        return _plain(x, kernel, geometry) if groups == 1 else _plain_by_device(x, kernel, geometry)
    outer = outer_taps(x.shape, kernel.shape[0], stride, dilation, padding)
    if outer:
        kernel, padding = kernel[outer:-outer, outer:-outer], padding - outer * dilation
    if kernel.shape[:2] == (1, 1) and groups == 1 and padding == 0:
        # One product of two matrices: its kernel gradient takes half the time of that of a product over b, h and w.
        ends = x.shape[1:3]
        if not is_known(*ends):  # written like this, the size is one expression with that of a 3x3 convolution
            ends = tuple((side - 1) // stride * stride + 1 for side in ends)
        x = x[:, : ends[0] : stride, : ends[1] : stride]
        return _pointwise(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:3], -1)
    if groups == x.shape[-1] == kernel.shape[-1] > 1:
        return depthwise_conv2d(x, kernel, stride, dilation, padding)
    if stride == groups == 1 and live_share(x.shape, kernel.shape[0], dilation, padding) <= LARGEST_SHARE:
        return conv2d_taps(x, kernel, dilation, padding)
    geometry = Geometry(kernel.shape[0], stride, dilation, groups, padding)
    if groups > 1:
        return by_device(functools.partial(_convolve, geometry=geometry), x, kernel, axes=(0, None))
    return _convolve(x, kernel, geometry)


@jax.custom_vjp
def _pointwise(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """f[n,c], f[c,o] -> f[n,o]."""
    return x @ matrix


@traced_once()
def _pointwise_backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, matrix = saved
    matrix, dy = after_all(matrix, dy)
    return jax.vjp(jnp.matmul, x, matrix)[1](dy)


_pointwise.defvjp(lambda x, matrix: (x @ matrix, (x, matrix)), _pointwise_backward)


def _convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    _, stride, dilation, groups, padding = geometry
    if convolution_forms() != "usual":
        return conv2d_strips(x, kernel, geometry)
    if stride == groups == 1:
        return conv2d_stride1(x, kernel, dilation, padding)
    return _plain(x, kernel, geometry)


def _plain_by_device(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As `_plain`, for a grouped convolution, which XLA does not divide over devices by itself."""
    size, stride, dilation, _, padding = geometry
    if is_divided(x, size, stride, dilation, padding):
        convolve = functools.partial(_plain, geometry=geometry, rows=0)
        return convolve_rows(convolve, x, kernel, stride=stride, dilation=dilation, padding=padding)
    return by_device(functools.partial(_plain, geometry=geometry), x, kernel, axes=(0, None), rows=True)


def _plain(x: jax.Array, kernel: jax.Array, geometry: Geometry, rows: int | None = None) -> jax.Array:
    """One convolution; `rows`: its padding at top and bottom, if that is another."""
    _, stride, dilation, groups, padding = geometry
    rows = padding if rows is None else rows
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(rows, rows), (padding, padding)],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def conv2d_rectangular(x: jax.Array, kernel: jax.Array, *, dilation: int = 1) -> jax.Array:
    """Convolves f[b,h,w,c] with f[u,v,c,o] of odd sides u and v, zero-padded to keep the size -> f[b,h,w,o]."""
    sides = kernel.shape[:2]
    reach = [dilation * (side - 1) // 2 for side in sides]
    margins = [(each, each) for each in reach]
    rate = [dilation if side > 1 else 1 for side in sides]
    x = even_rows(x, 2 * reach[0] + 1)
    return lax.conv_general_dilated(
        x, kernel, (1, 1), margins, rhs_dilation=rate, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv_transpose2d(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Transposed convolution of f[b,h,w,c] with f[k,k,c,o] -> f[b,h*stride,w*stride,o].

    y[stride i - p + u] += x[i] kernel[u] with p = ceil((k - stride) / 2), as in `jaxseg.nn.ConvTranspose`.
    """
    # The stride^2 output pixels of an input pixel are features of one ordinary convolution, whose kernel holds the taps
    # t = stride e + u - low for output phase u and shift e. XLA's gradients of the dilated form are slow.
    k, c, o = kernel.shape[0], *kernel.shape[2:]
    x = even_rows(x, -(-k // stride) + 1)
    p = max(0, -(-(k - stride) // 2))
    before = -(-p // stride)
    low = stride * before - p
    side = -(-(low + k) // stride)
    high = stride * side - low - k
    taps = jnp.pad(kernel, ((low, high), (low, high), (0, 0), (0, 0))).reshape(side, stride, side, stride, c, o)
    taps = taps[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5).reshape(side, side, c, stride * stride * o)
    if side == 1:
        return depth_to_space(conv2d(x, taps), stride)
    if convolution_forms() not in ("usual", "plain"):
        pads = (side - 1 - before, before)
        return depth_to_space(conv2d(jnp.pad(x, ((0, 0), pads, pads, (0, 0))), taps), stride)
    y = lax.conv_general_dilated(
        x, taps, (1, 1), [(side - 1 - before, before)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return depth_to_space(y, stride)


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
    """Unfolds channels into space: f[b,h,w,r*r*c] -> f[b,h*r,w*r,c], r = factor.

    Channel (u r + v) c + i becomes channel i of pixel (u, v) of its block. (torch's PixelShuffle orders its channels
    as i r r + u r + v.)
    """
    c = x.shape[-1]
    if c % factor**2:
        raise ValueError(f"depth_to_space by {factor} needs a multiple of {factor**2} channels, got {c}.")
    return _depth_to_space(x, factor)


def _unfold(x: jax.Array, factor: int) -> jax.Array:
    b, h, w, c = x.shape
    o = c // factor**2
    tiles = x.reshape(b, h, w, factor, factor, o).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(b, h * factor, w * factor, o)


def space_to_depth(x: jax.Array, factor: int) -> jax.Array:
    """The inverse of `depth_to_space`: f[b,h,w,c] -> f[b,h/r,w/r,r*r*c]; h and w must be multiples of r = factor."""
    b, h, w, c = x.shape
    if h % factor or w % factor:
        raise ValueError(f"space_to_depth by {factor} needs multiples of {factor} pixels, got {h}x{w}.")
    tiles = x.reshape(b, h // factor, factor, w // factor, factor, c).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(b, h // factor, w // factor, factor * factor * c)


# Equal to the automatic gradient, but in an order of axes that the products after it can read without a copy.
_depth_to_space = jax.custom_vjp(_unfold, nondiff_argnums=(1,))
_depth_to_space.defvjp(
    lambda x, factor: (_unfold(x, factor), None), lambda factor, _, dy: (space_to_depth(dy, factor),)
)
