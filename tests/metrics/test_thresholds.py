"""The best thresholds of one-vs-rest classes: counts and IoU by hand, and a search over all pixels in NumPy."""

import jax
import numpy as np
import pytest

from jaxseg.metrics import best_thresholds, threshold_iou, threshold_stats
from jaxseg.metrics.thresholds import EDGES
from jaxseg.types import IGNORE


def test_thresholds_by_hand():
    """Class 0: logits -1.95 (there), -2.05 and 0.35 (not): of above -2, one of two is right. Class 1 is never there."""
    logits = np.array([[-1.95, -5.0], [-2.05, 5.0], [0.35, -5.0], [9.0, 9.0]], np.float32)
    labels = np.array([0, 2, 2, IGNORE])
    stats = jax.jit(threshold_stats)(np.concatenate([logits, -50 * np.ones((4, 1), np.float32)], -1), labels)
    np.testing.assert_array_equal(stats.sum((1, 2)), [3, 3, 3])
    found = best_thresholds(np.asarray(stats))
    np.testing.assert_allclose(found.logits[:2], [-2.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(found.after[:2], [0.5, 0.0])
    np.testing.assert_allclose(found.before[:2], [0.0, 0.0])
    assert found.logits[2] == found.after[2] == 0.0  # its logits are below all that is tried
    np.testing.assert_allclose(threshold_iou(stats, found.logits), found.after)


@pytest.mark.parametrize("k", [1, 3])
def test_thresholds_are_those_of_a_search(k):
    rng = np.random.default_rng(k)
    labels = rng.choice(max(k, 2), p=[0.9, 0.1] if k == 1 else [0.8, 0.15, 0.05], size=(2, 20, 30)).astype(np.int32)
    truth = labels[..., None] == (1 if k == 1 else np.arange(k))
    logits = (2.0 * truth - 3 + rng.normal(size=(*labels.shape, k))).astype(np.float32)
    labels[:, :2] = IGNORE
    stats = np.add(*(np.asarray(threshold_stats(logits[i], labels[i]), np.int64) for i in range(2)))
    found = best_thresholds(stats)
    inside = labels != IGNORE
    z, t = logits[inside], truth[inside]
    for c in range(k):
        above = z[:, c, None] > np.array(EDGES, np.float32)
        iou = (above & t[:, c, None]).sum(0) / (above | t[:, c, None]).sum(0)
        assert found.after[c] == pytest.approx(iou.max(), rel=1e-12) and found.before[c] == pytest.approx(iou[100])
        assert iou[EDGES.index(found.logits[c])] == pytest.approx(iou.max(), rel=1e-12)
        assert found.after[c] > found.before[c] + 0.02


def test_classes_without_pixels_and_of_equal_thresholds():
    nothing = best_thresholds(np.zeros((2, 2, 202), np.int64))
    np.testing.assert_array_equal(nothing.logits, [0, 0])
    assert np.isnan(nothing.after).all()
    right = best_thresholds(threshold_stats(np.array([[3.0], [-3.0]], np.float32), np.array([1, 0])))
    assert right.logits[0] == 0 and right.after[0] == 1.0  # of the many that are all right
    with pytest.raises(ValueError, match=r"Labels of shape \(1,\) are needed"):
        threshold_stats(np.zeros((1, 2), np.float32), np.array([[0]]))
