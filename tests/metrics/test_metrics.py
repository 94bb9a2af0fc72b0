"""Confusion matrices against NumPy, and scores against their definitions and torchmetrics."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.oracles import torchvision
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxseg import metrics
from jaxseg.metrics import confusion as counting
from jaxseg.types import IGNORE


def make_pair(k: int, shape=(8, 6, 7), seed: int = 0):
    """Predictions right in about half of the pixels, and labels with a fifth of IGNORE."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, shape)
    predictions = np.where(rng.random(shape) < 0.5, labels, rng.integers(0, k, shape))
    return predictions.astype(np.int32), np.where(rng.random(shape) < 0.2, IGNORE, labels).astype(np.int32)


def count(predictions, labels, k: int) -> np.ndarray:
    matrix = np.zeros((k, k), np.int64)
    for p, t in zip(predictions.ravel(), labels.ravel()):
        if t != IGNORE:
            matrix[t, p] += 1
    return matrix


@pytest.mark.parametrize("k, shape", [(2, (3, 5)), (3, (17,)), (5, (8, 6, 7)), (5, (1, 1, 1)), (21, (2, 3, 4, 5))])
def test_confusion_equals_counting(k, shape):
    predictions, labels = make_pair(k, shape)
    matrix = metrics.confusion_matrix(predictions, labels, k)
    assert matrix.dtype == jnp.int32
    np.testing.assert_array_equal(matrix, count(predictions, labels, k))


def test_the_formulation_of_accelerators_counts_the_same(monkeypatch):
    predictions, labels = (x.reshape(8, -1) for x in make_pair(5))
    expected = count(predictions, labels, 5)
    for block in (1, 50, 1 << 18):
        monkeypatch.setattr(counting, "_BLOCK", block)
        np.testing.assert_array_equal(counting._count_products(predictions, labels, k=5), expected)
    monkeypatch.setattr(counting, "_ELEMENTS", 5 * 8)  # one pixel of each of the 8 rows at a time
    jaxpr = str(jax.make_jaxpr(lambda p, y: counting._count_products(p, y, k=5))(predictions, labels))
    assert jaxpr.count("dot_general") == predictions.shape[1]
    np.testing.assert_array_equal(counting._count_products(predictions, labels, k=5), expected)


def test_labels_of_one_byte_and_values_outside_the_classes():
    labels = np.array([[0, 1, 2, 3, IGNORE, 200]], np.uint8)
    predictions = np.array([[0, 0, 2, 0, 1, 1]])
    np.testing.assert_array_equal(metrics.confusion_matrix(predictions, labels, 3), [[1, 0, 0], [1, 0, 0], [0, 0, 1]])


def test_counts_beyond_what_float32_holds():
    side = 4097
    predictions, labels = np.ones((1, side, side), np.int32), np.ones((1, side, side), np.uint8)
    assert metrics.confusion_matrix(predictions, labels, 2).tolist() == [[0, 0], [0, side * side]]


def test_confusion_under_jit_vmap_pmap_and_sharding():
    predictions, labels = make_pair(4)
    expected = count(predictions, labels, 4)

    def confusion(p, y):
        return metrics.confusion_matrix(p, y, 4)

    each = jax.vmap(confusion)(predictions, labels)
    np.testing.assert_array_equal(each, [count(p, y, 4) for p, y in zip(predictions, labels)])
    summed = jax.pmap(lambda p, y: jax.lax.psum(confusion(p, y), "i"), "i")(predictions, labels)
    np.testing.assert_array_equal(summed[0], expected)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    split = jax.device_put((predictions, labels), NamedSharding(mesh, PartitionSpec("batch")))
    compiled = jax.jit(confusion).lower(*split).compile()
    np.testing.assert_array_equal(compiled(*split), expected)
    assert "all-gather" not in compiled.as_text()  # each device counts its own examples


@pytest.mark.parametrize(
    "predictions, labels, words",
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "one shape"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), "Predictions must be integers"),
        (np.zeros((2, 3), int), np.zeros((2, 3)), "Labels must be integers"),
    ],
)
def test_confusion_refuses(predictions, labels, words):
    with pytest.raises(ValueError, match=words):
        metrics.confusion_matrix(predictions, labels, 2)


def test_predicted_classes():
    logits = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    predicted = metrics.predict_classes(logits)
    assert predicted.dtype == jnp.int32
    np.testing.assert_array_equal(predicted, logits.argmax(-1))
    np.testing.assert_array_equal(metrics.predict_classes(np.array([[1.0, 1.0, 0.0]])), [0])
    np.testing.assert_array_equal(metrics.predict_classes(np.array([[-1.0], [0.0], [1e-6]])), [0, 0, 1])
    assert [metrics.num_confusion_classes(k) for k in (1, 2, 21)] == [2, 2, 21]


# Truth in rows. Class 2 is absent from both; class 3 is predicted without being there; class 4 is missed altogether.
BY_HAND = np.array(
    [
        [6, 2, 0, 0, 0],
        [1, 3, 0, 1, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [2, 0, 0, 0, 0],
    ]
)


def test_scores_by_hand():
    result = metrics.scores(BY_HAND)
    nan = np.nan
    np.testing.assert_array_equal(result.support, [8, 5, 0, 0, 2])
    np.testing.assert_allclose(result.iou, [6 / 11, 3 / 7, nan, 0, 0])
    np.testing.assert_allclose(result.precision, [6 / 9, 3 / 5, nan, 0, nan])
    np.testing.assert_allclose(result.recall, [6 / 8, 3 / 5, nan, nan, 0])
    np.testing.assert_allclose(result.f1, [12 / 17, 6 / 10, nan, 0, 0])
    np.testing.assert_allclose(result.pixel_accuracy, 9 / 15)
    np.testing.assert_allclose(result.mean_accuracy, (6 / 8 + 3 / 5 + 0) / 3)
    np.testing.assert_allclose(result.mean_iou, (6 / 11 + 3 / 7) / 4)
    np.testing.assert_allclose(result.frequency_weighted_iou, (8 * 6 / 11 + 5 * 3 / 7) / 15)
    np.testing.assert_allclose(result.mean_f1, (12 / 17 + 6 / 10) / 4)


@pytest.mark.filterwarnings("error")
def test_scores_of_nothing_are_nan_without_warnings():
    result = metrics.scores(np.zeros((3, 3), np.int64))
    assert np.isnan([result.mean_iou, result.pixel_accuracy, result.mean_accuracy, result.mean_f1]).all()
    assert np.isnan(result.frequency_weighted_iou) and np.isnan(result.iou).all()
    assert result.support.tolist() == [0, 0, 0]
    perfect = metrics.scores(np.diag([3, 0, 2**40]))
    assert perfect.mean_iou == perfect.pixel_accuracy == perfect.frequency_weighted_iou == 1.0


@pytest.mark.parametrize(
    "matrix, words",
    [(np.zeros((2, 3), int), "square"), (np.zeros((2, 2)), "integers"), (np.array([[1, -1], [0, 1]]), "negative")],
)
def test_scores_refuse(matrix, words):
    with pytest.raises(ValueError, match=words):
        metrics.scores(matrix)


@pytest.mark.parametrize("absent", [False, True])
def test_scores_are_torchmetrics(absent):
    torch = pytest.importorskip("torch")
    torchvision()  # torchmetrics imports it
    classification = pytest.importorskip("torchmetrics.classification")
    k = 5
    predictions, labels = make_pair(k)
    if absent:
        predictions[predictions == 3], labels[labels == 3] = 0, 0
    result = metrics.scores(np.asarray(metrics.confusion_matrix(predictions, labels, k)))
    p, y = torch.tensor(predictions).long(), torch.tensor(labels).long()

    def theirs(name: str, average: str) -> np.ndarray:
        metric = getattr(classification, f"Multiclass{name}")(k, average=average, ignore_index=IGNORE)
        return metric(p, y).numpy()

    present = ~np.isnan(result.iou)
    assert present.sum() == k - absent
    for field, name in (("iou", "JaccardIndex"), ("precision", "Precision"), ("recall", "Recall"), ("f1", "F1Score")):
        ours = getattr(result, field)
        np.testing.assert_allclose(ours[present], theirs(name, "none")[present], rtol=1e-6)
        np.testing.assert_allclose(np.nanmean(ours), theirs(name, "macro"), rtol=1e-6)
    np.testing.assert_allclose(result.pixel_accuracy, theirs("Accuracy", "micro"), rtol=1e-6)
    np.testing.assert_allclose(result.mean_accuracy, theirs("Accuracy", "macro"), rtol=1e-6)
    np.testing.assert_allclose(result.frequency_weighted_iou, theirs("JaccardIndex", "weighted"), rtol=1e-6)


def test_the_table_and_the_dictionary():
    result = metrics.scores(BY_HAND)
    names = ["road", "side|walk", "sky", "pole", "car"]
    lines = metrics.table(result, names).splitlines()
    assert len({len(line) for line in lines[:8]}) == 1  # aligned
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "road",
        "54.55",
        "66.67",
        "75.00",
        "70.59",
        "53.33",
    ]
    assert lines[3].startswith("| side\\|walk |") and lines[4].split("|")[2].strip() == "-"
    assert lines[-1].startswith("mean IoU 24.35, pixel accuracy 60.00")
    values = json.loads(json.dumps(metrics.scores_dict(result, names), allow_nan=False))
    assert values["mean_iou"] == pytest.approx((6 / 11 + 3 / 7) / 4)
    assert values["classes"][2] == {
        "name": "sky",
        "support": 0,
        "iou": None,
        "precision": None,
        "recall": None,
        "f1": None,
    }
    for function in (metrics.table, metrics.scores_dict):
        with pytest.raises(ValueError, match="5 classes, got 2"):
            function(result, ["a", "b"])
