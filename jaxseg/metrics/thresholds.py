"""Thresholds of one-vs-rest classes: the probability above which a class counts as there, chosen by its IoU.

A network with one sigmoid for each class says of each class alone whether it is there. The class is there where its
logit is above a threshold; one of 0 (a probability of a half) is best for accuracy, not for the IoU of a class that is
rare (Lipton et al., Thresholding Classifiers to Maximize F1 Score, 2014: the best threshold for F1 is half of the best
F1; IoU rises with F1, so that the same threshold is best for both). One pass over a split counts the pixels with and
without each class between `EDGES`, from which the IoU at every edge follows.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.sets import members
from jaxseg.types import Array

EDGES = tuple(float(np.float32(i / 10)) for i in range(-100, 101))
"""The thresholds of the logits that are tried: probabilities from 0.00005 to 0.99995, in steps of 0.1 of the logit."""

_HALF = len(EDGES) // 2  # the logit 0


def threshold_stats(logits: Array, labels: Array, *, multilabel: bool = False) -> jax.Array:
    """f[...,k], i[...] -> i32[k,2,202]: pixels without and with each class, by how many `EDGES` their logit is above.

    The sums add over batches; add them as int64 on the host. Pixels with labels outside the classes, including IGNORE,
    are left out. For k = 1 the class is 1. With `multilabel` labels are sets of classes (`jaxseg.sets`).

    Raises:
        ValueError: if the shapes disagree.
    """
    z, labels = jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.int32)
    if z.shape[:-1] != labels.shape:
        raise ValueError(f"Labels of shape {z.shape[:-1]} are needed, got {labels.shape}.")
    k, bins = z.shape[-1], len(EDGES) + 1
    edges = jnp.array(EDGES, jnp.float32)

    def count(of_class: tuple[jax.Array, jax.Array]) -> jax.Array:
        values, c = of_class
        above = jnp.searchsorted(edges, values.reshape(-1), side="left")
        if multilabel:
            there = jnp.take(members(labels, k), c, axis=-1)
            valid = there < 2
        else:
            there, valid = labels == c, (labels >= 0) & (labels < max(k, 2))
        cell = jnp.where(valid, there * bins, 2 * bins).reshape(-1) + jnp.where(valid.reshape(-1), above, 0)
        return jnp.zeros(2 * bins + 1, jnp.int32).at[cell].add(1)[:-1].reshape(2, bins)

    classes = jnp.arange(k, dtype=jnp.int32) if k > 1 else jnp.ones(1, jnp.int32)
    return jax.lax.map(count, (jnp.moveaxis(z, -1, 0), classes))  # one class at a time, to save memory


@dataclasses.dataclass(frozen=True, eq=False)
class Thresholds:
    """The best threshold of each class, f64[k]; NaN where no pixel decides.

    Attributes:
        logits: the thresholds of the logits, each one of `EDGES`. A class without pixels has 0.
        before: IoU of each class against all others at the logit 0.
        after: that at its threshold.
    """

    logits: np.ndarray
    before: np.ndarray
    after: np.ndarray


def best_thresholds(stats: Array) -> Thresholds:
    """Turns summed `threshold_stats` into the thresholds of the best IoU; of equal ones, the nearest to 0."""
    iou = _iou_at_edges(stats)
    distance = np.abs(np.arange(len(EDGES)) - _HALF)
    best = np.lexsort((np.broadcast_to(distance, iou.shape), -np.nan_to_num(iou, nan=-1.0)), axis=-1)[:, 0]
    absent = np.asarray(stats)[:, 1].sum(-1) == 0
    best = np.where(absent, _HALF, best)
    rows = np.arange(len(iou))
    return Thresholds(np.asarray(EDGES)[best], iou[:, _HALF], iou[rows, best])


def threshold_iou(stats: Array, logits: Sequence[float] | np.ndarray) -> np.ndarray:
    """The IoU f64[k] of each class against all others at the nearest of `EDGES` to a threshold of its logit."""
    nearest = np.abs(np.asarray(EDGES)[None] - np.asarray(logits, np.float64)[:, None]).argmin(-1)
    return _iou_at_edges(stats)[np.arange(len(nearest)), nearest]


def _iou_at_edges(stats: Array) -> np.ndarray:
    """i[k,2,202] -> f64[k,201], TP / (TP + FP + FN) of logits above each edge; NaN where nothing is there or found."""
    counts = np.asarray(stats, np.int64)
    above = counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]  # pixels whose logit is above edge j
    false, hit = above[:, 0], above[:, 1]
    union = counts[:, 1].sum(-1)[:, None] + false
    return np.where(union > 0, hit / np.maximum(union, 1), np.nan)
