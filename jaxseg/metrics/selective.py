"""Does the uncertainty find the errors? Risk by coverage, and error detection, from a histogram that adds over images.

A score of each pixel, larger where it is less sure, orders the pixels of a split. If a person looks at the least sure
pixels and leaves the rest to the network, the share of pixels that are left is the coverage, and the share of these
that are wrong is the risk.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics.formatting import plain
from jaxseg.types import Array

BINS = 2048
_OCTAVES = 24.0  # scores below 2^-24 of the largest are in the first bin; a bin is .8 % wide


def selective_stats(
    score: Array, predicted: Array, labels: Array, *, largest: float, classes: int, bins: int = BINS
) -> dict[str, jax.Array]:
    """The pixels by score, i32[bins] of those that are right and of those that are wrong; they add over batches.

    The bins are equally wide in the logarithm of the score, since most pixels of a good network have a score near 0.
    Add them as int64 on the host. Pixels with labels outside 0..k-1, including IGNORE, are left out.

    Args:
        score: f[...], at least 0, larger where the network is less sure, such as an entropy.
        predicted: i[...], the class of each pixel.
        labels: i[...], the true class.
        largest: the largest value that the score can have.
        classes: k; 1 means 2.
        bins: how many.

    Raises:
        ValueError: if the shapes disagree.
    """
    score, labels = jnp.asarray(score, jnp.float32), jnp.asarray(labels, jnp.int32)
    if not score.shape == predicted.shape == labels.shape:
        raise ValueError(f"One shape is needed, got {score.shape}, {predicted.shape} and {labels.shape}.")
    valid = (labels >= 0) & (labels < max(classes, 2))
    depth = -jnp.log2(jnp.maximum(score / largest, 2.0**-_OCTAVES)) / _OCTAVES  # 1 for the surest
    place = jnp.clip(jnp.floor((1.0 - depth) * bins).astype(jnp.int32), 0, bins - 1)
    place = jnp.where(valid, place, bins).ravel()
    wrong = (predicted != labels).ravel()
    empty = jnp.zeros(bins + 1, jnp.int32)
    return {
        "right": empty.at[place].add((~wrong).astype(jnp.int32))[:bins],
        "wrong": empty.at[place].add(wrong.astype(jnp.int32))[:bins],
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Selective:
    """What the summed bins say; the arrays are f64[n], one point for each bin that holds pixels, the surest first.

    coverage: the share of the pixels that are at least as sure as those of the bin.
    risk: the share of these that are wrong.
    area: the area under risk by coverage (AURC), the mean risk over all coverages: Geifman, Uziel & El-Yaniv,
        Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, 2019, after Geifman & El-Yaniv, Selective
        Classification for Deep Neural Networks, 2017. Inside a bin it is the mean over all orders of its pixels.
    least_area: that of the best order, all right pixels before all wrong ones.
    excess_area: `area` - `least_area` (E-AURC, the same paper).
    auroc: the probability that a wrong pixel has a larger score than a right one, equal ones counting half; NaN if all
        pixels are right or all are wrong.
    errors: the share of all pixels that are wrong, the risk at full coverage.
    """

    coverage: np.ndarray
    risk: np.ndarray
    area: float
    least_area: float
    excess_area: float
    auroc: float
    errors: float

    def risk_at(self, coverage: float) -> float:
        """The risk at a coverage in (0, 1], on the line between the points around it; NaN without pixels."""
        return float(np.interp(coverage, self.coverage, self.risk)) if len(self.coverage) else float("nan")


def selective(stats: Mapping[str, Array]) -> Selective:
    """Turns summed `selective_stats` into `Selective`."""
    right, wrong = (np.asarray(stats[name], np.int64) for name in ("right", "wrong"))
    filled = right + wrong > 0
    right, wrong = right[filled].astype(np.float64), wrong[filled].astype(np.float64)
    if not len(right):
        nan = float("nan")
        return Selective(right, wrong, nan, nan, nan, nan, nan)
    size = right + wrong
    seen, errors = np.cumsum(size), np.cumsum(wrong)
    n, e = seen[-1], errors[-1]
    # In a bin after N pixels with E errors, the j-th of b pixels has on average the risk (E + j w / b) / (N + j).
    before, share = seen - size, wrong / size
    area = np.sum(wrong + (errors - wrong - before * share) * (_harmonic(seen) - _harmonic(before))) / n
    least = (e - (n - e) * float(_harmonic(n) - _harmonic(n - e))) / n
    pairs = right * (e - errors) + right * wrong / 2
    auroc = float(pairs.sum() / (e * (n - e))) if 0 < e < n else float("nan")
    return Selective(seen / n, errors / seen, float(area), float(least), float(area - least), auroc, float(e / n))


def _harmonic(n: np.ndarray | float) -> np.ndarray:
    """1 + 1/2 + ... + 1/n, f64: exactly below 64, and by Euler and Maclaurin's series above, to 1e-15."""
    n = np.asarray(n, np.float64)
    exact = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, 65))])
    large = np.maximum(n, 64.0)
    series = np.log(large) + np.euler_gamma + 1 / (2 * large) - 1 / (12 * large**2) + 1 / (120 * large**4)
    return np.where(n < 64, exact[np.minimum(n, 64).astype(int)], series)


def selective_dict(result: Selective) -> dict[str, Any]:
    """The numbers in the types of JSON, with None for NaN, and the risk at ten coverages."""
    names = ("area", "least_area", "excess_area", "auroc", "errors")
    at = {f"{tenth / 10:g}": plain(result.risk_at(tenth / 10)) for tenth in range(1, 11)}
    return {name: plain(getattr(result, name)) for name in names} | {"risk_at_coverage": at}
