"""Calibration: whether the pixels that a network is 80 % sure of are right 80 % of the time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics.confusion import predict_classes
from jaxseg.metrics.formatting import plain
from jaxseg.types import Array


def calibration_stats(
    logits: Array, labels: Array, bins: int = 15, *, one_vs_rest: bool = False
) -> dict[str, jax.Array]:
    """Sums over pixels by confidence: count i32[bins], correct i32[bins] and confidence f32[bins].

    The confidence of a pixel is the probability of its predicted class. Bin m (from 0) holds the pixels with confidence
    in (m / bins, (m + 1) / bins]. The sums add over batches; add them as int64 and float64 on the host. Pixels with
    labels outside 0..k-1, including IGNORE, are left out.

    Args:
        logits: f[b,h,w,k], softmax for k > 1 and sigmoid for k = 1.
        labels: i[b,h,w].
        bins: number of bins of equal width.
        one_vs_rest: the probability of a class is the sigmoid of its logit, for k > 1 too (`losses.probabilities`).

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits = jnp.asarray(logits, jnp.float32)
    if logits.shape[:-1] != labels.shape or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"Calibration needs integer labels of shape {logits.shape[:-1]}, got {labels.shape}.")
    labels, predicted, k = jnp.asarray(labels, jnp.int32), predict_classes(logits), max(logits.shape[-1], 2)
    if logits.shape[-1] == 1:
        confidence = jax.nn.sigmoid(jnp.abs(logits[..., 0]))
    else:
        confidence = jnp.max(jax.nn.sigmoid(logits) if one_vs_rest else jax.nn.softmax(logits), axis=-1)
    valid = (labels >= 0) & (labels < k)
    place = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    here = valid[..., None] & (place[..., None] == jnp.arange(bins).reshape((1,) * labels.ndim + (bins,)))
    pixels = tuple(range(labels.ndim))
    return {
        "count": jnp.sum(here, axis=pixels, dtype=jnp.int32),
        "correct": jnp.sum(here & (predicted == labels)[..., None], axis=pixels, dtype=jnp.int32),
        "confidence": jnp.sum(jnp.where(here, confidence[..., None], 0.0), axis=pixels),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Numbers of the summed bins; per-bin arrays are f64[bins], NaN in an empty bin. All are NaN if no pixel counts.

    error: expected calibration error, Σ_m n_m/n |accuracy_m - confidence_m|: Guo et al., On Calibration of Modern
        Neural Networks, 2017, eq. 3.
    largest_error: max_m |accuracy_m - confidence_m|, eq. 5 of the same paper.
    confidence, accuracy: the means over the pixels of each bin; plotted together they give the reliability diagram.
    count: i64[bins], the pixels of each bin.
    """

    error: float
    largest_error: float
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def calibration(stats: Mapping[str, Array]) -> Calibration:
    """Turns summed `calibration_stats` into `Calibration`."""
    count = np.asarray(stats["count"], np.int64)
    filled = np.maximum(count, 1)
    confidence, accuracy = (
        np.where(count > 0, np.asarray(stats[name], np.float64) / filled, np.nan) for name in ("confidence", "correct")
    )
    if not count.any():
        return Calibration(float("nan"), float("nan"), confidence, accuracy, count)
    gap = np.abs(accuracy - confidence)
    return Calibration(float(np.nansum(count / count.sum() * gap)), float(np.nanmax(gap)), confidence, accuracy, count)


def calibration_dict(result: Calibration) -> dict[str, Any]:
    """The numbers in the types of JSON, with None for NaN; `bins` lists one dictionary per bin."""
    columns = zip(result.count, result.confidence, result.accuracy)
    return {
        "error": plain(result.error),
        "largest_error": plain(result.largest_error),
        "bins": [{"count": int(n), "confidence": plain(c), "accuracy": plain(a)} for n, c, a in columns],
    }


def class_calibration_stats(
    logits: Array, labels: Array, bins: int = 15, *, one_vs_rest: bool = False, temperature: float = 1.0
) -> dict[str, jax.Array]:
    """Sums over pixels by class and its probability: count, correct i32[k,bins] and confidence f32[k,bins].

    All pixels count for every class c, by the probability p_c that they give it; correct are those of class c. Bins,
    left-out pixels and sums are those of `calibration_stats`; k is 2 for a binary network.

    Args:
        logits: f[...,k], softmax for k > 1 and sigmoid for k = 1.
        labels: i[...].
        bins: number of bins of equal width.
        one_vs_rest: the probability of a class is the sigmoid of its logit, for k > 1 too (`losses.probabilities`).
        temperature: the logits are divided by it (`metrics.temperature`).

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    z = jnp.asarray(logits, jnp.float32) / temperature
    if z.shape[:-1] != labels.shape or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"Calibration needs integer labels of shape {z.shape[:-1]}, got {labels.shape}.")
    if z.shape[-1] == 1:
        p = jnp.concatenate([jax.nn.sigmoid(-z), jax.nn.sigmoid(z)], axis=-1)
    else:
        p = jax.nn.sigmoid(z) if one_vs_rest else jax.nn.softmax(z)
    k, labels = p.shape[-1], jnp.asarray(labels, jnp.int32)
    valid = (labels >= 0) & (labels < k)
    classes = jnp.arange(k).reshape((1,) * labels.ndim + (k,))
    place = jnp.clip(jnp.ceil(p * bins).astype(jnp.int32) - 1, 0, bins - 1) + bins * classes
    place = jnp.where(valid[..., None], place, k * bins).ravel()  # the last place is for pixels that are left out
    hit = (labels[..., None] == classes).ravel()
    empty = jnp.zeros(k * bins + 1, jnp.int32)
    sums = {
        "count": empty.at[place].add(1),
        "correct": empty.at[place].add(hit.astype(jnp.int32)),
        "confidence": empty.astype(jnp.float32).at[place].add(p.ravel()),
    }
    return {name: total[:-1].reshape(k, bins) for name, total in sums.items()}


def class_calibration(stats: Mapping[str, Array]) -> np.ndarray:
    """The expected calibration error of each class, f64[k], from summed `class_calibration_stats`; NaN without pixels.

    That of class c is Σ_m n_m/n |share of class c - mean p_c| over its bins; the mean over classes is the class-wise
    error of Kull et al., Beyond temperature scaling, 2019, and the static calibration error of Nixon et al., Measuring
    Calibration in Deep Learning, 2019.
    """
    count = np.asarray(stats["count"], np.float64)
    gap = np.abs(np.asarray(stats["correct"], np.float64) - np.asarray(stats["confidence"], np.float64))
    pixels = count.sum(axis=-1)
    return np.where(pixels > 0, gap.sum(axis=-1) / np.maximum(pixels, 1), np.nan)
