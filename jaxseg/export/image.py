"""What happens to a picture before the network and to its logits after it, as array functions of any size.

Sizes may be those of `jax.export.symbolic_shape`, which stand for any number.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax

from jaxseg.data import transforms
from jaxseg.nn.ops.sizes import Side

_BITS = 22  # Pillow's weights of 8-bit images are whole numbers of 2^-22


def resize_image(image: jax.Array, size: tuple[Side, ...]) -> jax.Array:
    """Resizes u8[b,h,w,c] to u8[b,*size,c], bit for bit as `jaxseg.data.transforms.resize_image` does with Pillow.

    A value is the mean of the pixels under a triangle, which is as wide as two pixels of the coarser of the two images.
    Weights and sums are whole numbers, and the first of the two passes rounds to 8 bits too: their order is that of
    the installed version of Pillow. The product of a side before and after must be below 2^30.
    """

    def columns_first(image: jax.Array) -> jax.Array:
        return _resize_axis(_resize_axis(image, 2, size[1]), 1, size[0])

    def rows_first(image: jax.Array) -> jax.Array:
        return _resize_axis(_resize_axis(image, 1, size[0]), 2, size[1])

    if not rows_may_come_first():
        return columns_first(image)
    fewer_rows, fewer_columns = (
        jnp.asarray(side, jnp.int32) - out for side, out in zip(image.shape[1:3], size, strict=True)
    )
    return lax.cond((fewer_rows > 0) & (fewer_rows > 2 * fewer_columns), rows_first, columns_first, image)


def resize_floats(image: jax.Array, size: tuple[Side, ...]) -> jax.Array:
    """Resizes f32[b,h,w,c] to f32[b,*size,c] with the weights of `resize_image`, up to the rounding of float32."""
    for axis in (2, 1):
        index, weights = _taps(image.shape[axis], size[axis - 1])
        pixels = jnp.take(image, index, axis=axis, mode="clip")  # [..., out, taps, ...]
        shape = [1] * pixels.ndim
        shape[axis : axis + 2] = index.shape
        image = (pixels * (weights.astype(jnp.float32) / (1 << _BITS)).reshape(shape)).sum(axis + 1)
    return image


@functools.cache
def rows_may_come_first() -> bool:
    """Returns whether Pillow resizes rows first where the height loses over twice as many pixels as the width.

    Pillow 13 does, earlier versions do not.
    """
    image = np.random.default_rng(0).integers(0, 256, (64, 9, 1), np.uint8)
    in_two_steps = transforms.resize_image(transforms.resize_image(image, (16, 9)), (16, 8))
    return bool(np.array_equal(transforms.resize_image(image, (16, 8)), in_two_steps))


def _resize_axis(image: jax.Array, axis: int, out: int) -> jax.Array:
    index, weights = _taps(image.shape[axis], out)
    pixels = jnp.take(image, index, axis=axis, mode="clip").astype(jnp.int32)  # [..., out, taps, ...]
    shape = [1] * pixels.ndim
    shape[axis : axis + 2] = index.shape
    total = (pixels * weights.reshape(shape)).sum(axis + 1)
    return jnp.clip((total + (1 << (_BITS - 1))) // (1 << _BITS), 0, 255).astype(jnp.uint8)


def _taps(length: Side, out: int) -> tuple[jax.Array, jax.Array]:
    """Returns which pixels of `length` each of `out` outputs reads, i32[out,taps], and 2^22 times their weights.

    Pixel j has the distance |(2j + 1) out - (2i + 1) length| to output i, in units of 1 / (2 out) pixels, and the
    triangle has the half width 2 max(length, out) in these units, so that all weights are whole numbers before they
    are divided by their sum.
    """
    size = jnp.asarray(length, jnp.int32)
    width = 2 * jnp.maximum(size, out)
    i = jnp.arange(out, dtype=jnp.int32)[:, None]
    centre = (2 * i + 1) * size
    first = jnp.floor_divide(centre - width + out, 2 * out)
    j = first + jnp.arange(2 * -(-length // out) + 1, dtype=jnp.int32)[None]
    heights = jnp.maximum(width - jnp.abs((2 * j + 1) * out - centre), 0)
    heights = jnp.where((j >= 0) & (j < size), heights, 0)
    total = heights.sum(1, keepdims=True)
    # The nearest whole number to 2^22 heights / total: float32 finds it up to 1, and the remainder corrects it. The
    # two products overflow 32 bits alike, and their difference does not.
    weights = jnp.round(heights.astype(jnp.float32) / total.astype(jnp.float32) * (1 << _BITS)).astype(jnp.int32)
    rest = heights * (1 << _BITS) - weights * total
    more = (rest >= (total + 1) // 2).astype(jnp.int32) - (-rest > total // 2).astype(jnp.int32)
    return jnp.clip(j, 0, size - 1), weights + more


def extend(image: jax.Array, multiple: int, least: tuple[int, int] = (1, 1)) -> jax.Array:
    """Extends [b,h,w,c] at the bottom and right by repeating its last row and column.

    Its height and width become multiples of `multiple`, and at least those of `least`, which are multiples too.
    """
    for axis, smallest in zip((1, 2), least):
        if multiple == 1 and smallest == 1:
            continue
        side = image.shape[axis]
        whole = core.max_dim(-(-side // multiple) * multiple, smallest)
        index = jnp.minimum(jnp.arange(whole, dtype=jnp.int32), jnp.asarray(side, jnp.int32) - 1)
        image = jnp.take(image, index, axis=axis, mode="clip")
    return image


def resize_logits(logits: jax.Array, size: tuple[Side, ...]) -> jax.Array:
    """Resizes f32[b,y,x,k] bilinearly to f32[b,*size,k], with the arithmetic of `jaxseg.nn.resize_to_sizes`."""
    for axis in (1, 2):
        length, out = logits.shape[axis], size[axis - 1]
        step = length / jnp.asarray(out, jnp.float32)
        position = jnp.clip((jnp.arange(out, dtype=jnp.float32) + 0.5) * step - 0.5, 0.0, length - 1.0)
        low = jnp.floor(position)
        share = (position - low).reshape((1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1))
        low = low.astype(jnp.int32)
        first = jnp.take(logits, low, axis=axis, mode="clip")
        second = jnp.take(logits, jnp.minimum(low + 1, length - 1), axis=axis, mode="clip")
        logits = first + share * (second - first)
    return logits
