"""Losses that are means over pixels: cross-entropies and squared error; see `jaxseg.losses` for the conventions."""

import jax
import jax.numpy as jnp

from jaxseg.arguments import BelowOne
from jaxseg.losses.pixels import (
    ClassShifts,
    ClassWeights,
    SumWeight,
    check,
    expand,
    one_hot,
    probabilities,
    scored,
    shifted,
    sum_pixels,
    weights_of_classes,
)
from jaxseg.types import Array


def cross_entropy(
    logits: Array,
    labels: Array,
    *,
    class_weights: ClassWeights = None,
    label_smoothing: BelowOne = 0.0,
    logit_shift: ClassShifts = None,
) -> SumWeight:
    """Cross-entropy of softmax, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    With target distribution q = (1 - s)·onehot(y) + s/k, a pixel adds -Σ_c w_c q_c log p_c to the sum and w_y to the
    weight (1 without class weights): the convention of torch's `cross_entropy`. A single logit z is treated as the two
    logits (0, z).

    Args:
        logits: f32[b,h,w,k], or any leading shape.
        labels: integers of the leading shape, 0..k-1 (0..1 for k = 1) or IGNORE.
        class_weights: f32[k] (f32[2] for k = 1), by default all 1.
        label_smoothing: s in [0, 1).
        logit_shift: f32[k] (f32[2] for k = 1) that is added to the logits first, such as `losses.logit_shift` gives.

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits, classes = check(logits, labels)
    logits = shifted(logits, logit_shift, classes)
    if logits.shape[-1] == 1:
        logits = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
    truth = one_hot(labels, classes)
    weights = weights_of_classes(class_weights, classes)
    target = jnp.where(truth, 1.0 - label_smoothing, 0.0) + label_smoothing / classes
    pixel = _target_cross_entropy(logits, target if weights is None else target * expand(weights, target))
    return sum_pixels(pixel, labels, classes, truth, weights, averaged_weight=True)


@jax.custom_jvp
def _target_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-Σ_c target_c log softmax(logits)_c, f32[...,k] and f32[...,k] -> f32[...], for targets with any sum A.

    Equal to A·lse(z) - Σ_c target_c z_c, with z shifted by its maximum so that no large numbers cancel. The derivative
    A·softmax(z) - target is written out because automatic differentiation would read the logits twice as many times.
    """
    return _shifted_cross_entropy(logits, target)[0]


@_target_cross_entropy.defjvp
def _target_cross_entropy_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    logits, target = primals  # the target comes from labels and has no tangent
    value, log_p = _shifted_cross_entropy(logits, target)
    slope = jnp.exp(log_p) * jnp.sum(target, axis=-1, keepdims=True) - target
    return value, jnp.sum(slope * tangents[0], axis=-1)


def _shifted_cross_entropy(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cross-entropy and log softmax(logits)."""
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    log_sum = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    right = jnp.sum(jnp.where(target == 0, 0.0, target * shifted), axis=-1)  # a class with a logit of -inf adds nothing
    return jnp.sum(target, axis=-1) * log_sum - right, shifted - log_sum[..., None]


def binary_cross_entropy(
    logits: Array, labels: Array, *, class_weights: ClassWeights = None, label_smoothing: BelowOne = 0.0
) -> SumWeight:
    """Sigmoid cross-entropy, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    With k = 1 this is `cross_entropy`. With more logits each class has a binary loss against all others: a pixel adds
    w_y · Σ_c BCE(σ(z_c), t_c) / k with t = (1 - s)·onehot(y) + s/2 to the sum and w_y to the weight, so that without
    weights the value is the mean over pixels and classes.

    Args and Raises: as `cross_entropy`.
    """
    if logits.shape[-1:] == (1,):
        return cross_entropy(logits, labels, class_weights=class_weights, label_smoothing=label_smoothing)
    logits, classes = check(logits, labels)
    truth = one_hot(labels, classes)
    target = jnp.where(truth, 1.0 - 0.5 * label_smoothing, 0.5 * label_smoothing)
    # -t log σ(z) - (1-t) log(1-σ(z)) = softplus(z) - t z, finite for every finite z.
    pixel = jnp.mean(jax.nn.softplus(logits) - target * logits, axis=-1)
    return sum_pixels(pixel, labels, classes, truth, weights_of_classes(class_weights, classes))


def mse(logits: Array, labels: Array, *, class_weights: ClassWeights = None) -> SumWeight:
    """Squared error of the probabilities, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    A pixel adds w_y · Σ_c (p_c - onehot(y)_c)² / k to the sum and w_y to the weight, with p = softmax(z) or, for k = 1,
    the single probability σ(z) compared with y: the mean over pixels and classes of the Brier score.

    Args and Raises: as `cross_entropy`.
    """
    logits, classes = check(logits, labels)
    truth = one_hot(labels, classes)
    error = probabilities(logits) - scored(truth, logits.shape[-1])
    pixel = jnp.mean(jnp.square(error), axis=-1)
    return sum_pixels(pixel, labels, classes, truth, weights_of_classes(class_weights, classes))
