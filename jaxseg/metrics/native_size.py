"""Conversions between the native size of an image, at which it is scored, and the size that the network sees."""

import jax
import jax.numpy as jnp

from jaxseg.nn import resize_to_sizes


def to_native_sizes(logits: jax.Array, sizes: jax.Array, canvas: tuple[int, int]) -> jax.Array:
    """Resizes each image's logits to its native size, in the top left of a canvas that holds the largest image."""
    if logits.shape[1:3] != tuple(canvas):
        return resize_to_sizes(logits, sizes, tuple(canvas))
    same = jnp.all(sizes == jnp.array(canvas)[None])
    return jax.lax.cond(same, lambda: logits, lambda: resize_to_sizes(logits, sizes, tuple(canvas)))


def to_image_size(labels: jax.Array, sizes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes labels i32[b,y,x] of native sizes, in the top left of their canvas, to the image's grid (nearest)."""

    def one(label: jax.Array, native: jax.Array) -> jax.Array:
        for axis in (0, 1):
            middle = (jnp.arange(size[axis], dtype=jnp.float32) + 0.5) / size[axis]
            place = jnp.floor(middle * native[axis].astype(jnp.float32)).astype(jnp.int32)
            label = jnp.take(label, place, axis=axis, mode="clip")
        return label

    return jax.vmap(one)(labels, sizes)


def covered_mask(inside: jax.Array, sizes: jax.Array, size: tuple[int, int], canvas: tuple[int, int]) -> jax.Array:
    """Returns bool[b,y,x], True for the pixels of labels on a canvas that an image covers; the others pad it.

    Args:
        inside: i32[b,2], the part of each network input that the image covers; (0, 0) in a padding example.
        sizes: i32[b,2], the native size to which the whole input is resized.
        size: (height, width) of the input.
        canvas: (y, x).
    """
    return inside_mask(inside * sizes // jnp.array(size, jnp.int32)[None], canvas)


def inside_mask(sizes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Sizes i32[b,2] -> bool[b,y,x]: True for the pixels in the top left that belong to each image."""
    row, column = (jnp.arange(n).reshape(1, n) < sizes[:, axis : axis + 1] for axis, n in enumerate(size))
    return row[:, :, None] & column[:, None, :]
