"""The entropy of the predictions where there is no label."""

import jax
import jax.numpy as jnp

from jaxseg.losses.pixels import SumWeight, check, valid
from jaxseg.types import Array, ignore_label


def entropy(logits: Array, labels: Array) -> SumWeight:
    """Entropy of unlabelled pixels, f32[b,h,w,k] and i32[b,h,w] -> (Σ -Σ_c p_c log p_c f32[], their number f32[]).

    It pulls the prediction of a pixel with the label IGNORE towards one class, whichever is the most probable:
    Grandvalet and Bengio, Semi-supervised Learning by Entropy Minimization, 2004, equation 4. By itself it says nothing
    about which; add it with a small factor to a loss of labelled pixels. Pixels that the augmentation adds outside the
    image have the label IGNORE too; `Loss.stats` leaves out those that pad an image in evaluation (`covered`).

    Args:
        logits: f32[b,h,w,k], or any leading shape.
        labels: integers of the leading shape, 0..k-1 (0..1 for k = 1) or IGNORE.

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits, classes = check(logits, labels)
    if logits.shape[-1] == 1:
        logits = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    pixel = -jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=-1)  # a logit of -inf adds nothing
    # `valid` is NaN for a label outside the classes, so that a wrong mask is noticed here too.
    counts = jnp.where(jnp.asarray(labels) == ignore_label(classes), 1.0, 0.0 * valid(labels, classes))
    return jnp.sum(counts * pixel), jnp.sum(counts)
