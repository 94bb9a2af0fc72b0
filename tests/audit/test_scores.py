"""Confident learning, the scores of images and regions, and shifts, against values computed by hand."""

import math

import numpy as np
import pytest

from jaxseg.audit.confident import class_sums, confident_classes, confident_counts, joint, thresholds
from jaxseg.audit.regions import find_doubts, overlap, suggested_label
from jaxseg.audit.scores import MOST, all_classes, image_scores, pixel_scores, softmin
from jaxseg.audit.shift import best_shift
from jaxseg.types import IGNORE


def drawn(seed, shape=(12, 15), k=4):
    """Probabilities f32[h,w,k] of a network that is right in most places, and labels with ignored pixels."""
    rng = np.random.default_rng(seed)
    label = np.kron(rng.integers(0, k, (3, 3)), np.ones((4, 5), int)).astype(np.uint8)
    logits = 2.0 * np.eye(k)[label] + rng.normal(size=(*shape, k))
    label[0, :3] = IGNORE
    label[5, 5:9] = rng.integers(0, k, 4)
    shares = np.exp(logits)
    return (shares / shares.sum(-1, keepdims=True)).astype(np.float32), label


def test_thresholds_counts_and_joint_are_those_of_the_paper():
    """Every equation of section 3.1, pixel by pixel."""
    k, images = 4, [drawn(seed) for seed in range(3)]
    pixels = [
        (p[y, x], label[y, x]) for p, label in images for y, x in np.ndindex(label.shape) if label[y, x] != IGNORE
    ]
    t = [np.mean([p[j] for p, given in pixels if given == j], dtype=np.float64) for j in range(k)]
    counts = np.zeros((k, k), int)
    for p, given in pixels:
        reached = [j for j in range(k) if p[j] >= t[j]]
        if reached:
            counts[given, max(reached, key=lambda j: p[j])] += 1
    of_label = np.array([sum(given == j for _, given in pixels) for j in range(k)])
    expected = counts / counts.sum(1, keepdims=True) * of_label[:, None]

    first, *others = [class_sums(p, label) for p, label in images]
    sums = first + others[0] + others[1]
    limits = thresholds(sums)
    found = sum(confident_counts(confident_classes(p, limits), label, k) for p, label in images)
    np.testing.assert_allclose(limits, t, rtol=1e-6)
    np.testing.assert_array_equal(found, counts)
    np.testing.assert_allclose(joint(found, sums.pixels), expected / expected.sum(), rtol=1e-6)
    assert 0 < np.trace(joint(found, sums.pixels)) < 1


def test_a_class_without_labels_is_never_confident():
    p = np.array([[[0.1, 0.9], [0.2, 0.8]]], np.float32)
    sums = class_sums(p, np.zeros((1, 2), np.uint8))
    assert np.isinf(thresholds(sums)[1]) and thresholds(sums)[0] == pytest.approx(0.15)
    np.testing.assert_array_equal(confident_classes(p, thresholds(sums)), [[IGNORE, 0]])
    np.testing.assert_array_equal(joint(np.zeros((2, 2), int), np.array([3, 1])), [[0.75, 0], [0, 0.25]])


def test_scores_of_an_image_are_those_computed_by_hand():
    p = np.array([[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0]]], np.float32)
    label = np.array([[0, 0, 2, IGNORE]], np.uint8)
    pixels = pixel_scores(p, label, np.array([0.5, 0.5, 0.5]))
    np.testing.assert_array_equal(pixels.doubted, [[IGNORE, 1, IGNORE, IGNORE]])
    np.testing.assert_allclose(pixels.margin[0, :3], [-0.5, 0.7, -0.1], atol=1e-6)
    np.testing.assert_allclose(pixels.odds[0, 1], math.log(8), rtol=1e-5)
    found = image_scores(pixels, p, label)
    assert found.pixels == 3 and found.doubted == pytest.approx(1 / 3) and found.disagreement == pytest.approx(1 / 3)
    assert found.loss == pytest.approx(-math.log(0.7 * 0.1 * 0.4) / 3, rel=1e-5)
    assert found.relabelling == pytest.approx(math.log(8) / 3, rel=1e-5) and math.isnan(found.gradient)
    weights = [math.exp((1 - v) / 0.1) for v in (0.7, 0.1, 0.4)]
    by_hand = sum(w * v for w, v in zip(weights, (0.7, 0.1, 0.4))) / sum(weights)
    assert found.softmin == pytest.approx(1 - by_hand, rel=1e-5)
    assert found.score == found.relabelling + found.shift
    sure = np.array([[[1.0, 0.0]] * 2], np.float32)
    odds = pixel_scores(sure, np.ones((1, 2), np.uint8), np.array([0.5, 0.5]))
    assert image_scores(odds, sure, np.ones((1, 2), np.uint8)).relabelling == MOST


def test_softmin_is_that_of_cleanlab():
    rank = pytest.importorskip("cleanlab.segmentation.rank")
    p, label = drawn(3)
    label[label == IGNORE] = 0
    quality, _ = rank.get_label_quality_scores(label[None].astype(int), p.transpose(2, 0, 1)[None], verbose=False)
    own = np.take_along_axis(p, label[..., None].astype(int), -1)
    assert softmin(own.astype(np.float64)) == pytest.approx(quality[0], rel=1e-6)


def test_a_binary_network_has_both_classes_and_sigmoids_become_shares():
    np.testing.assert_allclose(all_classes(np.array([[[0.3]]])), [[[0.7, 0.3]]], rtol=1e-6)
    np.testing.assert_allclose(all_classes(np.array([[[0.6, 0.2, 0.4]]])), [[[0.5, 1 / 6, 1 / 3]]], rtol=1e-6)


@pytest.mark.parametrize("moved", [(3, 0), (-2, 4), (0, -1)])
def test_a_shift_is_found_and_gains_what_a_sum_over_pixels_does(moved):
    h, w, (down, right) = 40, 52, moved
    truth = np.zeros((h, w), np.uint8)
    truth[12:24, 15:30], truth[26:33, 20:40] = 1, 2
    p = np.full((h, w, 3), 0.05, np.float32) + 0.85 * np.eye(3, dtype=np.float32)[truth]
    label = np.roll(truth, (down, right), (0, 1))
    label[:2, :5] = IGNORE
    found = best_shift(p, label)
    assert (found.down, found.right) == (-down, -right)
    logs, total = np.log(p.astype(np.float64)), 0.0
    for y, x in np.ndindex(h, w):
        if 0 <= y + down < h and 0 <= x + right < w and IGNORE not in (label[y, x], label[y + down, x + right]):
            total += logs[y, x, label[y + down, x + right]] - logs[y, x, label[y, x]]
    assert found.gain == pytest.approx(total / (label != IGNORE).sum(), rel=1e-6)
    assert best_shift(p, truth) == (0, 0, 0.0)


def test_a_large_image_is_thinned_before_it_is_shifted():
    truth = np.kron(np.random.default_rng(0).integers(0, 2, (10, 10)), np.ones((60, 60))).astype(np.uint8)
    p = np.full((600, 600, 2), 0.1, np.float32) + 0.8 * np.eye(2, dtype=np.float32)[truth]
    found = best_shift(p, np.roll(truth, (9, 0), (0, 1)))
    assert (found.down, found.right) == (-9, 0)


def test_regions_are_components_of_doubt_and_objects_of_the_label():
    label = np.zeros((20, 24), np.uint8)
    label[2:8, 2:8], label[10:18, 4:12] = 1, 1
    p = np.full((20, 24, 3), 0.02, np.float32) + 0.94 * np.eye(3, dtype=np.float32)[label]
    p[2:8, 2:8] = [0.02, 0.02, 0.96]  # another class
    p[10:18, 4:12] = [0.5, 0.45, 0.05]  # hardly an object
    p[3:9, 14:20] = [0.1, 0.88, 0.02]  # an object that is missing
    p[15, 20] = [0.0, 0.98, 0.02]  # too small
    pixels = pixel_scores(p, label, np.array([0.7, 0.7, 0.7]))
    found = find_doubts(pixels, p, label)
    assert [(d.kind, d.given, d.suggested, d.area) for d in found] == [
        ("object", 1, 2, 36),
        ("pixels", 0, 1, 36),
        ("object", 1, 0, 64),
    ]
    first, second, third = found
    assert (first.top, first.left, first.bottom, first.right) == (2, 2, 8, 8)  # once, though its pixels are doubted too
    assert first.score == pytest.approx(6 * math.log(0.96 / 0.02), rel=1e-4)
    assert second.probability == pytest.approx(0.1, rel=1e-5)
    assert third.score == pytest.approx(8 * math.log(0.5 / 0.45), rel=1e-4)
    assert overlap(first, first) == 1 and overlap(first, second) == 0
    assert [d[:-1] for d in find_doubts(pixels, p, label, most=1)] == [first[:-1]]
    suggested = suggested_label(pixels, label)
    assert (
        (suggested[2:8, 2:8] == 2).all() and (suggested[3:9, 14:20] == 1).all() and (suggested[10:18, 4:12] == 1).all()
    )
