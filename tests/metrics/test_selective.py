"""Risk by coverage and the detection of errors, against exact orders in NumPy."""

import numpy as np
import pytest

from jaxseg.metrics import selective, selective_dict, selective_stats
from jaxseg.types import IGNORE


def exact(score, wrong):
    """(AURC, least AURC, AUROC) of scores without ties, in float64."""
    order = np.argsort(score)
    n = len(score)
    area = np.mean(np.cumsum(wrong[order]) / np.arange(1, n + 1))
    least = np.mean(np.cumsum(np.sort(wrong)) / np.arange(1, n + 1))
    ranks = np.empty(n)
    ranks[order] = np.arange(1, n + 1)
    bad = wrong.sum()
    return area, least, (ranks[wrong].sum() - bad * (bad + 1) / 2) / (bad * (n - bad))


def example(n=4000, seed=0):
    """(score, predicted, labels, wrong): sure pixels have scores near 0 and are seldom wrong."""
    rng = np.random.default_rng(seed)
    score = (10.0 ** rng.uniform(-6, 0, n)).astype(np.float32)
    wrong = rng.random(n) < 0.3 * score**0.25
    labels = rng.integers(0, 3, n)
    return score, np.where(wrong, (labels + 1) % 3, labels), labels, wrong


def test_the_areas_are_those_of_the_exact_order():
    score, predicted, labels, wrong = example()
    found = selective(selective_stats(score, predicted, labels, largest=1.0, classes=3))
    area, least, auroc = exact(score.astype(np.float64), wrong)
    assert found.area == pytest.approx(area, rel=1e-3) and found.auroc == pytest.approx(auroc, abs=2e-4)
    assert found.least_area == pytest.approx(least, rel=1e-9)
    assert found.excess_area == pytest.approx(area - least, rel=2e-3) and found.errors == pytest.approx(wrong.mean())
    assert found.coverage[-1] == 1 and found.risk[-1] == found.errors and (np.diff(found.coverage) > 0).all()
    order = np.argsort(score)
    assert found.risk_at(0.5) == pytest.approx(wrong[order][:2000].mean(), rel=0.02)


def test_by_hand_with_ties():
    # Two pixels of score 0, one wrong; one right of .5; one wrong of 1.
    labels = np.array([0, 0, 0, 0, IGNORE])
    stats = selective_stats(np.array([0, 0, 0.5, 1, 1]), np.array([0, 1, 0, 1, 1]), labels, largest=1.0, classes=1)
    found = selective(stats)
    np.testing.assert_allclose(found.coverage, [0.5, 0.75, 1])
    np.testing.assert_allclose(found.risk, [1 / 2, 1 / 3, 1 / 2])
    # Of the two tied pixels the wrong one comes first or second: the risk after one is 1/2 on average.
    assert found.area == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found.least_area == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    # The pairs (wrong, right): (0, 0) ties, (0, .5) is lost, (1, 0) and (1, .5) are won.
    assert found.auroc == pytest.approx(2.5 / 4)


def test_sums_add_over_batches():
    score, predicted, labels, _ = example()
    whole = selective_stats(score, predicted, labels, largest=1.0, classes=3)
    halves = [
        selective_stats(score[part], predicted[part], labels[part], largest=1.0, classes=3)
        for part in (slice(0, 2000), slice(2000, 4000))
    ]
    for name, counts in whole.items():
        np.testing.assert_array_equal(counts, halves[0][name] + halves[1][name])


def test_a_split_without_errors_and_one_without_pixels():
    none = np.zeros(3, int)
    right = selective(selective_stats(np.ones(3), none, none, largest=2.0, classes=2))
    assert right.area == right.least_area == right.errors == 0 and np.isnan(right.auroc)
    empty = selective(selective_stats(np.ones(3), none, none + IGNORE, largest=2.0, classes=2))
    assert np.isnan(empty.area) and np.isnan(empty.risk_at(0.5))
    assert selective_dict(empty)["area"] is None and set(selective_dict(right)["risk_at_coverage"].values()) == {0.0}
    with pytest.raises(ValueError, match="One shape is needed"):
        selective_stats(np.ones(3), none, none[:2], largest=1.0, classes=2)
