"""How likely the label of each pixel, and of a whole image, is wrong, from the probabilities of a network.

All scores of an image are larger the more likely its label is wrong. `score`, by which images are ranked, is the
log-likelihood, in nats a pixel, that the label would gain by two corrections: giving every pixel that is confidently of
another class that class (`relabelling`), and shifting the mask as a whole (`shift`).
"""

from typing import NamedTuple

import numpy as np

from jaxseg.audit.confident import confident_classes
from jaxseg.audit.shift import Shift, best_shift
from jaxseg.types import IGNORE

LEAST = 1e-6
"""Probabilities below this count as this: a network is never so sure."""
MOST = 6.0
"""Log odds above this count as this, so that few pixels of which a network is very sure outweigh no region."""
TEMPERATURE = 0.1
"""Of the softmin over pixels; that of cleanlab."""


class PixelScores(NamedTuple):
    """The scores of the pixels of an image; those that are ignored have the scores of a right label.

    Attributes:
        probability: f32[h,w], of the class that the label gives.
        margin: f32[h,w], the largest probability of another class minus that.
        odds: f32[h,w], the logarithm of the ratio of these two.
        predicted: u8[h,w], the most probable class.
        doubted: u8[h,w], the class that a pixel confidently is, where the label has another; IGNORE elsewhere.
    """

    probability: np.ndarray
    margin: np.ndarray
    odds: np.ndarray
    predicted: np.ndarray
    doubted: np.ndarray

    @property
    def loss(self) -> np.ndarray:
        """f32[h,w], the cross-entropy."""
        return -np.log(self.probability)


class ImageScores(NamedTuple):
    """The scores of an image; the larger, the more likely its label is wrong.

    Attributes:
        score: relabelling + shift; images are ranked by it.
        relabelling: mean over the pixels of the log odds of those that are confidently of another class.
        shift: the log-likelihood that the best shift of the mask would gain, by pixel.
        down, right: that shift in pixels: by how much the mask would have to be moved.
        loss: mean cross-entropy.
        margin: mean of `PixelScores.margin`.
        softmin: 1 - the softmin over the pixels of the probability of the label.
        doubted: the share of pixels that are confidently of another class.
        disagreement: the share of pixels whose most probable class is another.
        gradient: the norm of the gradient of the mean cross-entropy with respect to the last layer; NaN if unknown.
        pixels: how many are labelled.
    """

    score: float
    relabelling: float
    shift: float
    down: int
    right: int
    loss: float
    margin: float
    softmin: float
    doubted: float
    disagreement: float
    gradient: float
    pixels: int


def all_classes(probabilities: np.ndarray) -> np.ndarray:
    """f[h,w,k] -> f32[h,w,max(k,2)] that sum to 1: both classes of a binary network; sigmoids made shares."""
    shares = np.asarray(probabilities, np.float32)
    if shares.shape[-1] == 1:
        return np.concatenate([1 - shares, shares], -1)
    return shares / np.maximum(shares.sum(-1, keepdims=True), LEAST)


def pixel_scores(probabilities: np.ndarray, label: np.ndarray, limits: np.ndarray) -> PixelScores:
    """Returns the scores of the pixels of an image.

    Args:
        probabilities: f32[h,w,k], k of at least 2, from `all_classes`.
        label: u8[h,w].
        limits: f64[k], from `confident.thresholds`.
    """
    seen = label != IGNORE
    given = np.where(seen, label, 0)[..., None].astype(np.int64)
    own = np.take_along_axis(probabilities, given, -1)[..., 0]
    others = probabilities.copy()
    np.put_along_axis(others, given, -1.0, -1)
    other = others.max(-1)
    odds = np.log(np.maximum(other, LEAST)) - np.log(np.maximum(own, LEAST))
    classes = confident_classes(probabilities, limits)
    return PixelScores(
        np.where(seen, np.maximum(own, LEAST), 1.0).astype(np.float32),
        np.where(seen, other - own, -1.0).astype(np.float32),
        np.where(seen, odds, np.log(LEAST)).astype(np.float32),
        probabilities.argmax(-1).astype(np.uint8),
        np.where(seen & (classes != label), classes, IGNORE).astype(np.uint8),
    )


def image_scores(
    pixels: PixelScores, probabilities: np.ndarray, label: np.ndarray, gradient: float = float("nan")
) -> ImageScores:
    """Returns the scores of an image from those of its pixels; see `pixel_scores` for the other arguments."""
    seen = label != IGNORE
    count = int(seen.sum())
    of = max(count, 1)
    own = pixels.probability[seen].astype(np.float64)
    doubted = pixels.doubted != IGNORE
    relabelling = float(np.clip(pixels.odds, 0, MOST)[doubted].sum(dtype=np.float64)) / of
    found = best_shift(probabilities, label) if count else Shift(0, 0, 0.0)
    return ImageScores(
        score=relabelling + found.gain,
        relabelling=relabelling,
        shift=found.gain,
        down=found.down,
        right=found.right,
        loss=float(-np.log(own).sum()) / of,
        margin=float(pixels.margin[seen].sum(dtype=np.float64)) / of if count else -1.0,
        softmin=1.0 - softmin(own),
        doubted=float(doubted.sum()) / of,
        disagreement=float((seen & (pixels.predicted != label)).sum()) / of,
        gradient=gradient,
        pixels=count,
    )


def softmin(values: np.ndarray, temperature: float = TEMPERATURE) -> float:
    """Returns the mean of values in [0, 1], weighted by exp((1 - value) / temperature); 1 if there is none."""
    if not values.size:
        return 1.0
    weights = np.exp((values.min() - values) / temperature)
    return float((values * weights).sum() / weights.sum())
