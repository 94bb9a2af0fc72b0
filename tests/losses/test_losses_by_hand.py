"""Set losses, Lovász, focal, the hardest pixels and boundaries: cases by hand, and what they are equal to."""

from functools import partial

import numpy as np
import pytest
from helpers.loss_references import make_batch, run, smooth_batch, weights_of

from jaxseg import losses
from jaxseg.losses.table import LOSSES
from jaxseg.types import IGNORE


def test_overlap_by_hand():
    """Two pixels, p = (3/4, 1/4) and (1/4, 3/4), truth 0 and 1: I = 3/4, P = T = 1, FP = FN = 1/4 in both classes."""
    logits, labels = np.log(np.array([[[0.75, 0.25], [0.25, 0.75]]], np.float32)), np.array([[0, 1]])
    np.testing.assert_allclose(run("jaccard", logits, labels), (2 * (1 - 0.75 / 1.25), 2), rtol=1e-6)
    np.testing.assert_allclose(run("tversky", logits, labels, alpha=1, beta=3), (2 * (1 - 0.75 / 1.75), 2), rtol=1e-6)
    cubed = run("tversky", logits, labels, alpha=1, beta=1, gamma=3)
    np.testing.assert_allclose(cubed, (2 * 0.4**3, 2), rtol=1e-6)
    np.testing.assert_allclose(run("dice", logits, labels, squared=False, log=True), (-2 * np.log(0.75), 2), rtol=1e-6)
    np.testing.assert_allclose(
        run("dice", logits, labels, squared=False, include_background=False), (0.25, 1), rtol=1e-6
    )
    # Truth 0 alone: class 1 is absent and gets the weight of class 0, 1/4: 1 - 2 (1/4) / (1/4 (1 + 2) + 1/4 · 1).
    np.testing.assert_allclose(run("generalised_dice", logits, np.array([[0, 0]])), (0.5, 1), rtol=1e-6)
    # Tversky at 1/2, 1/2 is Dice without squares, and at 1, 1 Jaccard.
    z, y = smooth_batch(4)
    for equal, weight in (("dice", 0.5), ("jaccard", 1.0)):
        theirs = run(equal, z, y, squared=False)
        np.testing.assert_allclose(run("tversky", z, y, alpha=weight, beta=weight), theirs, rtol=1e-6)


def test_lovasz_by_hand():
    """Errors .6, .5 (foreground) and .2: the IoU losses of the first one, two, three as mistakes are 1/2, 1, 1."""
    logits = np.log(np.array([[[0.4, 0.6], [0.5, 0.5], [0.8, 0.2]]], np.float32))
    labels = np.array([[0, 1, 0]])
    of_one = 0.6 * (1 / 2) + 0.5 * (1 - 1 / 2)
    # Class 0, two true pixels: the mistakes .6 (true), .5 (not), .2 (true) make losses 1/2, 2/3, 1.
    of_zero = 0.6 * (1 / 2) + 0.5 * (2 / 3 - 1 / 2) + 0.2 * (1 - 2 / 3)
    np.testing.assert_allclose(run("lovasz", logits, labels), ((of_one + of_zero) / 2, 1), rtol=1e-6)
    # The hinge: z = (2, -1, 1), truth (1, 1, 0), errors -1, 2, 2, the tied two a miss and a false alarm.
    hinge = run("lovasz", np.array([[[2.0], [-1.0], [1.0]]], np.float32), np.array([[1, 1, 0]]))
    np.testing.assert_allclose(hinge, (2 * (2 / 3), 1), rtol=1e-6)


def test_the_lovasz_loss_of_hard_predictions_is_one_minus_iou():
    logits, labels = make_batch(3, shape=(1, 9, 9))
    hard = 60.0 * np.eye(3, dtype=np.float32)[logits.argmax(-1)]
    keep = labels != IGNORE
    iou = [
        ((logits.argmax(-1) == c) & (labels == c)).sum() / (((logits.argmax(-1) == c) | (labels == c)) & keep).sum()
        for c in range(3)
    ]
    np.testing.assert_allclose(run("lovasz", hard, labels)[0], 1 - np.mean(iou), rtol=1e-6)


def test_focal_without_gamma_and_sampling_of_all_are_cross_entropy():
    logits, labels = make_batch(4)
    expected = run("cross_entropy", logits, labels, class_weights=weights_of(4))
    np.testing.assert_allclose(
        run("focal", logits, labels, gamma=0.0, class_weights=weights_of(4)), expected, rtol=1e-6
    )
    sampled = partial(run, "sampled_cross_entropy", logits, labels, class_weights=weights_of(4))
    np.testing.assert_allclose(sampled(), expected, rtol=1e-6)
    assert sampled(samples=1)[0] < sampled(samples=2)[0] < expected[0]
    np.testing.assert_allclose(
        run("ohem", logits, labels, thresh=0.0, min_kept=1.0), run("cross_entropy", logits, labels)
    )


def test_ohem_keeps_the_share_and_the_threshold_of_each_image():
    """True-class probabilities .1 .. .9 and .95 .. .99: below .5 count; of the easy image the hardest fifth."""
    p = np.array([[0.1, 0.3, 0.5, 0.7, 0.9], [0.95, 0.96, 0.97, 0.98, 0.99]])
    logits = np.log(p / (1 - p)).astype(np.float32)[..., None]
    total, weight = run("ohem", logits, np.ones((2, 5), np.int32), thresh=0.5, min_kept=0.2)
    kept = np.array([0.1, 0.3, 0.95]) if np.float32(p[0, 2]) >= 0.5 else None
    np.testing.assert_allclose((total, weight), (-np.log(kept).sum(), 3), rtol=1e-5)


def test_boundary_distances_by_hand():
    """A class in the first two of five columns: φ = -1, 0 inside, 1, 2, 3 outside; cut off at 2: -1, 0, 1, 2, 2."""
    logits, labels = np.zeros((1, 1, 5, 1), np.float32), np.array([[[1, 1, 0, 0, 0]]])
    np.testing.assert_allclose(run("boundary", logits, labels), (0.5 * (-1 + 0 + 1 + 2 + 3), 5))
    np.testing.assert_allclose(run("boundary", logits, labels, max_distance=2), (0.5 * (-1 + 0 + 1 + 2 + 2), 5))


def test_logits_are_read_as_the_loss_trains_them():
    logits = np.array([[[[2.0, 2.0, -5.0]]]])
    np.testing.assert_allclose(losses.probabilities(logits)[0, 0, 0], [0.4998, 0.4998, 0.0005], atol=1e-4)
    sigmoids = losses.probabilities(logits, one_vs_rest=True)[0, 0, 0]
    np.testing.assert_allclose(sigmoids, [0.8808, 0.8808, 0.0067], atol=1e-4)
    one = np.array([[0.5], [-1.0]])
    np.testing.assert_array_equal(losses.probabilities(one, one_vs_rest=True), losses.probabilities(one))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_says_how_its_logits_are_read(name):
    assert losses.make_loss(name, num_classes=3).one_vs_rest == (name == "binary_cross_entropy")
    beside = losses.make_loss(f"dice + {name}" if name != "dice" else name, num_classes=3)
    assert beside.one_vs_rest == (name == "binary_cross_entropy")
    if name == "focal":
        assert losses.make_loss(name, num_classes=3, args={name: {"one_vs_rest": True}}).one_vs_rest
