"""Distances between boundaries against all pairs and MONAI, calibration against definitions and torchmetrics."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from helpers.oracles import torch, torchvision

from jaxseg import metrics
from jaxseg.inference import surface
from jaxseg.types import IGNORE


def blobs(seed, shape=(17, 23), share=0.5):
    """A random mask with regions of some size."""
    coarse = np.random.default_rng(seed).random([-(-n // 4) for n in shape]) < share
    mask = np.kron(coarse, np.ones((4, 4), bool))[tuple(slice(n) for n in shape)]
    return mask ^ (np.random.default_rng(seed + 100).random(shape) < 0.03)


def edge_by_hand(mask):
    """The coordinates of the pixels of a mask that touch its outside, or the end of the image."""
    padded = np.pad(mask, 1)
    found = [
        (i, j)
        for i, j in np.argwhere(mask)
        if not (padded[i, j + 1] and padded[i + 2, j + 1] and padded[i + 1, j] and padded[i + 1, j + 2])
    ]
    return np.array(found, float).reshape(-1, 2)


def all_pairs(prediction, truth, spacing=1.0):
    a, b = (edge_by_hand(m) * spacing for m in (prediction, truth))
    if len(a) == 0 or len(b) == 0:
        return np.full(len(a), np.inf), np.full(len(b), np.inf)
    d = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return d.min(1), d.min(0)


PAIRS = [(0, 1), (2, 3), (4, 4), (5, 6)]


@pytest.mark.parametrize("spacing", [1.0, (0.5, 2.0)])
@pytest.mark.parametrize("a, b", PAIRS)
def test_distances_are_those_of_all_pairs(a, b, spacing):
    prediction, truth = blobs(a), blobs(b, share=0.3)
    distances = surface.surface_distances(prediction, truth, spacing)
    expected = all_pairs(prediction, truth, spacing)
    for ours, theirs in zip(distances, expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    near = [np.mean(d <= 1.5) for d in expected]
    np.testing.assert_allclose(surface.boundary_f1(distances, 1.5), 2 * near[0] * near[1] / (near[0] + near[1]))
    both = np.concatenate(expected)
    np.testing.assert_allclose(surface.surface_dice(distances, 1.5), np.mean(both <= 1.5))
    np.testing.assert_allclose(surface.average_surface_distance(distances), both.mean())
    np.testing.assert_allclose(surface.hausdorff(distances), both.max())
    largest = max(np.percentile(d, 95) for d in expected)
    np.testing.assert_allclose(surface.hausdorff(distances, 95.0), largest)


def test_by_hand():
    """One row: truth in columns 0 and 1, prediction in 3: of the prediction 2, of the truth 3 and 2."""
    truth, prediction = np.array([[1, 1, 0, 0]], bool), np.array([[0, 0, 0, 1]], bool)
    distances = surface.surface_distances(prediction, truth)
    assert distances.of_prediction.tolist() == [2] and distances.of_truth.tolist() == [3, 2]
    assert surface.hausdorff(distances) == 3 and surface.hausdorff(distances, 50) == 2.5
    assert surface.surface_dice(distances, 2) == pytest.approx(2 / 3)
    assert surface.boundary_f1(distances, 2) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert surface.average_surface_distance(distances) == pytest.approx(7 / 3)
    assert surface.average_surface_distance(distances, symmetric=False) == 2


@pytest.mark.filterwarnings("error")
def test_empty_masks():
    something, nothing = blobs(0), np.zeros((17, 23), bool)
    neither = surface.surface_distances(nothing, nothing)
    for number in (surface.hausdorff, surface.average_surface_distance):
        assert np.isnan(number(neither))
    for number in (surface.boundary_f1, surface.surface_dice):
        assert np.isnan(number(neither, 2.0))
    for one in (surface.surface_distances(something, nothing), surface.surface_distances(nothing, something)):
        assert surface.hausdorff(one, 95.0) == surface.average_surface_distance(one) == np.inf
        assert surface.boundary_f1(one, 2.0) == surface.surface_dice(one, 2.0) == 0.0
    with pytest.raises(ValueError, match="one shape"):
        surface.surface_distances(nothing, nothing[1:])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spacing", [None, (0.5, 2.0)])
def test_distances_are_monais(spacing):
    module = torch()
    monai = pytest.importorskip("monai.metrics")
    empty = np.zeros((17, 23), bool)
    pairs = [(blobs(a), blobs(b, share=0.3)) for a, b in PAIRS] + [(blobs(0), empty), (empty, blobs(0)), (empty, empty)]
    p, t = (module.tensor(np.stack([pair[i] for pair in pairs])).float()[:, None] for i in (0, 1))
    include = {"include_background": True, "spacing": spacing}
    ours = [surface.surface_distances(*pair, spacing or 1.0) for pair in pairs]
    hd = monai.compute_hausdorff_distance(p, t, percentile=95, **include)[:, 0]
    np.testing.assert_allclose([surface.hausdorff(d, 95.0) for d in ours[:4]], hd[:4], rtol=1e-6)
    # A percentile of infinite distances: theirs is NaN, ours infinite as the largest distance is.
    assert [surface.hausdorff(d, 95.0) for d in ours[4:6]] == [np.inf] * 2 and np.isnan(hd[4:]).all()
    nsd = monai.compute_surface_dice(p, t, [1.5], **include)[:, 0]
    np.testing.assert_allclose([surface.surface_dice(d, 1.5) for d in ours], nsd, rtol=1e-6)
    asd = monai.compute_average_surface_distance(p, t, symmetric=True, **include)[:, 0]
    np.testing.assert_allclose([surface.average_surface_distance(d) for d in ours], asd, rtol=1e-6)
    directed = monai.compute_average_surface_distance(p, t, symmetric=False, **include)[:4, 0]
    some = [surface.average_surface_distance(d, symmetric=False) for d in ours[:4]]
    np.testing.assert_allclose(some, directed, rtol=1e-6)


def images(seed=0, k=3, shape=(16, 20)):
    rng = np.random.default_rng(seed)
    label = np.kron(rng.integers(0, k, (shape[0] // 4, shape[1] // 4)), np.ones((4, 4), np.int64))
    prediction = np.where(rng.random(shape) < 0.05, rng.integers(0, k, shape), np.roll(label, 1, axis=1))
    return prediction.astype(np.uint8), label.astype(np.uint8)


def test_sums_of_images_are_their_means():
    pairs = [images(i) for i in range(3)]
    pairs[0][1][pairs[0][1] == 2] = 0
    pairs[0][0][pairs[0][0] == 2] = 1  # the first image has no class 2
    pairs[1][0][pairs[1][0] == 2] = 0  # the second has it in the truth alone
    total = surface.SurfaceTotal(3, tolerance=1.0)
    sizes = np.array([(16, 20)] * 3)
    maps = {"prediction": np.stack([p for p, _ in pairs]), "label": np.stack([t for _, t in pairs]), "size": sizes}
    total.add({name: array[:2] for name, array in maps.items()})
    total.add({name: array[2:] for name, array in maps.items()})
    result = surface.surface_scores(total.sums)
    assert result.images.tolist() == [3, 3, 2] and result.one_sided.tolist() == [0, 0, 1]
    last = surface.surface_distances(pairs[2][0] == 2, pairs[2][1] == 2)
    assert result.boundary_f1[2] == pytest.approx((0 + surface.boundary_f1(last, 1.0)) / 2)
    assert result.hausdorff_95[2] == pytest.approx(surface.hausdorff(last, 95.0))
    each = [surface.surface_distances(p == 0, t == 0) for p, t in pairs]
    assert result.surface_dice[0] == pytest.approx(np.mean([surface.surface_dice(d, 1.0) for d in each]))
    assert result.surface_distance[0] == pytest.approx(np.mean([surface.average_surface_distance(d) for d in each]))


def test_ignored_pixels_and_the_filling_of_a_canvas_belong_to_no_mask():
    prediction, label = images()
    label[3:7, 2:9] = IGNORE
    expected = surface.surface_sums(prediction, label, 3)
    other = np.where(label == IGNORE, 1, prediction)
    for name, values in surface.surface_sums(other, label, 3).items():
        np.testing.assert_array_equal(values, expected[name])
    # One hole in a class of one: the truth's edge runs round it, and so does the prediction's.
    label = np.zeros((9, 9), np.uint8)
    label[4, 4] = IGNORE
    sums = surface.surface_sums(np.zeros((9, 9), np.uint8), label, 2)
    assert sums["boundary_f1"].tolist() == [1, 0] and sums["images"].tolist() == [1, 0]
    canvas = np.full((1, 30, 30), IGNORE, np.uint8), np.zeros((1, 30, 30), np.uint8)
    prediction, label = images()
    canvas[0][0, :16, :20], canvas[1][0, :16, :20] = label, prediction
    total = surface.SurfaceTotal(3)
    total.add({"label": canvas[0], "prediction": canvas[1], "size": np.array([(16, 20)])})
    nothing = np.full((1, 30, 30), IGNORE, np.uint8)  # an example that only fills the batch
    total.add({"label": nothing, "prediction": canvas[1], "size": np.array([(1, 1)])})
    for name, values in surface.surface_sums(prediction, label, 3).items():
        np.testing.assert_array_equal(total.sums[name], values)


def test_the_default_tolerance_is_a_share_of_the_diagonal_and_at_least_a_pixel():
    label = np.zeros((300, 400), np.uint8)
    label[:, 200:] = 1
    for shift, inside in ((3, True), (4, False)):  # .0075 · 500 = 3.75
        prediction = np.zeros_like(label)
        prediction[:, 200 + shift :] = 1
        f1 = surface.surface_sums(prediction, label, 2)["boundary_f1"][1]
        assert (f1 > 0.99) == inside
    small = np.zeros((8, 8), np.uint8)
    small[:, 4:] = 1
    shifted = np.zeros((8, 8), np.uint8)
    shifted[:, 5:] = 1
    assert surface.surface_sums(shifted, small, 2)["boundary_f1"][1] == 1.0
    assert surface.surface_sums(shifted, small, 1, tolerance=0.5)["boundary_f1"][1] < 1.0


def test_the_surface_table_and_dictionary():
    nan = np.nan
    result = surface.SurfaceScores(
        np.array([0.5, nan]),
        np.array([0.25, nan]),
        np.array([2.0, nan]),
        np.array([1.0, nan]),
        np.array([4, 0]),
        np.array([1, 0]),
    )
    lines = surface.surface_table(result, ["a|b", "sky"]).splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[2].startswith("| a\\|b")
    assert [c.strip() for c in lines[2].split("|")[3:-1]] == ["50.00", "25.00", "2.00", "1.00", "4", "1"]
    assert [c.strip() for c in lines[3].strip("|").split("|")] == ["sky", "-", "-", "-", "-", "0", "0"]
    assert [c.strip() for c in lines[4].strip("|").split("|")] == ["mean", "50.00", "25.00", "2.00", "1.00", "", ""]
    values = json.loads(json.dumps(surface.surface_dict(result, ["a|b", "sky"]), allow_nan=False))
    assert values["mean_hausdorff_95"] == 2.0 and values["classes"][1]["boundary_f1"] is None
    assert values["classes"][0]["one_sided"] == 1


def confident(k, shape=(4, 9, 11), seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (*shape, k)).astype(np.float32)
    labels = np.where(rng.random(shape) < 0.2, IGNORE, rng.integers(0, max(k, 2), shape)).astype(np.int32)
    return logits, labels


def test_calibration_by_hand():
    """Confidences .9 (right), .6 (wrong), .7 (right) and one ignored, in two bins: all in the upper one."""
    p = np.array([[0.9, 0.4, 0.7, 0.99]])
    logits = np.log(p / (1 - p)).astype(np.float32)[..., None]
    stats = metrics.calibration_stats(logits, np.array([[1, 1, 1, IGNORE]]), bins=2)
    assert stats["count"].tolist() == [0, 3] and stats["correct"].tolist() == [0, 2]
    result = metrics.calibration(stats)
    np.testing.assert_allclose(stats["confidence"], [0, 2.2], rtol=1e-6)
    np.testing.assert_allclose((result.error, result.largest_error), 2.2 / 3 - 2 / 3, rtol=1e-5)
    values = json.loads(json.dumps(metrics.calibration_dict(result), allow_nan=False))
    assert values["bins"][0] == {"count": 0, "confidence": None, "accuracy": None}
    assert values["bins"][1]["accuracy"] == pytest.approx(2 / 3)


def test_calibration_of_one_sigmoid_a_class():
    """The optimum of binary_cross_entropy on data drawn from its own probabilities is calibrated."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), 100000)
    labels = (rng.random((100000, 1)) > p.cumsum(-1)).sum(-1).clip(0, 4).astype(np.int32)
    logits = np.log(p / (1 - p)).astype(np.float32)
    stats = partial(metrics.calibration_stats, logits, labels)
    right = metrics.calibration(stats(one_vs_rest=True))
    assert right.error < 0.01 and metrics.calibration(stats()).error == pytest.approx(0.087, abs=0.01)
    np.testing.assert_allclose(stats(bins=1, one_vs_rest=True)["confidence"], [p.max(-1).sum()], rtol=1e-5)
    softmax = metrics.calibration_stats(np.log(p).astype(np.float32), labels)
    np.testing.assert_array_equal(right.count, softmax["count"])


@pytest.mark.parametrize("k", [1, 2, 5])
def test_calibration_is_the_definition_and_torchmetrics(k):
    logits, labels = confident(k)
    result = metrics.calibration(jax.jit(metrics.calibration_stats)(logits, labels))
    keep = labels != IGNORE
    z = np.concatenate([0 * logits, logits], -1) if k == 1 else logits
    p = np.exp(z.astype(np.float64)[keep])
    p /= p.sum(-1, keepdims=True)
    place = np.ceil(p.max(-1) * 15).astype(int) - 1
    right = p.argmax(-1) == labels[keep]
    gaps = [
        abs(right[place == m].mean() - p.max(-1)[place == m].mean()) if (place == m).any() else 0 for m in range(15)
    ]
    share = np.bincount(place, minlength=15) / len(place)
    np.testing.assert_allclose(result.error, (share * gaps).sum(), rtol=1e-5)
    np.testing.assert_allclose(result.largest_error, max(gaps), rtol=1e-5)
    np.testing.assert_array_equal(result.count, np.bincount(place, minlength=15))
    module = torch()
    torchvision()  # torchmetrics imports it
    peer = pytest.importorskip("torchmetrics.classification").MulticlassCalibrationError
    for norm, ours in (("l1", result.error), ("max", result.largest_error)):
        theirs = peer(max(k, 2), n_bins=15, norm=norm)(module.tensor(p).float(), module.tensor(labels[keep]).long())
        np.testing.assert_allclose(ours, theirs.item(), rtol=1e-4)


def test_calibration_adds_over_parts_and_devices_and_ignores():
    logits, labels = confident(3, (8, 5, 6))
    whole = jax.jit(metrics.calibration_stats)(logits, labels)
    halves = [jax.jit(metrics.calibration_stats)(logits[i : i + 4], labels[i : i + 4]) for i in (0, 4)]
    spread = jax.pmap(lambda z, y: jax.lax.psum(metrics.calibration_stats(z, y), "i"), "i")(
        logits[:, None], labels[:, None]
    )
    same = partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(lambda a, b, c: same(a + b, c), *halves, whole)
    jax.tree.map(lambda a, b: same(a[0], b), spread, whole)
    other = np.where((labels == IGNORE)[..., None], 9.0, logits).astype(np.float32)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(metrics.calibration_stats)(other, labels), whole)
    assert int(whole["count"].sum()) == (labels != IGNORE).sum()
    empty = metrics.calibration(metrics.calibration_stats(logits, np.full(labels.shape, IGNORE)))
    assert np.isnan(empty.error) and np.isnan(empty.largest_error)
    with pytest.raises(ValueError, match="integer labels"):
        metrics.calibration_stats(logits, labels[:2])
