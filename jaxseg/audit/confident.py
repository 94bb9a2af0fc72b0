"""Confident learning: how many labels of each class belong to another, and which (Northcutt, Jiang and Chuang 2021).

"Confident Learning: Estimating Uncertainty in Dataset Labels", Journal of Artificial Intelligence Research 70, section
3.1, with a pixel as an example. The probabilities should come from a network that was not trained on the image. Every
function takes one image; sums over images add.
"""

from typing import NamedTuple

import numpy as np

from jaxseg.types import IGNORE


class ClassSums(NamedTuple):
    """Sums over the pixels that have each class as their label.

    Attributes:
        probability: f64[k], of the probability of that class.
        pixels: i64[k], how many there are.
    """

    probability: np.ndarray
    pixels: np.ndarray

    def __add__(self, other: "ClassSums") -> "ClassSums":  # type: ignore[override]
        return ClassSums(self.probability + other.probability, self.pixels + other.pixels)


def class_sums(probabilities: np.ndarray, label: np.ndarray) -> ClassSums:
    """Returns the sums of one image, f[h,w,k] and u8[h,w]; ignored pixels are left out."""
    k = probabilities.shape[-1]
    seen = label != IGNORE
    given = label[seen].astype(np.int64)
    own = probabilities[seen][np.arange(given.size), given]
    return ClassSums(np.bincount(given, own, minlength=k), np.bincount(given, minlength=k))


def thresholds(sums: ClassSums) -> np.ndarray:
    """Returns t f64[k], the mean probability of a class over the pixels labelled as it (equation 2).

    It is infinite for a class that labels no pixel: nothing is confidently of it.
    """
    return np.where(sums.pixels > 0, sums.probability / np.maximum(sums.pixels, 1), np.inf)


def confident_classes(probabilities: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Returns u8[h,w], the class that each pixel confidently is; IGNORE where it is none.

    It is the most probable of the classes whose probability reaches their threshold (equation 1).

    Args:
        probabilities: f[h,w,k].
        limits: f64[k], from `thresholds`.
    """
    among = np.where(probabilities >= limits, probabilities, -1.0)
    best = among.argmax(-1)
    reached = np.take_along_axis(among, best[..., None], -1)[..., 0] >= 0
    return np.where(reached, best, IGNORE).astype(np.uint8)


def confident_counts(classes: np.ndarray, label: np.ndarray, k: int) -> np.ndarray:
    """Returns the confident joint of one image, i64[k,k]: pixels of each label (row) that are each class (column)."""
    counted = (label != IGNORE) & (classes != IGNORE)
    pairs = label[counted].astype(np.int64) * k + classes[counted]
    return np.bincount(pairs, minlength=k * k).reshape(k, k)


def joint(counts: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Returns the estimated joint distribution of labels (rows) and true classes (columns), f64[k,k] (equation 3).

    The rows are scaled to the share of the pixels with that label. The sum off the diagonal is the estimated share of
    wrong labels.

    Args:
        counts: i64[k,k], the sum of `confident_counts`.
        pixels: i64[k], the pixels of each label.
    """
    rows = counts.sum(1, keepdims=True)
    # A label of which no pixel is confidently anything is taken as right.
    shares = np.where(rows > 0, counts / np.maximum(rows, 1), np.eye(len(counts)))
    scaled = shares * pixels[:, None]
    return scaled / max(scaled.sum(), 1)
