"""Labels that say which class a pixel may have: 254 - c for "class c or the background" (class 0).

Inside a box of class c some pixels are of class c and the others of the background; an image with the tags c and d
has some pixels of each. Neither says which. A label map holds this as labels above the classes, so that flips, crops
and warps move it as they move every label. The term `size_constraint` reads it; for every other term, and for the
confusion matrix, such a pixel is IGNORE.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import ArgumentError, counted
from jaxseg.types import IGNORE, Array

MOST_CLASSES = 127
"""The number of classes up to which each has a label 254 - c of its own."""


def possible_label(index: int) -> int:
    """Returns the label of a pixel that may be of the class `index`, or of the background."""
    return IGNORE - 1 - index


def require_room(classes: int) -> None:
    """Raises ArgumentError if so many classes leave no labels for what a pixel may be."""
    if classes > MOST_CLASSES:
        raise ArgumentError(
            f"size_constraint reads labels of at most {MOST_CLASSES} classes, and there are "
            f"{counted(classes, 'class')}."
        )


def may_be(labels: Array, classes: int) -> jax.Array:
    """bool[..., classes], whether a pixel has the label 254 - c, for each class c; i[...] -> bool[..., classes]."""
    codes = possible_label(0) - jnp.arange(classes).reshape((1,) * labels.ndim + (classes,))
    return jnp.asarray(labels, jnp.int32)[..., None] == codes


def known(labels: Array, classes: int) -> jax.Array:
    """Returns the labels i32[...] with IGNORE for every pixel that has a label 254 - c, c below `classes`."""
    labels = jnp.asarray(labels, jnp.int32)
    return jnp.where(_is_possible(labels, classes), IGNORE, labels)


def known_array(labels: np.ndarray, classes: int) -> np.ndarray:
    """As `known`, for a NumPy array u8[h,w] on the host."""
    return np.where(_is_possible(labels, classes), IGNORE, labels).astype(labels.dtype)


def _is_possible(labels, classes: int):
    if classes > IGNORE:  # whose labels leave no room; see `require_room`
        return labels < 0
    return (labels < IGNORE) & (labels >= max(IGNORE - classes, classes))
