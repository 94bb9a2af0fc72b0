"""The single losses and what they are made of, see `jaxseg.losses` for the conventions."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import IGNORE, Array

SumWeight = tuple[jax.Array, jax.Array]


def cross_entropy(
    logits: Array, labels: Array, *, class_weights: Sequence[float] | Array | None = None, label_smoothing: float = 0.0
) -> SumWeight:
    """Cross-entropy of softmax, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    With target distribution q = (1 - s)·onehot(y) + s/k, a pixel adds -Σ_c w_c q_c log p_c to the sum and w_y to the
    weight (1 without class weights): the convention of torch's `cross_entropy`. One logit z stands for the two logits
    (0, z).

    Args:
        logits: f32[b,h,w,k], or any leading shape.
        labels: integers of the leading shape, 0..k-1 (0..1 for k = 1) or IGNORE.
        class_weights: f32[k] (f32[2] for k = 1), by default all 1.
        label_smoothing: s in [0, 1).

    Raises:
        ValueError: if the shapes disagree or labels are no integers.
    """
    logits, classes = _check(logits, labels)
    if logits.shape[-1] == 1:
        logits = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
    truth = _one_hot(labels, classes)
    weights = _class_weights(class_weights, classes)
    target = jnp.where(truth, 1.0 - label_smoothing, 0.0) + label_smoothing / classes
    pixel = _target_cross_entropy(logits, target if weights is None else target * _expand(weights, target))
    return _reduce(pixel, labels, classes, truth, weights, averaged_weight=True)


@jax.custom_jvp
def _target_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-Σ_c target_c log softmax(logits)_c, f32[...,k] and f32[...,k] -> f32[...], for targets of any sum A.

    Equal to A·lse(z) - Σ_c target_c z_c, with z shifted by its maximum so that nothing large cancels. The derivative
    A·softmax(z) - target is written out because the automatic one passes over the logits twice as often.
    """
    return _shifted_cross_entropy(logits, target)[0]


@_target_cross_entropy.defjvp
def _target_cross_entropy_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    logits, target = primals  # the target comes of labels and has no tangent
    value, log_p = _shifted_cross_entropy(logits, target)
    slope = jnp.exp(log_p) * jnp.sum(target, axis=-1, keepdims=True) - target
    return value, jnp.sum(slope * tangents[0], axis=-1)


def _shifted_cross_entropy(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cross-entropy and log softmax(logits)."""
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    log_sum = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    right = jnp.sum(jnp.where(target == 0, 0.0, target * shifted), axis=-1)  # a class ruled out by -inf adds nothing
    return jnp.sum(target, axis=-1) * log_sum - right, shifted - log_sum[..., None]


def binary_cross_entropy(
    logits: Array, labels: Array, *, class_weights: Sequence[float] | Array | None = None, label_smoothing: float = 0.0
) -> SumWeight:
    """Sigmoid cross-entropy, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    With k = 1 this is `cross_entropy`. With more logits each class is told from all others: a pixel adds
    w_y · Σ_c BCE(σ(z_c), t_c) / k with t = (1 - s)·onehot(y) + s/2 to the sum and w_y to the weight, so that without
    weights the value is the mean over pixels and classes.

    Args and Raises: as `cross_entropy`.
    """
    if logits.shape[-1:] == (1,):
        return cross_entropy(logits, labels, class_weights=class_weights, label_smoothing=label_smoothing)
    logits, classes = _check(logits, labels)
    truth = _one_hot(labels, classes)
    target = jnp.where(truth, 1.0 - 0.5 * label_smoothing, 0.5 * label_smoothing)
    # -t log σ(z) - (1-t) log(1-σ(z)) = softplus(z) - t z, finite for every finite z.
    pixel = jnp.mean(jax.nn.softplus(logits) - target * logits, axis=-1)
    return _reduce(pixel, labels, classes, truth, _class_weights(class_weights, classes))


def mse(logits: Array, labels: Array, *, class_weights: Sequence[float] | Array | None = None) -> SumWeight:
    """Squared error of the probabilities, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    A pixel adds w_y · Σ_c (p_c - onehot(y)_c)² / k to the sum and w_y to the weight, p = softmax(z) or, for k = 1, the
    single probability σ(z) against y: the mean over pixels and classes of the Brier score.

    Args and Raises: as `cross_entropy`.
    """
    logits, classes = _check(logits, labels)
    truth = _one_hot(labels, classes)
    error = probabilities(logits) - _scored(truth, logits.shape[-1])
    pixel = jnp.mean(jnp.square(error), axis=-1)
    return _reduce(pixel, labels, classes, truth, _class_weights(class_weights, classes))


def dice(logits: Array, labels: Array, *, squared: bool = True, smooth: float = 0.0) -> SumWeight:
    """Dice loss, f32[b,h,w,k] and i32[b,h,w] -> (Σ_c 1 - score_c f32[], number of classes f32[]).

    score_c = (2 Σ p_c y_c + smooth) / (Σ p_c² + Σ y_c² + smooth), sums over all pixels of the batch: Milletari et al.,
    V-Net, 2016, eq. 2 (`squared`), or with Σ p_c + Σ y_c below the line. A class without true pixels adds 0 to the sum
    and 1 to the number of classes. For k = 1 the one class is the foreground.

    Args:
        logits: f32[b,h,w,k], or any leading shape.
        labels: integers of the leading shape, 0..k-1 (0..1 for k = 1) or IGNORE.
        squared: squares p in the cardinality.
        smooth: added above and below the line.

    Raises:
        ValueError: if the shapes disagree or labels are no integers.
    """
    return dice_from_stats(dice_stats(logits, labels, squared=squared), smooth=smooth)


def dice_stats(logits: Array, labels: Array, *, squared: bool = True) -> dict[str, jax.Array]:
    """The sums that `dice` divides: intersection, predicted and truth, each f32[k]; they add over parts of a batch."""
    logits, classes = _check(logits, labels)
    valid = _valid(labels, classes)[..., None]
    truth = _scored(_one_hot(labels, classes), logits.shape[-1])
    p = probabilities(logits)
    pixels = tuple(range(labels.ndim))
    return {
        "intersection": jnp.sum(valid * p * truth, axis=pixels),
        "predicted": jnp.sum(valid * (p * p if squared else p), axis=pixels),
        "truth": jnp.sum(valid * truth, axis=pixels),
    }


def dice_from_stats(stats: Mapping[str, jax.Array], *, smooth: float = 0.0) -> SumWeight:
    """Forms (Σ_c 1 - score_c, number of classes) of `dice` from summed `dice_stats`."""
    truth = stats["truth"]
    absent = truth == 0  # False for the NaN of a label outside the classes
    below = jnp.where(absent, 1.0, stats["predicted"] + truth + smooth)
    score = (2.0 * stats["intersection"] + smooth) / below
    return jnp.sum(jnp.where(absent, 0.0, 1.0 - score)), jnp.float32(truth.shape[0])


def probabilities(logits: Array) -> jax.Array:
    """Softmax over classes, or the sigmoid of a single logit, f32[...,k] -> f32[...,k]."""
    logits = jnp.asarray(logits, jnp.float32)
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)


def divide(sum_: jax.Array, weight: jax.Array) -> jax.Array:
    """sum / weight, and 0 with a zero gradient where the weight is 0: a batch of IGNORE alone teaches nothing."""
    empty = weight == 0
    return jnp.where(empty, 0.0, sum_ / jnp.where(empty, 1.0, weight))


def median_frequency_weights(counts: Array, present: Array) -> np.ndarray:
    """Class weights that balance rare classes, i64[k] and i64[k] -> f32[k].

    w_c = median(f) / f_c with f_c = counts_c / present_c: Eigen and Fergus, Predicting Depth, Surface Normals and
    Semantic Labels, 2015, section 6.3.2. A class that never occurs gets 0 and stays out of the median.

    Args:
        counts: pixels of each class over the training data.
        present: pixels (of any class) in the images that contain the class.

    Raises:
        ValueError: if the shapes differ, a count exceeds its total, or no class occurs at all.
    """
    counts, present = np.asarray(counts, np.float64), np.asarray(present, np.float64)
    if counts.ndim != 1 or counts.shape != present.shape:
        raise ValueError(
            f"Median frequencies need two vectors of one length, got shapes {counts.shape} and {present.shape}."
        )
    if (counts < 0).any() or (counts > present).any():
        raise ValueError("The pixels of a class must lie between 0 and the pixels of the images that contain it.")
    if not counts.any():
        raise ValueError("Median-frequency weights need labelled pixels, and every class count is 0.")
    occurs = counts > 0
    frequency = counts[occurs] / present[occurs]
    weights = np.zeros(counts.shape, np.float32)
    weights[occurs] = np.median(frequency) / frequency
    return weights


def _check(logits: Array, labels: Array) -> tuple[jax.Array, int]:
    """Returns float32 logits and the number of classes that labels may name."""
    if logits.ndim < 1 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"Labels need the shape of the logits without the class axis, got {labels.shape} for logits {logits.shape}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"Labels must be integers, got {labels.dtype}.")
    return jnp.asarray(logits, jnp.float32), max(logits.shape[-1], 2)


def _one_hot(labels: Array, classes: int) -> jax.Array:
    """bool[..., classes]; a comparison, since XLA's gather and its scatter gradient are slow."""
    return jnp.asarray(labels, jnp.int32)[..., None] == jnp.arange(classes).reshape((1,) * labels.ndim + (classes,))


def _scored(truth: jax.Array, k: int) -> jax.Array:
    """The one-hot truth of the classes that have a probability: all, or the foreground for k = 1."""
    return jnp.asarray(truth[..., 1:] if k == 1 else truth, jnp.float32)


def _valid(labels: Array, classes: int) -> jax.Array:
    """1 for a pixel that counts, 0 for IGNORE, NaN for a label outside the classes."""
    labels = jnp.asarray(labels, jnp.int32)
    inside = (labels >= 0) & (labels < classes)
    return jnp.where(labels == IGNORE, 0.0, jnp.where(inside, 1.0, jnp.nan))


def _class_weights(weights: Sequence[float] | Array | None, classes: int) -> jax.Array | None:
    if weights is None:
        return None
    values = jnp.asarray(weights, jnp.float32)
    if values.shape != (classes,):
        raise ValueError(f"class_weights must be {classes} numbers, one per class, got shape {values.shape}.")
    return values


def _expand(vector: jax.Array, like: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def _reduce(
    pixel: jax.Array,
    labels: Array,
    classes: int,
    truth: jax.Array,
    weights: jax.Array | None,
    averaged_weight: bool = False,
) -> SumWeight:
    """Sums a loss per pixel; `averaged_weight` says that it has the class weights in it already."""
    valid = _valid(labels, classes)
    if weights is None:
        return jnp.sum(valid * pixel), jnp.sum(valid)
    weight = valid * jnp.sum(jnp.where(truth, _expand(weights, truth), 0.0), axis=-1)
    return jnp.sum((valid if averaged_weight else weight) * pixel), jnp.sum(weight)
