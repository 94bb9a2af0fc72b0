"""Scores of objects, computed by hand and against an exhaustive matching."""

import itertools

import numpy as np
import pytest

from jaxseg.errors import ArgumentError
from jaxseg.inference.objects import (
    THRESHOLDS,
    ObjectTotal,
    find_overlaps,
    match,
    object_dict,
    object_scores,
    object_sums,
    object_table,
)


def bars(*spans, width=20):
    """i[1,width]: bar i + 1 at the columns of span i."""
    row = np.zeros((1, width), np.int32)
    for i, (start, stop) in enumerate(spans, 1):
        row[0, start:stop] = i
    return row


# IoUs: bar 1 8/10, bar 2 3/7, bar 3 none; the fourth of the prediction is none of the truth.
TRUTH, PREDICTION = bars((0, 10), (10, 15), (16, 18)), bars((0, 8), (12, 17), (18, 20))


def test_overlaps_by_hand():
    truth, prediction = TRUTH * 10, PREDICTION * 7  # numbers have gaps
    pairs = find_overlaps(truth, prediction)
    assert pairs.truth.tolist() == [10, 20, 30] and pairs.prediction.tolist() == [7, 14, 21]
    found = dict(zip(zip(pairs.rows.tolist(), pairs.columns.tolist()), pairs.iou.tolist()))
    assert found == {(0, 0): 8 / 10, (1, 1): 3 / 7, (2, 1): 1 / 6}


def test_scores_by_hand():
    total = ObjectTotal()
    total.add(TRUTH, PREDICTION)
    total.add(TRUTH, TRUTH)
    total.add(np.zeros((3, 3), np.int64), np.zeros((3, 3), np.int64))  # an image without objects counts nowhere
    scores = total.scores()
    assert (scores.truth, scores.predicted, scores.images) == (6, 6, 2)
    # At .5 to .8 the first image has one pair, two objects more and two fewer; above none.
    tp = np.array([4] * 7 + [3] * 3)
    np.testing.assert_allclose(scores.f1, tp / 6)
    np.testing.assert_allclose(scores.average_precision, tp / (12 - tp))
    np.testing.assert_allclose([scores.precision, scores.recall], [tp / 6] * 2)
    np.testing.assert_allclose(scores.matched_iou, [3.8 / 4] * 7 + [1] * 3)
    np.testing.assert_allclose(scores.panoptic_quality, [3.8 / 6] * 7 + [0.5] * 3)
    assert scores.mean_ap == pytest.approx((7 * 4 / 8 + 3 * 3 / 9) / 10)
    assert scores.mean_ap_by_image == pytest.approx((7 * (1 / 5 + 1) / 2 + 3 * (0 + 1) / 2) / 10)
    assert scores.at(0.75) == pytest.approx(4 / 6) and scores.at(0.9, "average_precision") == pytest.approx(1 / 3)
    with pytest.raises(ArgumentError, match="none of the thresholds"):
        scores.at(0.3)


def test_an_iou_at_the_threshold_is_a_hit():
    sums = object_sums(bars((0, 20)), bars((0, 11)))  # 11/20 = .55
    np.testing.assert_array_equal(sums["true_positives"], [1, 1] + [0] * 8)
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_two_halves_of_an_object_are_one_hit_at_most():
    sums = object_sums(bars((0, 10)), bars((0, 5), (5, 10)), thresholds=(0.5,))
    assert [float(sums[n][0]) for n in ("true_positives", "false_positives", "false_negatives")] == [1, 1, 0]


def test_the_matching_has_the_most_pairs_then_the_largest_sum():
    rng = np.random.default_rng(0)
    for _ in range(30):
        truth, prediction = (rng.integers(0, 4, (3, 4)) for _ in range(2))
        pairs, threshold = find_overlaps(truth, prediction), float(rng.choice([0.1, 0.2, 0.34]))
        chosen = match(pairs, threshold)
        good = [i for i, iou in enumerate(pairs.iou) if iou >= threshold]
        best = (0, 0.0)
        for size in range(1, len(good) + 1):
            for subset in map(list, itertools.combinations(good, size)):
                if len(set(pairs.rows[subset])) == len(set(pairs.columns[subset])) == size:
                    best = max(best, (size, float(pairs.iou[subset].sum())))
        assert len(set(pairs.rows[chosen])) == len(set(pairs.columns[chosen])) == len(chosen) == best[0]
        assert pairs.iou[chosen].sum() == pytest.approx(best[1])


def test_objects_match_inside_their_class():
    truth = bars((0, 10), (10, 20))
    right = object_sums(truth, truth, true_classes=np.array([1, 2]), predicted_classes=np.array([1, 2]))
    wrong = object_sums(truth, truth, true_classes=np.array([1, 2]), predicted_classes=np.array([1, 1]))
    assert right["true_positives"][0] == 2 and wrong["true_positives"][0] == 1 == wrong["false_negatives"][0]


def test_a_split_without_objects_has_no_scores():
    empty = np.zeros((2, 2), np.int64)
    scores = object_scores(object_sums(empty, empty))
    assert np.isnan(scores.f1).all() and np.isnan(scores.mean_ap) and scores.images == 0
    assert object_dict(scores)["mean_ap"] is None and "| -" in object_table(scores).replace("  ", " ")
    missed = object_scores(object_sums(TRUTH, 0 * TRUTH))
    assert missed.f1.tolist() == [0] * 10 == missed.panoptic_quality.tolist() and missed.truth == 3


def test_the_table_and_the_dictionary():
    scores = object_scores(object_sums(TRUTH, PREDICTION))
    lines = object_table(scores).splitlines()
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells == ["0.5", "33.33", "20.00", "33.33", "33.33", "80.00", "26.67"] and len(lines) == 13
    assert object_dict(scores)["f1"][0] == pytest.approx(1 / 3) and object_dict(scores)["truth"] == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_overlaps(TRUTH, PREDICTION[:, :3]), r"of one shape, got int32 of shape \[1, 20\]"),
        (lambda: find_overlaps(TRUTH * 1.0, PREDICTION), "hold whole numbers"),
        (lambda: find_overlaps(-TRUTH, PREDICTION), "at least 0"),
        (lambda: object_sums(TRUTH, PREDICTION, thresholds=(0.0,)), "above 0 and at most at 1, got 0.0"),
        (lambda: object_sums(TRUTH, PREDICTION, true_classes=np.ones(3)), "of both the true and the predicted"),
        (
            lambda: object_sums(TRUTH, PREDICTION, true_classes=np.ones(2), predicted_classes=np.ones(3)),
            "3 true and 3 predicted objects, but classes of 2 and 3",
        ),
    ],
)
def test_wrong_arguments_are_sentences(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
