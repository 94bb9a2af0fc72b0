"""Focal loss: cross-entropy with lower weights for the pixels that are already right."""

import jax
import jax.numpy as jnp

from jaxseg.arguments import NotNegative, Share
from jaxseg.losses.pixels import ClassWeights, SumWeight, check, one_hot, sum_pixels, weights_of_classes
from jaxseg.types import Array

# Lower bound of 1 - p before it is raised to a power: a power below 1 has an infinite slope at 0.
_LEAST = 1e-12


def focal(
    logits: Array,
    labels: Array,
    *,
    gamma: NotNegative = 2.0,
    alpha: Share | None = None,
    one_vs_rest: bool = False,
    class_weights: ClassWeights = None,
) -> SumWeight:
    """Focal loss, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    A pixel adds -w_y (1 - p_y)^γ log p_y to the sum and w_y to the weight, where p is the softmax (sigmoid for k = 1):
    Lin et al., Focal Loss for Dense Object Detection, 2017, eq. 5. Its α_t is w_y / Σw here, since the value is a mean.
    With `one_vs_rest` each class has its own sigmoid against all other classes, and a pixel adds the mean of the k
    binary losses: the form of segmentation_models.pytorch and, for detection, of the paper.

    Args:
        logits: f32[b,h,w,k], or any leading shape.
        labels: integers of the leading shape, 0..k-1 (0..1 for k = 1) or IGNORE.
        gamma: γ; 0 gives the cross-entropy.
        alpha: the paper's α: in the sum (not in the weight) the positive side of a sigmoid counts α and the negative
            side 1 - α. By default both count 1. For k = 1 and `one_vs_rest`.
        one_vs_rest: one sigmoid per class instead of one softmax, for k > 1.
        class_weights: f32[k] (f32[2] for k = 1), by default all 1.

    Raises:
        ValueError: if the shapes disagree, labels are not integers, or alpha is given for a softmax of several classes.
    """
    logits, classes = check(logits, labels)
    several = logits.shape[-1] > 1
    if alpha is not None and several and not one_vs_rest:
        raise ValueError(
            "focal.alpha is for k = 1 and one_vs_rest=True; weigh the classes of a softmax by class_weights."
        )
    truth = one_hot(labels, classes)
    if several and not one_vs_rest:
        log_p = jnp.sum(jnp.where(truth, jax.nn.log_softmax(logits), 0.0), axis=-1)
        pixel = _modulated(log_p, gamma)
    else:
        truth_of = truth if several else truth[..., 1:]
        each = _modulated(jax.nn.log_sigmoid(jnp.where(truth_of, logits, -logits)), gamma)
        if alpha is not None:
            each = jnp.where(truth_of, alpha, 1.0 - alpha) * each
        pixel = jnp.mean(each, axis=-1)
    return sum_pixels(pixel, labels, classes, truth, weights_of_classes(class_weights, classes))


def _modulated(log_p: jax.Array, gamma: float) -> jax.Array:
    """-(1 - p)^γ log p; 1 - p is computed from log p, which keeps full precision where p is near 1."""
    if gamma == 0.0:
        return -log_p
    return -(jnp.maximum(-jnp.expm1(log_p), _LEAST) ** gamma) * log_p
