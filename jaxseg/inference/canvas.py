"""Views of images, and their logits back at the sizes of the images, each in the top left of a canvas."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.transforms import Size
from jaxseg.inference.views import Flip
from jaxseg.nn import resize_to_sizes

_native = jax.jit(resize_to_sizes, static_argnums=2)


def flipped(images: np.ndarray, flip: Flip) -> np.ndarray:
    """Mirrors [b,y,x,c] upside down and left to right, as `flip` says."""
    return np.ascontiguousarray(images[:, :: -1 if flip[0] else 1, :: -1 if flip[1] else 1])


def at_sizes(logits: jax.Array, flip: Flip, inside: Sequence[Size], sizes: Sequence[Size], canvas: Size) -> jax.Array:
    """Returns the logits [b,y,x,k] of a view at the sizes of the images, each in the top left of a canvas.

    Args:
        logits: of a view.
        flip: of the view; it is taken back.
        inside: (y, x) that each image fills in the view.
        sizes: (h, w) of the images.
        canvas: (y, x) of the result.
    """
    if any(flip):
        logits = _upright(logits, flip)
    if list(inside) == list(sizes):
        return logits if logits.shape[1:3] == canvas else onto(logits, canvas)
    if all(size == inside[0] for size in inside):
        if logits.shape[1:3] != inside[0]:
            logits = onto(logits, inside[0])
        return _native(logits, np.array(sizes, np.int32), canvas)
    parts = [onto(each[None], size) for each, size in zip(logits, inside)]
    resized = [_native(part, np.array([size], np.int32), canvas) for part, size in zip(parts, sizes)]
    return jnp.concatenate(resized)


@functools.partial(jax.jit, static_argnums=1)
def _upright(logits: jax.Array, flip: Flip) -> jax.Array:
    """Takes the flip of [b,y,x,k] back; what extends an image lies at its bottom and right again."""
    return logits[:, :: -1 if flip[0] else 1, :: -1 if flip[1] else 1]


@functools.partial(jax.jit, static_argnums=1)
def onto(logits: jax.Array, canvas: Size) -> jax.Array:
    """Cuts [b,y,x,k] off, or extends it by zeros, at the bottom and right."""
    logits = logits[:, : canvas[0], : canvas[1]]
    rest = [(0, length - have) for length, have in zip(canvas, logits.shape[1:3])]
    return jnp.pad(logits, ((0, 0), *rest, (0, 0)))
