"""Segmentation metrics: an integer confusion matrix summed on the device, and scores computed from it on the host."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import ArgumentError, counted
from jaxseg.metrics.formatting import markdown_table, nan_mean, percent, plain
from jaxseg.types import IGNORE, IGNORE_16, Array

# Pixels whose one-hot matrices are multiplied at a time: float32 counts them exactly. Of more than 128 classes fewer
# pixels, so that the two matrices have at most 67 MB each.
_BLOCK = 1 << 18
_ELEMENTS = 1 << 25

MOST_PAIRS = 1024
"""The number of classes up to which pixels are counted by pairs of classes, in a matrix. Of more classes the three
counts that the scores of a class need are kept alone, since the matrix of 65535 classes would take 17 GB."""


def num_confusion_classes(num_classes: int) -> int:
    """The number of rows of the confusion matrix of a model with k logits: k, or 2 for a binary model with k = 1."""
    return max(num_classes, 2)


def predict_classes(logits: Array) -> jax.Array:
    """The most probable class, f[b,h,w,k] -> i32[b,h,w]: the first of equals; for k = 1 it is logit > 0."""
    logits = jnp.asarray(logits)
    if logits.shape[-1] == 1:
        return (logits[..., 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def class_indices(labels: Array) -> jax.Array:
    """Returns the labels of a batch as i32[b,h,w].

    Raises:
        ArgumentError: for floating point, whose fractions would be cut off.
    """
    if not (jnp.issubdtype(labels.dtype, jnp.integer) or labels.dtype == bool):
        raise ArgumentError(
            f"Labels must be integers, class indices or {IGNORE} (ignored; of more than {IGNORE} classes {IGNORE_16}), "
            f"got {labels.dtype}."
        )
    return jnp.asarray(labels, jnp.int32)


def confusion_matrix(predictions: Array, labels: Array, num_classes: int) -> jax.Array:
    """Counts pixels by (truth, prediction), i[b,h,w] and i[b,h,w] -> i32[k,k], rows truth, columns prediction.

    Of more than `MOST_PAIRS` classes it is i32[3,k], the pixels of each class that are right, true and predicted;
    `scores` takes either. Pixels with IGNORE or any other label outside 0..k-1 are left out. Counts are exact below
    2^31 pixels; sum batches as int64 on the host.

    Args:
        predictions: integers, any shape.
        labels: integers of the same shape.
        num_classes: k, see `num_confusion_classes`.

    Raises:
        ValueError: if the shapes differ or either is not an integer array.
    """
    if predictions.shape != labels.shape:
        raise ValueError(f"Predictions and labels need one shape, got {predictions.shape} and {labels.shape}.")
    for name, array in (("Predictions", predictions), ("Labels", labels)):
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name} must be integers, got {array.dtype}.")
    # The leading axis is not merged with the others: it may be sharded over devices, each counting its own examples.
    rows = labels.shape[0] if labels.ndim > 1 else 1
    truth = jnp.asarray(labels, jnp.int32).reshape(rows, -1)
    prediction = jnp.asarray(predictions, jnp.int32).reshape(rows, -1)
    if num_classes > MOST_PAIRS:
        return _count_classes(prediction, truth, num_classes)
    return jax.lax.platform_dependent(
        prediction, truth, cpu=partial(_count_cells, k=num_classes), default=partial(_count_products, k=num_classes)
    )


def _count_cells(prediction: jax.Array, truth: jax.Array, *, k: int) -> jax.Array:
    """Adds 1 to the cell of each pixel: about 1 ns per pixel on a CPU, but slow on a GPU, where atomic adds collide."""
    counted = (truth >= 0) & (truth < k) & (prediction >= 0) & (prediction < k)
    cell = jnp.where(counted, truth * k + prediction, k * k)
    return jnp.zeros(k * k + 1, jnp.int32).at[cell].add(1)[:-1].reshape(k, k)


def _count_classes(prediction: jax.Array, truth: jax.Array, k: int) -> jax.Array:
    """Returns i32[3,k], the pixels of each class that are right, true and predicted."""
    counted = (truth >= 0) & (truth < k) & (prediction >= 0) & (prediction < k)
    rows = [(counted & (truth == prediction), truth), (counted, truth), (counted, prediction)]
    return jnp.stack([jnp.zeros(k + 1, jnp.int32).at[jnp.where(here, c, k)].add(1)[:-1] for here, c in rows])


def _count_products(prediction: jax.Array, truth: jax.Array, *, k: int) -> jax.Array:
    """Multiplies one-hot matrices, which bfloat16 holds exactly, in blocks of pixels."""
    total = jnp.zeros((k, k), jnp.int32)
    columns = max(1, min(_BLOCK, _ELEMENTS // k) // truth.shape[0])
    for start in range(0, truth.shape[1], columns):
        block = slice(start, start + columns)
        a, b = ((x[:, block, None] == jnp.arange(k)[None, None, :]).astype(jnp.bfloat16) for x in (truth, prediction))
        total += jnp.einsum("bpt,bpc->tc", a, b, preferred_element_type=jnp.float32).astype(jnp.int32)
    return total


def group_confusion(confusion: Array, groups: Sequence[int]) -> np.ndarray:
    """Adds the rows and columns of the classes of each group, i[k,k] -> i64[g,g]: a mistake within a group is none.

    Args:
        confusion: rows truth, columns prediction.
        groups: the group of each class, 0..g-1.

    Raises:
        ValueError: if there are not as many groups as classes.
    """
    matrix = np.asarray(confusion, np.int64)
    if len(groups) != len(matrix):
        raise ValueError(
            f"A confusion matrix of {counted(len(matrix), 'class')} needs a group for each, got {len(groups)}."
        )
    member = (np.asarray(groups)[:, None] == np.arange(max(groups) + 1)).astype(np.int64)
    return member.T @ matrix @ member


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Numbers of one confusion matrix; per-class arrays are f64[k]. A ratio is NaN where its denominator is 0.

    iou TP/(TP+FP+FN) and f1 2TP/(2TP+FP+FN) are NaN for a class absent from both truth and prediction, precision for a
    class that is never predicted, recall for a class without true pixels; the means leave NaN out. All are NaN if no
    pixel counts.

    pixel_accuracy: share of pixels that are right; where a pixel may have several classes, whose whole set is right
        (exact match).
    mean_accuracy: mean recall.
    mean_iou, mean_f1: means over classes, computed from the matrix of the whole split and not image by image.
    frequency_weighted_iou: IoU weighted by each class's share of true pixels.
    support: i64[k], true pixels of each class.
    hamming_accuracy: where a pixel may have several classes, the share of pixels and classes that are right; else None.
    pixels: where a pixel may have several classes, the pixels that count; else None, since they are the sum of
        `support`.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float
    mean_f1: float
    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    hamming_accuracy: float | None = None
    pixels: int | None = None


_SUMMARY = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "mean_f1")
_PER_CLASS = ("iou", "precision", "recall", "f1")


def scores(confusion: Array) -> Scores:
    """Turns a confusion matrix, i[k,k] with rows truth, or the counts i[3,k] of many classes, into `Scores`.

    It also takes the counts i[k+1,2,2] of `set_counts`, of pixels that may have several classes.

    Raises:
        ValueError: if it is neither a square matrix of counts nor those of `confusion_matrix` of many classes.
    """
    matrix = np.asarray(confusion)
    sets = matrix.ndim == 3 and len(matrix) > 1 and matrix.shape[1:] == (2, 2)
    alone = matrix.ndim == 2 and len(matrix) == 3 and matrix.shape[1] > MOST_PAIRS
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if not (alone or square or sets) or not np.issubdtype(matrix.dtype, np.integer):
        raise ValueError(
            f"A confusion matrix is a square array of integers, got {matrix.dtype} of shape {matrix.shape}."
        )
    if (matrix < 0).any():
        raise ValueError("A confusion matrix has no negative counts; sum batches as int64 so that none overflows.")
    matrix = matrix.astype(np.int64)
    if sets:
        each = matrix[:-1]
        hits, truth, predicted = each[:, 1, 1], each[:, 1].sum(axis=1), each[:, :, 1].sum(axis=1)
    else:
        hits, truth, predicted = matrix if alone else (np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0))
    iou = _ratio(hits, truth + predicted - hits)
    recall = _ratio(hits, truth)
    f1 = _ratio(2 * hits, truth + predicted)
    total = truth.sum()
    accuracy, hamming, pixels = float(_ratio(hits.sum(), total)), None, None
    if sets:
        right, pixels = int(matrix[-1, 1, 1]), int(matrix[-1].sum())
        accuracy = float(_ratio(np.asarray(right), np.asarray(pixels)))
        hamming = float(_ratio(matrix[:-1, 0, 0].sum() + hits.sum(), matrix[:-1].sum()))
    return Scores(
        pixel_accuracy=accuracy,
        mean_accuracy=nan_mean(recall),
        mean_iou=nan_mean(iou),
        frequency_weighted_iou=float(np.nansum(iou * truth) / total) if total else float("nan"),
        mean_f1=nan_mean(f1),
        iou=iou,
        precision=_ratio(hits, predicted),
        recall=recall,
        f1=f1,
        support=truth,
        hamming_accuracy=hamming,
        pixels=pixels,
    )


def table(
    result: Scores, class_names: Sequence[str], ends: tuple[np.ndarray, np.ndarray] | None = None, level: float = 0.95
) -> str:
    """A Markdown table with one line per class and the summary numbers under it, in percent; "-" stands for NaN.

    Of more than 255 classes it has those that are true or predicted somewhere, and says how many.

    Args:
        result: the scores.
        class_names: of the classes.
        ends: the ends f64[k+1] of the intervals of the IoU of each class and of their mean, for a column of them.
        level: of the intervals.

    Raises:
        ValueError: if the number of names differs from that of the classes.
    """
    _check_names(result, class_names)
    total = max(int(result.support.sum()) if result.pixels is None else result.pixels, 1)
    rows: list[Sequence[str]] = [("class", "IoU", "precision", "recall", "F1", "pixels")]
    few, occur = len(class_names) <= IGNORE, np.flatnonzero(~np.isnan(result.iou)).tolist()
    for i in range(len(class_names)) if few else occur:
        numbers = (percent(getattr(result, field)[i]) for field in _PER_CLASS)
        rows.append((class_names[i].replace("|", "\\|"), *numbers, percent(result.support[i] / total)))
    rows.append(("mean", percent(result.mean_iou), "", percent(result.mean_accuracy), percent(result.mean_f1), ""))
    if ends is not None:
        places = [*(range(len(class_names)) if few else occur), -1]
        shown = [f"{level:.0%} interval", *(_between(ends[0][i], ends[1][i]) for i in places)]
        rows = [(*row[:2], cell, *row[2:]) for row, cell in zip(rows, shown)]
    summary = ", ".join(f"{field.replace('_', ' ')} {percent(getattr(result, field))}" for field in _SUMMARY)
    if result.hamming_accuracy is not None:
        summary = summary.replace("pixel accuracy", "exact match")
        summary += f", Hamming accuracy {percent(result.hamming_accuracy)}"
    lines = markdown_table(rows)
    if not few:
        lines += ["", f"{len(occur)} of {counted(len(class_names), 'class')} occur and are listed"]
    return "\n".join([*lines, "", summary.replace("iou", "IoU").replace("f1", "F1")])


def _between(low: float, high: float) -> str:
    return "-" if np.isnan(low) else f"{percent(low)} to {percent(high)}"


def scores_dict(result: Scores, class_names: Sequence[str]) -> dict[str, Any]:
    """The scores in 0..1 in the types of JSON, with None for NaN; `classes` lists one dictionary per class.

    Raises:
        ValueError: if the number of names differs from that of the classes.
    """
    _check_names(result, class_names)
    classes = [
        {"name": name, "support": int(result.support[i])}
        | {field: plain(getattr(result, field)[i]) for field in _PER_CLASS}
        for i, name in enumerate(class_names)
    ]
    summary = {field: plain(getattr(result, field)) for field in _SUMMARY}
    if result.hamming_accuracy is not None:
        summary["hamming_accuracy"] = plain(result.hamming_accuracy)
    return summary | {"classes": classes}


def _check_names(result: Scores, class_names: Sequence[str]) -> None:
    if len(class_names) != len(result.support):
        raise ValueError(
            f"The scores are of {counted(len(result.support), 'class')}, got {counted(len(class_names), 'class name')}."
        )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below in float64, NaN where below is 0."""
    below = np.asarray(below, np.float64)
    return np.where(below > 0, np.asarray(above, np.float64) / np.where(below > 0, below, 1.0), np.nan)
