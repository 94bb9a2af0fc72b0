"""The intervals that an evaluation and a comparison give."""

import numpy as np
import pytest

from jaxseg.inference.image_totals import difference_of, gain_of, interval_of
from jaxseg.metrics.intervals import grouped, image_counts, iou_and_mean, paired_interval


def test_a_class_of_fewer_than_two_images_has_no_interval_alone_or_paired():
    ours = np.zeros((8, 3, 3), np.int64)
    ours[:, :2, :2] = np.random.default_rng(0).integers(2, 20, (8, 2, 2))
    ours[0, 2] = (1, 2, 3)  # class 2 is true in the first image alone
    others = ours.copy()
    others[0, 2] = (3, 2, 1)
    others[1:, 0, 0] -= 1
    others[1:, 0, 2] += 1  # and the second network predicts it in all
    a, b = image_counts(ours), image_counts(others)
    assert np.isnan([interval_of(a).low[2], interval_of(a).high[2]]).all()
    assert not np.isnan(interval_of(b).low).any()
    paired, found = paired_interval(b, a, iou_and_mean), difference_of(b, a)
    assert not np.isnan(paired.low).any()
    np.testing.assert_array_equal(np.isnan(found.low), [False, False, True, False])
    known = [0, 1, 3]
    np.testing.assert_array_equal([found.low[known], found.high[known]], [paired.low[known], paired.high[known]])
    np.testing.assert_array_equal(found.value, paired.value)
    assert gain_of(b, a) == (found.low[3], found.high[3])
    groups = ["p", "p", "p", "p", "q", "q", "q", "q"]
    of_groups = paired_interval(grouped(b, groups), grouped(a, groups), iou_and_mean)
    assert gain_of(b, a, groups) == pytest.approx((of_groups.low[3], of_groups.high[3]), abs=0)
