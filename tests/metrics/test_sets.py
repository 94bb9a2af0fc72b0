"""Counts and scores of pixels that may have several classes, against NumPy and torchmetrics."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.oracles import torch, torchvision

from jaxseg import metrics
from jaxseg.errors import ArgumentError
from jaxseg.metrics.intervals import pixels_of_sets
from jaxseg.metrics.thresholds import EDGES
from jaxseg.types import ignore_label

K = 4
NAMES = ("a", "b", "c", "d")


def drawn(k=K, size=(3, 7, 5), seed=0):
    """Logits of k classes, labels of which some are unknown, and the truth bool[..., k] of the known."""
    rng = np.random.default_rng(seed)
    there = rng.random((*size, k)) < np.linspace(0.05, 0.6, k)
    labels = (there.astype(np.int64) << np.arange(k)).sum(-1).astype(np.int32)
    labels[0, :2] = ignore_label(k, multilabel=True)
    logits = (rng.normal(size=there.shape) + np.where(there, 0.7, -0.7)).astype(np.float32)
    return logits, labels, there


@pytest.mark.parametrize("k", [K, 9, 31])
def test_counts_are_exact(k):
    logits, labels, there = drawn(k)
    known = labels != ignore_label(k, multilabel=True)
    predicted, counts = metrics.predict_and_count(logits, labels, multilabel=True)
    found = logits > 0
    np.testing.assert_array_equal(predicted, (found.astype(np.int64) << np.arange(k)).sum(-1))
    for c in range(k):
        t, p = there[known][:, c], found[known][:, c]
        np.testing.assert_array_equal(counts[c], [[(~t & ~p).sum(), (~t & p).sum()], [(t & ~p).sum(), (t & p).sum()]])
    right = (there == found)[known].all(-1).sum()
    np.testing.assert_array_equal(counts[k], [[0, 0], [known.sum() - right, right]])


def test_a_pixel_counts_for_the_classes_that_are_known_there():
    logits, labels, there = drawn()
    known = np.repeat((labels != 255)[..., None], K, -1)
    hidden = np.random.default_rng(5).random(known.shape) < 0.3
    partly = np.where(known, (there & ~hidden) << np.arange(K), 0).sum(-1) + (hidden << np.arange(K) + K).sum(-1)
    labels, seen, found = np.where(labels == 255, 255, partly).astype(np.int32), known & ~hidden, logits > 0
    predicted, counts = metrics.predict_and_count(logits, labels, multilabel=True)
    for c in range(K):
        t, p = there[seen[..., c], c], found[seen[..., c], c]
        np.testing.assert_array_equal(counts[c], [[(~t & ~p).sum(), (~t & p).sum()], [(t & ~p).sum(), (t & p).sum()]])
    whole = seen.all(-1)
    right = (there == found)[whole].all(-1).sum()
    np.testing.assert_array_equal(counts[K], [[0, 0], [whole.sum() - right, right]])
    totals = np.asarray(metrics.threshold_stats(logits, labels, multilabel=True)).sum(-1)
    for c in range(K):
        np.testing.assert_array_equal(totals[c], [(seen & ~there)[..., c].sum(), (seen & there)[..., c].sum()])
    for i in range(len(labels)):  # the pixels of one image, of which intervals are made
        pixels = pixels_of_sets(
            np.asarray(predicted[i]), np.where(labels[i] == 255, 65535, labels[i]).astype(np.uint16), K
        )
        own = np.asarray(metrics.set_counts(predicted[i], labels[i], K))[:K]
        hits = [own[:, 1, 1], own[:, 1].sum(-1), own[:, :, 1].sum(-1)]
        np.testing.assert_array_equal(pixels.pixels, np.stack(hits)[:, pixels.label])


def test_scores_as_torchmetrics():
    t = torch()
    torchvision()  # torchmetrics imports it
    peers = pytest.importorskip("torchmetrics.functional.classification")
    logits, labels, there = drawn()
    known = labels != 255
    p, y = t.tensor((logits > 0)[known].astype(np.int64)), t.tensor(there[known].astype(np.int64))
    scores = metrics.scores(metrics.predict_and_count(logits, labels, multilabel=True)[1])
    for name, peer in (
        ("iou", peers.multilabel_jaccard_index),
        ("precision", peers.multilabel_precision),
        ("recall", peers.multilabel_recall),
        ("f1", peers.multilabel_f1_score),
    ):
        np.testing.assert_allclose(getattr(scores, name), peer(p, y, num_labels=K, average="none"), rtol=1e-6)
    np.testing.assert_allclose(scores.mean_iou, peers.multilabel_jaccard_index(p, y, num_labels=K), rtol=1e-6)
    np.testing.assert_allclose(scores.pixel_accuracy, peers.multilabel_exact_match(p, y, num_labels=K), rtol=1e-6)
    np.testing.assert_allclose(
        scores.hamming_accuracy, 1 - peers.multilabel_hamming_distance(p, y, num_labels=K), rtol=1e-6
    )
    assert scores.pixels == known.sum() and (scores.support == there[known].sum(0)).all()
    table, stored = metrics.table(scores, NAMES), metrics.scores_dict(scores, NAMES)
    assert "exact match" in table and "Hamming accuracy" in table and "pixel accuracy" not in table
    assert stored["hamming_accuracy"] == scores.hamming_accuracy and stored["pixel_accuracy"] == scores.pixel_accuracy


def test_empty_sets_can_be_right_and_absent_classes_have_no_iou():
    counts = np.asarray(metrics.set_counts(np.zeros((2, 2), int), np.array([[0, 0], [1, 255]]), 2))
    scores = metrics.scores(counts)
    assert scores.iou[0] == 0 and np.isnan(scores.iou[1]) and scores.mean_iou == 0
    assert scores.pixel_accuracy == pytest.approx(2 / 3) and scores.hamming_accuracy == pytest.approx(5 / 6)
    nothing = metrics.scores(np.asarray(metrics.set_counts(np.zeros((1, 2), int), np.full((1, 2), 255), 2)))
    assert np.isnan([nothing.mean_iou, nothing.pixel_accuracy, nothing.hamming_accuracy]).all()
    with pytest.raises(ArgumentError, match=r"one shape, got \(1,\) and \(2,\)"):
        metrics.set_counts(np.zeros(1, int), np.zeros(2, int), 2)
    with pytest.raises(ArgumentError, match="Labels must be integers"):
        metrics.set_counts(np.zeros(2, int), np.zeros(2), 2)


def test_thresholds_of_sets_have_the_best_iou():
    logits, labels, there = drawn(seed=3)
    known = labels != 255
    found = metrics.best_thresholds(np.asarray(metrics.threshold_stats(logits, labels, multilabel=True)))
    for c in range(K):
        t, z = there[known][:, c], logits[known][:, c]
        iou = [(t & (z > edge)).sum() / max((t | (z > edge)).sum(), 1) for edge in EDGES]
        assert found.after[c] == pytest.approx(max(iou)) == pytest.approx(iou[EDGES.index(found.logits[c])])
    sets = metrics.predict_sets(logits, tuple(found.logits))
    np.testing.assert_array_equal(sets, ((logits > found.logits.astype(np.float32)) << np.arange(K)).sum(-1))
    after = metrics.scores(np.asarray(metrics.set_counts(sets, labels, K)))
    np.testing.assert_allclose(after.iou, found.after)


def test_calibration_is_that_of_the_yes_or_no_questions():
    logits, labels, there = drawn()
    known = labels != 255
    sums = metrics.set_calibration_stats(logits, labels)
    flat = metrics.calibration_stats(
        jnp.asarray(logits[known]).reshape(-1, 1), jnp.asarray(there[known].reshape(-1), jnp.int32)
    )
    np.testing.assert_array_equal(sums["count"], flat["count"])
    np.testing.assert_array_equal(sums["correct"], flat["correct"])
    assert int(np.sum(sums["count"])) == known.sum() * K
