"""Labels that are sets: a pixel may have several classes at once, or none (multi-label segmentation).

The label is a number whose bit c says whether the pixel has class c, so that flips, crops and warps move it as they
move every label; of an unknown pixel it is `types.ignore_label(k, multilabel=True)`. The k classes are k questions, is
class c here or not, each with a sigmoid of its own: a loss of the whole is that of the k binary problems, summed over
them before the division. The losses that have such a form are those with `Definition.multilabel`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import IGNORE, Array, ignore_in, ignore_label

_WRONG = 2  # the label of a binary problem that is outside its classes, which every loss answers with NaN


def is_known(labels: Array, classes: int) -> jax.Array:
    """bool[...], whether a label is a set of the classes; i[...] -> bool[...]. Others are unknown, or wrong."""
    labels = jnp.asarray(labels, jnp.int32)
    return (labels >= 0) & (labels >> classes == 0)


def members(labels: Array, classes: int) -> jax.Array:
    """i32[..., classes], 1 where a pixel has the class, 0 where not, IGNORE where this is unknown; i[...] of sets.

    A label outside the sets is 2, which makes every loss NaN.
    """
    labels = jnp.asarray(labels, jnp.int32)
    bits = labels[..., None] >> jnp.arange(classes).reshape((1,) * labels.ndim + (classes,)) & 1
    others = jnp.where(labels == ignore_label(classes, multilabel=True), IGNORE, _WRONG)
    return jnp.where(is_known(labels, classes)[..., None], bits, others[..., None])


def pixel_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns i64[k+2], the pixels of each class of a map u8|u16|u32[h,w] of sets, then of no class, and unknown."""
    known = labels[labels != ignore_in(labels)]
    of_classes = [np.count_nonzero(known & labels.dtype.type(1 << c)) for c in range(classes)]
    return np.array([*of_classes, np.count_nonzero(known == 0), labels.size - known.size], np.int64)
