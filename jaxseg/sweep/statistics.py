"""Mean, spread and paired differences over seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.special import stdtrit

LEVEL = 0.95


class Spread(NamedTuple):
    """Mean and standard deviation (with n - 1) of n numbers; NaN if there are too few."""

    mean: float
    deviation: float
    n: int


class Difference(NamedTuple):
    """Mean of n differences and the ends of its interval; NaN if there are too few."""

    mean: float
    low: float
    high: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Returns mean and sample standard deviation."""
    n = len(values)
    if n == 0:
        return Spread(math.nan, math.nan, 0)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else math.nan
    return Spread(mean, deviation, n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = LEVEL) -> Difference:
    """Returns the mean of a - b over the seeds that both have, with its t interval of `level`.

    The seed sets the order of the data and, for equal parameters, the initialisation, so the difference is taken seed
    by seed: d ± t_{n-1} s / √n, where d and s are the mean and the standard deviation of the n differences. They are
    assumed to be normal.

    Args:
        a: {seed: score}.
        b: {seed: score} of the baseline.
        level: probability that the interval holds the true difference.
    """
    mean, deviation, n = spread([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * deviation / math.sqrt(n) if n > 1 else math.nan
    return Difference(mean, mean - reach, mean + reach, n)
