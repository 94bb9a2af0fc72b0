"""What a report says of images: objects by size by hand, scores of images, and which are shown."""

import numpy as np
import pytest

from jaxseg.metrics import scores
from jaxseg.metrics.intervals import image_counts
from jaxseg.report.collecting import (
    Objects,
    Spool,
    around_median,
    image_scores,
    in_image,
    of_class,
    worst,
    wrong_shares,
)


def matrices():
    random = np.random.default_rng(0)
    made = random.integers(0, 30, (5, 3, 3))
    made[1, 2], made[1, :, 2] = 0, 0  # a class that is neither true nor predicted
    made[3] = 0  # an image without labels
    return made


def test_objects_by_hand():
    truth, prediction = np.zeros((2, 8, 8), np.uint8)
    truth[0, 0] = truth[1, 1] = truth[2, 2] = 1  # three pixels that touch at their corners: one object
    truth[4:8, 4:8] = 1  # sixteen pixels
    truth[0, 7] = 255
    prediction[0, 0] = 1
    prediction[4:8, 4:6] = 1
    found = Objects.none(2)
    found.add(truth, prediction)
    assert found.count[1].tolist()[:6] == [0, 1, 0, 0, 1, 0]  # of 2 to 3 pixels, and of 16 to 31
    assert found.recall[1, 1] == pytest.approx(1 / 3) and found.recall[1, 4] == pytest.approx(8 / 16)
    assert found.found[1, 1] == 0 and found.found[1, 4] == 1  # a half is found
    background = 64 - 3 - 16 - 1
    assert found.count[0].sum() == 1 and found.count[0, int(np.log2(background))] == 1
    found.add(truth, prediction)
    assert found.count[1].sum() == 4


def test_scores_of_images_are_those_of_their_own_matrix():
    counts, made = image_counts(matrices()), matrices()
    expected = [scores(matrix).mean_iou for matrix in made]
    np.testing.assert_allclose(image_scores(counts), expected)
    assert np.isnan(expected[3])
    wrong = [np.nan if not m.sum() else 1 - np.trace(m) / m.sum() for m in made]
    np.testing.assert_allclose(wrong_shares(counts), wrong)
    images, iou = of_class(counts, 2)
    assert images.tolist() == [0, 2, 4]
    np.testing.assert_allclose(iou, [scores(made[i]).iou[2] for i in images])
    held, iou = in_image(counts, 1)
    assert held.tolist() == [0, 1]
    np.testing.assert_allclose(iou, scores(made[1]).iou[:2])


def test_the_worst_and_those_around_the_median():
    values = np.array([0.5, np.nan, 0.1, 0.9, 0.1, 0.7])
    assert worst(values, 3) == [2, 4, 0] and worst(values, 99) == [2, 4, 0, 5, 3]
    assert around_median(values, 1) == [0] and around_median(values, 3) == [4, 0, 5]


def test_maps_come_back_from_the_disk():
    spool, random = Spool(), np.random.default_rng(0)
    maps = {i: random.integers(0, 300, (3 + i, 4)).astype(kind) for i, kind in enumerate((np.uint8, np.uint16) * 2)}
    for i in (2, 0, 3, 1):
        spool.add(i, maps[i])
    for i, each in maps.items():
        assert np.array_equal(spool[i], each) and spool[i].dtype == each.dtype
