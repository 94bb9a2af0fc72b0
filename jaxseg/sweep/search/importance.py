"""How much each searched key matters: the share of the scores' ranks that it explains."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import kruskal

from jaxseg.sweep.search.plan import Study
from jaxseg.sweep.search.spaces import Choice, Space, place_of
from jaxseg.sweep.search.trials import Trial

GROUPS = 3


def explained(scores: Sequence[float], groups: Sequence[int]) -> float:
    """Returns the share in [0, 1] of the variance of the scores' ranks that lies between groups; NaN of too few.

    η² = (H - g + 1) / (n - g), with the H of Kruskal and Wallis of n scores in g groups (Tomczak and Tomczak 2014, The
    need to report effect size, section 4), and 0 for a negative one: chance alone gives 0 on average. A score that is
    best in the middle of a range counts in full, as a correlation does not see it.

    Args:
        scores: of each trial.
        groups: of each trial; see `thirds`.
    """
    names = sorted(set(groups))
    n, g = len(scores), len(names)
    if g < 2 or n <= g + 1:
        return math.nan
    if len(set(scores)) == 1:
        return 0.0
    h = float(kruskal(*([score for score, group in zip(scores, groups) if group == name] for name in names)).statistic)
    return max((h - g + 1) / (n - g), 0.0)


def thirds(space: Space, places: Sequence[float]) -> list[int]:
    """Returns the group of each trial: its choice, or the third of the trials by value that it lies in."""
    if isinstance(space, Choice) or len(set(places)) <= GROUPS:
        return [int(place) if isinstance(space, Choice) else sorted(set(places)).index(place) for place in places]
    bounds = np.quantile(np.asarray(places), [i / GROUPS for i in range(1, GROUPS)])
    return [int(group) for group in np.searchsorted(bounds, np.asarray(places), side="left")]


def ranked(study: Study, trials: Sequence[Trial]) -> dict[str, float]:
    """Returns {key: explained share} over the trials that are complete or diverged, the latter as a score of 0."""
    result = {}
    for key, space in study.spaces.items():
        judged = []
        for trial in trials:
            place = place_of(space, study.value(trial.values, key))
            if trial.worth is not None and place is not None:
                judged.append((place, trial.worth))
        places, scores = [place for place, _ in judged], [score for _, score in judged]
        result[key] = explained(scores, thirds(space, places))
    return result
