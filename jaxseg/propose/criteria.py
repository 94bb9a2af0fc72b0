"""What a look at an image is worth, as pure functions: how unsure a network is of it, and how it differs from others.

Scores of one image take its probabilities f[h,w,k] and are larger, the more a look is worth. With one sigmoid for each
class (`one_vs_rest`) the classes are yes-or-no questions of their own, and k = 1 is the one question of a binary
network. Orders take one row for each image.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jaxseg import metrics
from jaxseg.errors import ArgumentError, counted


class Chosen(NamedTuple):
    """Images in the order in which they were chosen.

    Attributes:
        indices: i64[m], rows of the images.
        distances: f64[m], the distance of each to the nearest image chosen before it, or given as a centre; NaN for the
            first without centres.
    """

    indices: np.ndarray
    distances: np.ndarray


def entropy(probabilities: np.ndarray, *, one_vs_rest: bool = False) -> float:
    """Returns the mean over pixels of the entropy of the classes, in nats.

    Settles, Active Learning Literature Survey, 2009, section 3.1 (entropy), with a pixel as an example.
    """
    return float(np.mean(np.asarray(metrics.entropy(probabilities, one_vs_rest=one_vs_rest)), dtype=np.float64))


def margin(probabilities: np.ndarray, *, one_vs_rest: bool = False) -> float:
    """Returns the mean over pixels of 1 - (the largest probability - the second largest), in [0, 1].

    Scheffer, Decomain and Wrobel, Active Hidden Markov Models for Information Extraction, 2001, with a pixel as an
    example. A yes-or-no question has the two probabilities p and 1 - p; of several questions the mean is taken.
    """
    p = np.asarray(probabilities, np.float64)
    if one_vs_rest or p.shape[-1] == 1:
        return float(np.mean(1.0 - np.abs(2.0 * p - 1.0)))
    second, first = np.moveaxis(np.partition(p, (-2, -1), axis=-1)[..., -2:], -1, 0)
    return float(np.mean(1.0 - (first - second)))


def mutual_information(members: Iterable[np.ndarray], *, one_vs_rest: bool = False) -> float:
    """Returns the mean over pixels of H[mean p] - mean H[p] over members, in nats: how much they disagree (BALD).

    Houlsby et al., Bayesian Active Learning for Classification and Preference Learning, 2011, eq. 2; with draws of
    dropout as members: Gal, Islam and Ghahramani, Deep Bayesian Active Learning with Image Data, 2017, section 3.

    Args:
        members: the probabilities f32[h,w,k] of each; one at a time is in memory.
        one_vs_rest: see the head of this module.

    Raises:
        ArgumentError: if there is no member.
    """
    total = None
    for member in members:
        sums = metrics.member_sums(member, one_vs_rest=one_vs_rest)
        total = sums if total is None else {name: total[name] + value for name, value in sums.items()}
    if total is None:
        raise ArgumentError("The mutual information needs the probabilities of at least one member.")
    found = metrics.uncertainty(total, one_vs_rest=one_vs_rest)
    return float(np.mean(np.asarray(found.mutual_information), dtype=np.float64))


def core_set(features: np.ndarray, count: int, centres: np.ndarray | None = None) -> Chosen:
    """Returns images that cover all of them: each is the one farthest from those before it (k-centre greedy).

    Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, 2018, algorithm 1. Its
    largest distance from an image to the nearest chosen one is at most twice the smallest possible. Without centres
    the first is the image nearest to the mean of all. Of equal ones the first is taken.

    Args:
        features: f[n,d], of the images to choose from.
        count: how many are chosen, at most n.
        centres: f[m,d], of images that are labelled already.

    Raises:
        ArgumentError: for a count or shapes that do not fit.
    """
    rows = _rows(features, count, centres)
    if centres is None or not len(centres):
        first = int(_squares(rows, rows.mean(0)).argmin())
        nearest, chosen, distances = _squares(rows, rows[first]), [first], [np.nan]
    else:
        nearest, chosen, distances = _nearest(rows, centres), [], []
    free = np.ones(len(rows), bool)
    free[chosen] = False
    while len(chosen) < count:
        i = int(np.where(free, nearest, -1.0).argmax())
        chosen.append(i)
        distances.append(float(np.sqrt(nearest[i])))
        free[i] = False
        nearest = np.minimum(nearest, _squares(rows, rows[i]))
    return Chosen(np.array(chosen[:count], np.int64), np.array(distances[:count]))


def badge(embeddings: np.ndarray, count: int, seed: int, centres: np.ndarray | None = None) -> Chosen:
    """Returns images whose gradients are long and differ, drawn as the seeds of k-means++.

    Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds, 2020, algorithm 1; the seeds:
    Arthur and Vassilvitskii, k-means++, 2007, section 2.2. Each image is drawn with a probability in proportion to its
    squared distance from the nearest one before it. Without centres the first is that of the longest gradient, as in
    the authors' experiments.

    Args:
        embeddings: f[n,d], the gradient of the last layer for each image, see `embeddings.gradients`.
        count: how many are chosen, at most n.
        seed: of the draws.
        centres: f[m,d], of images that are labelled already.

    Raises:
        ArgumentError: for a count or shapes that do not fit.
    """
    rows, rng = _rows(embeddings, count, centres), np.random.default_rng(seed)
    if centres is None or not len(centres):
        first = int(np.square(rows).sum(-1).argmax())
        nearest, chosen, distances = _squares(rows, rows[first]), [first], [np.nan]
    else:
        nearest, chosen, distances = _nearest(rows, centres), [], []
    free = np.ones(len(rows), bool)
    free[chosen] = False
    while len(chosen) < count:
        weights = np.where(free, nearest, 0.0)
        weights = weights if weights.sum() > 0 else free.astype(np.float64)  # all that are left equal a chosen one
        i = int(rng.choice(len(rows), p=weights / weights.sum()))
        chosen.append(i)
        distances.append(float(np.sqrt(nearest[i])))
        free[i] = False
        nearest = np.minimum(nearest, _squares(rows, rows[i]))
    return Chosen(np.array(chosen[:count], np.int64), np.array(distances[:count]))


def _rows(rows: np.ndarray, count: int, centres: np.ndarray | None) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or not 0 <= count <= len(rows):
        raise ArgumentError(
            f"{counted(count, 'image')} cannot be chosen from features of shape {rows.shape}; give [n,d] and a count "
            "of at most n."
        )
    if centres is not None and len(centres) and np.asarray(centres).shape[1:] != rows.shape[1:]:
        raise ArgumentError(f"The centres have the shape {np.asarray(centres).shape}, and the features {rows.shape}.")
    return rows if len(rows) else np.zeros((0, 1))


def _squares(rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Returns f64[n], the squared distance of each row to a centre."""
    return np.square(rows - centre).sum(-1)


def _nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Returns f64[n], the squared distance of each row to its nearest centre; one centre at a time is in memory."""
    nearest = np.full(len(rows), np.inf)
    for centre in np.asarray(centres, np.float64):
        nearest = np.minimum(nearest, _squares(rows, centre))
    return nearest
