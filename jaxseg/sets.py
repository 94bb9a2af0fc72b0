"""Labels that are sets: a pixel may have several classes at once, or none (multi-label segmentation).

The label is a number whose bit c says whether the pixel has class c, so that flips, crops and warps move it as they
move every label; of an unknown pixel it is `types.ignore_label(k, multilabel=True)`, or the largest number of a
wider type. Bit k + c says that class c alone is unknown at the pixel, of up to 15 classes. The k classes are k
questions, is class c here or not, each with a sigmoid of its own: a loss of the whole is that of the k binary problems,
summed over them before the division. The losses that have such a form are those with `Definition.multilabel`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import IGNORE, IGNORE_16, Array, ignore_in

_WRONG = 2  # the label of a binary problem that is outside its classes, which every loss answers with NaN


MOST_PARTLY = 15
"""The largest number of classes of which some may be unknown at a pixel: a class then has two bits of the label."""


def is_known(labels: Array, classes: int) -> jax.Array:
    """bool[...], whether a label is a set of the classes; i[...] -> bool[...]. Others are unknown in part, or wrong."""
    labels = jnp.asarray(labels, jnp.int32)
    return (labels >= 0) & (labels >> classes == 0)


def members(labels: Array, classes: int, partly: bool = True) -> jax.Array:
    """i32[..., classes], 1 where a pixel has the class, 0 where not, IGNORE where this is unknown; i[...] of sets.

    A label outside the sets is 2, which makes every loss NaN; so is one that says of a class both that it is there and
    that this is unknown, and without `partly` one that says of single classes that they are unknown.
    """
    labels = jnp.asarray(labels, jnp.int32)
    places = jnp.arange(classes).reshape((1,) * labels.ndim + (classes,))
    bits = labels[..., None] >> places & 1
    if partly and classes <= MOST_PARTLY:
        unknown = labels >> classes
        sets = (labels >= 0) & (unknown >> classes == 0) & (labels & unknown & (1 << classes) - 1 == 0)
        bits = jnp.where(unknown[..., None] >> places & 1 == 1, IGNORE, bits)
    else:
        sets = is_known(labels, classes)
    ignored = functools.reduce(jnp.logical_or, (labels == value for value in _ignored(classes)))
    return jnp.where(sets[..., None], bits, jnp.where(ignored, IGNORE, _WRONG)[..., None])


def _ignored(classes: int) -> tuple[int, ...]:
    """Returns the labels of an unknown pixel in i32: the largest numbers of the types that hold sets of the classes."""
    return tuple(value for value in (IGNORE, IGNORE_16, -1) if value == -1 or value >> classes)


def pixel_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns i64[k+2], the pixels of each class of a map u8|u16|u32[h,w] of sets, then of no class, and unknown in
    every class."""
    known = labels[labels != ignore_in(labels)]
    of_classes = [np.count_nonzero(known & labels.dtype.type(1 << c)) for c in range(classes)]
    return np.array([*of_classes, np.count_nonzero(known == 0), labels.size - known.size], np.int64)


def known_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns i64[k+2], among how many pixels of a map u8|u16|u32[h,w] of sets `pixel_counts` counts each number.

    Of a class they are the pixels at which it is known, of no class those at which all are, of the unknown all pixels.
    """
    known = labels[labels != ignore_in(labels)]
    unknown = known >> labels.dtype.type(classes)
    of_classes = [np.count_nonzero(unknown & labels.dtype.type(1 << c) == 0) for c in range(classes)]
    return np.array([*of_classes, np.count_nonzero(unknown == 0), labels.size], np.int64)
