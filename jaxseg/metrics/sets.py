"""Predictions and counts where a pixel may have several classes at once (labels of `jaxseg.sets`)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxseg.errors import ArgumentError
from jaxseg.metrics.calibration import calibration_stats
from jaxseg.metrics.confusion import confusion_matrix, num_confusion_classes, predict_classes
from jaxseg.sets import is_known, members
from jaxseg.types import Array


def predict_sets(logits: Array, thresholds: Sequence[float] = ()) -> jax.Array:
    """The classes whose logit is above its threshold, f[b,h,w,k] -> i32[b,h,w] with bit c for class c; thresholds: 0.

    The set may be empty, the number 0.
    """
    logits = jnp.asarray(logits)
    shape = (1,) * (logits.ndim - 1) + (logits.shape[-1],)
    limits = jnp.array(thresholds or (0.0,) * logits.shape[-1], jnp.float32).reshape(shape)
    bits = jnp.array([1 << c for c in range(logits.shape[-1])], jnp.int32).reshape(shape)
    return jnp.sum(jnp.where(logits > limits, bits, 0), axis=-1)


def set_counts(predictions: Array, labels: Array, classes: int) -> jax.Array:
    """Counts pixels by (class, is it there, is it predicted), i[b,h,w] and i[b,h,w] of sets -> i32[k+1,2,2].

    The last row is of whole sets: [1, 1] where all classes of a pixel are right, [1, 0] where not. A pixel is left out
    of the row of a class that is unknown there, and of the last row if any is. A label outside the sets counts nowhere;
    bits k to 2k - 1, of up to 15 classes, always say that a class is unknown. Counts are exact below 2^31 pixels; sum
    batches as int64 on the host. `scores` turns them into numbers.

    Raises:
        ArgumentError: if the shapes differ or either is not an integer array.
    """
    if predictions.shape != labels.shape:
        raise ArgumentError(f"Predictions and labels need one shape, got {predictions.shape} and {labels.shape}.")
    for name, array in (("Predictions", predictions), ("Labels", labels)):
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ArgumentError(f"{name} must be integers, got {array.dtype}.")
    truth, found = jnp.asarray(labels, jnp.int32), jnp.asarray(predictions, jnp.int32)
    whole, of_classes = is_known(truth, classes), members(truth, classes)
    bits = jnp.arange(classes).reshape((1,) * truth.ndim + (classes,))
    counted = of_classes < 2
    there, here = of_classes == 1, (found[..., None] >> bits & 1 == 1) & counted
    pixels = tuple(range(truth.ndim))

    def count(where: jax.Array) -> jax.Array:
        return jnp.sum(where, axis=pixels, dtype=jnp.int32)

    total, hit, true, predicted = count(counted), count(there & here), count(there), count(here)
    cells = [total - true - predicted + hit, predicted - hit, true - hit, hit]
    right = count(whole & (truth == found))
    of_sets = jnp.zeros((1, 2, 2), jnp.int32).at[0, 1].set(jnp.stack([count(whole) - right, right]))
    return jnp.concatenate([jnp.stack(cells, axis=-1).reshape(classes, 2, 2), of_sets])


def set_calibration_stats(logits: Array, labels: Array) -> dict[str, jax.Array]:
    """`calibration_stats` of the yes-or-no questions, is class c at a pixel; f[b,h,w,k] and i[b,h,w] of sets."""
    return calibration_stats(jnp.asarray(logits)[..., None], members(labels, logits.shape[-1]))


def predict_and_count(logits: Array, labels: Array, multilabel: bool = False) -> tuple[jax.Array, jax.Array]:
    """f[b,h,w,k], i[b,h,w] -> the prediction i32[b,h,w] and the counts that `scores` takes.

    These are the most probable classes and their confusion matrix, or with `multilabel` sets and `set_counts`.
    """
    if multilabel:
        predicted = predict_sets(logits)
        return predicted, set_counts(predicted, labels, logits.shape[-1])
    predicted = predict_classes(logits)
    return predicted, confusion_matrix(predicted, labels, num_confusion_classes(logits.shape[-1]))
