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


def ignore_label(classes: int) -> int:
    """Returns the label of a pixel that counts in no loss and no metric: 255, or 65535 of more than 255 classes."""
    return IGNORE if classes <= IGNORE else IGNORE_16


def label_type(classes: int) -> type[np.uint8] | type[np.uint16]:
    """Returns the type of label maps: bytes, or 16 bits of more than 255 classes."""
    return np.uint8 if classes <= IGNORE else np.uint16


def ignore_in(label: np.ndarray) -> int:
    """Returns `ignore_label` of a label map of `label_type`, by its type; any type but 16 bits is read as bytes are."""
    return IGNORE_16 if label.dtype == np.uint16 else IGNORE


DISCRIMINATOR = "discriminator"
"""The child of the parameters that holds a discriminator's, beside those of the segmenter."""

LESSON = "lesson"
"""The entry beside the outputs of a network that holds a teacher's answer, for `consistency.ConsistencyLoss`."""

ENCODER = "encoder"
"""The child of the parameters that holds the encoder's."""

LORA = "lora"
"""The child of the parameters that holds low-rank adapters of the kernels, beside the network's own."""

DISTILLATION = "distillation"
"""The child of the parameters that maps features of a student to those of its teacher, beside the student's own."""


class Batch(TypedDict, total=False):
    """What a data pipeline gives and a step takes.

    image: u8[b,h,w,c] or u16[b,h,w,c] as read from the file, or f32[b,h,w,c] in [0, 1].
    label: u8[b,y,x], class indices or IGNORE, or u16[b,y,x] of more than 255 classes, see `ignore_label`. In training
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
