"""Array aliases and constants that all other modules share.

Shapes are written with fixed letters: b batch, h height, w width, c channels, k classes, t tokens, n heads, d head
width.
`f32[b,h,w,c]` reads "float32 of shape (b, h, w, c)".
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypedDict

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray
Key: TypeAlias = jax.Array
PyTree: TypeAlias = Any
# Builds a norm layer: `norm(name="norm1")(x, train=train)`. See `jaxseg.nn.make_norm`.
NormFactory: TypeAlias = Callable[..., Any]
Activation: TypeAlias = Callable[[jax.Array], jax.Array]
# Draws a parameter: `init(key, shape, dtype)`. See `jax.nn.initializers`.
Initializer: TypeAlias = Callable[..., jax.Array]

IGNORE = 255
"""The label of a pixel that counts in no loss and no metric, of at most 255 classes; see `ignore_label`."""

IGNORE_16 = 65535
"""The same of more than 255 classes, whose labels have 16 bits; so many classes are the most."""


MOST_IN_SETS = 31
"""The largest number of classes of which a pixel may have several at once: its label is a set of them, a number whose
bit c says that it has class c."""


def ignore_label(classes: int, multilabel: bool = False) -> int:
    """Returns the label of a pixel that counts in no loss and no metric: 255, or 65535 of more than 255 classes.

    With `multilabel` labels are sets: 255 of up to 7 classes, 65535 of up to 15, -1 of more (in i32, as on the device;
    `ignore_in` says what it is in a label map).
    """
    if multilabel:
        return -1 if classes > 15 else IGNORE_16 if classes > 7 else IGNORE
    return IGNORE if classes <= IGNORE else IGNORE_16


def label_type(
    classes: int, multilabel: bool = False, partly: bool = False
) -> type[np.uint8] | type[np.uint16] | type[np.uint32]:
    """Returns the type of label maps: bytes, or 16 bits of more than 255 classes.

    With `multilabel` labels are sets: bytes of up to 7 classes, 16 bits of up to 15, else 32 bits; with `partly` each
    class has two bits (`jaxseg.sets`): bytes of up to 3 classes, 16 bits of up to 7, 32 bits of up to 15.
    """
    if multilabel:
        bits = 2 * classes if partly else classes
        return np.uint32 if bits > 15 else np.uint16 if bits > 7 else np.uint8
    return np.uint8 if classes <= IGNORE else np.uint16


def of_map(labels: jax.Array, given: Array, narrow: type[np.unsignedinteger]) -> jax.Array:
    """i32[...] -> labels for the host, of the type `narrow`, or of a wider one without a sign in which they came."""
    kind = np.dtype(given.dtype)
    return labels.astype(kind if kind.kind == "u" and kind.itemsize > np.dtype(narrow).itemsize else narrow)


def ignore_in(label: np.ndarray) -> int:
    """Returns the ignored label of a label map of `label_type`, by its type, of which it is the largest number; any
    type but 16 and 32 bits without a sign is read as bytes are."""
    if label.dtype == np.uint32:
        return 2**32 - 1
    return IGNORE_16 if label.dtype == np.uint16 else IGNORE


DISCRIMINATOR = "discriminator"
"""The child of the parameters that holds a discriminator's, beside those of the segmenter."""

LESSON = "lesson"
"""The entry beside the outputs of a network that holds a teacher's answer, for `consistency.ConsistencyLoss`, or the
second labels of mixed images, for `mixing.MixedLoss`."""

ENCODER = "encoder"
"""The child of the parameters that holds the encoder's."""

LORA = "lora"
"""The child of the parameters that holds low-rank adapters of the kernels, beside the network's own."""

DISTILLATION = "distillation"
"""The child of the parameters that maps features of a student to those of its teacher, beside the student's own."""


class Batch(TypedDict, total=False):
    """What a data pipeline gives and a step takes.

    image: u8[b,h,w,c] or u16[b,h,w,c] as read from the file, or f32[b,h,w,c] in [0, 1].
    label: u8[b,y,x], class indices or IGNORE, or u16[b,y,x] of more than 255 classes, see `ignore_label`; or sets of
        classes (`label_type` with `multilabel`), see `jaxseg.sets`. In training
        y, x are h, w. In evaluation the label keeps its native size, padded with IGNORE at the bottom and right up to
        the common size y, x.
    size: i32[b,2], evaluation only: the native (height, width) of each label; logits are resized to it for scoring.
    inside: i32[b,2], evaluation only: the (height, width) of each image in the top left of `image`; what is beyond was
        added to fill it up, and all of a padding example was.
    index: i32[b], the example's index in its source, -1 for a padding example.
    """

    image: Array
    label: Array
    size: Array
    inside: Array
    index: Array
