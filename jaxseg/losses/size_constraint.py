"""The number of pixels of each class, held between the bounds that boxes and image-level tags give."""

import jax.numpy as jnp

from jaxseg.arguments import NotNegative, Share
from jaxseg.losses.pixels import SumWeight, check, one_hot, probabilities, valid
from jaxseg.losses.possible import known, may_be, require_room
from jaxseg.types import IGNORE, Array


def size_constraint(logits: Array, labels: Array, *, least: Share = 0.1, most: NotNegative = 1.0) -> SumWeight:
    """Penalty of sizes outside their bounds, f32[b,h,w,k] and i32[b,h,w] -> (Σ over images and classes, their number).

    With V_c = Σ p_c over the pixels of an image that are not IGNORE, N of them, a class adds ((V_c - a) / N)² if V_c is
    below a, ((V_c - b) / N)² if V_c is above b, and else 0: Kervadec et al., Constrained-CNN losses for weakly
    supervised segmentation, 2019, equations 2 and 3, with sizes as shares of the image.

    The bounds come from the labels of the image. With n_c pixels of the label c, and m_c of the label 254 - c, which
    may be of class c (`jaxseg.losses.possible`):

    - present, n_c + m_c > 0: a = max(1, n_c + least · m_c), b = n_c + most · m_c;
    - absent: a = b = 0.

    Class 0, the background, has no bounds. A crop that cuts a box keeps the bounds for what is left of it, which is
    right for b and a guess for a.

    Args:
        logits: f32[b,h,w,k].
        labels: integers i[b,h,w], 0..k-1 (0..1 for k = 1), 254 - c for a pixel that may be of class c, or IGNORE.
        least: the least share of the pixels that may be of a class, and are.
        most: the largest such share; 0: no upper bound for a class that is present, for image-level tags.

    Raises:
        ValueError: if the shapes disagree, labels are not integers, or there are more than 127 classes.
    """
    if labels.ndim != 3:
        raise ValueError(f"size_constraint takes labels [b,h,w], got shape {labels.shape}.")
    logits, classes = check(logits, labels)
    require_room(classes)
    certain = known(labels, classes)
    counts = jnp.where(jnp.asarray(labels) == IGNORE, 0.0, 1.0) + 0.0 * valid(certain, classes)
    p = probabilities(logits)
    p = p if p.shape[-1] == 1 else p[..., 1:]
    n = jnp.sum(one_hot(certain, classes)[..., 1:].astype(jnp.float32), axis=(1, 2))
    m = jnp.sum(may_be(labels, classes)[..., 1:].astype(jnp.float32), axis=(1, 2))
    pixels = jnp.sum(counts, axis=(1, 2))[:, None]
    volume = jnp.sum(counts[..., None] * p, axis=(1, 2))
    present = n + m > 0
    low = jnp.where(present, jnp.maximum(1.0, n + least * m), 0.0)
    high = jnp.where(present, n + most * m if most > 0 else pixels, 0.0)
    outside = volume - jnp.clip(volume, low, jnp.maximum(low, high))
    penalty = jnp.square(outside / jnp.maximum(pixels, 1.0))
    return jnp.sum(penalty), jnp.sum((pixels > 0).astype(jnp.float32)) * p.shape[-1] + 0.0 * jnp.sum(pixels)
