"""The shapes data: repeatable, exact at the edges, and not to be solved by colour."""

import math
import pickle
import time

import numpy as np
import pytest

from jaxseg.data import ShapesSource
from jaxseg.data import shapes as module
from jaxseg.data.shapes import CLASSES
from jaxseg.errors import DataError


def arrangement(source, index):
    """Returns the shapes and layer weights of an image, before it is painted."""
    return module._arrange(module._generator(source.seed, source.split, index), source.size, None)


def mean_iou(truth, prediction, classes=6):
    confusion = np.bincount(truth.ravel() * classes + prediction.ravel(), minlength=classes**2)
    confusion = confusion.reshape(classes, classes)
    hits = np.diag(confusion)
    return np.mean(hits / np.maximum(confusion.sum(0) + confusion.sum(1) - hits, 1))


def test_an_image_depends_on_seed_split_and_index_alone():
    source = ShapesSource("train", 9, (32, 32))
    again = pickle.loads(pickle.dumps(source))
    source[3]
    for i in (7, 0):
        for key in ("image", "label"):
            np.testing.assert_array_equal(source[i][key], again[i][key])
    others = [ShapesSource("val", 9, (32, 32))[0], ShapesSource("train", 9, (32, 32), seed=1)[0], source[1]]
    assert all(np.any(other["image"] != source[0]["image"]) for other in others)


def test_a_longer_data_set_begins_with_the_shorter_one():
    np.testing.assert_array_equal(ShapesSource("val", 3)[2]["image"], ShapesSource("val", 300)[2]["image"])


def test_pinned_image():
    """These numbers change only when the data is changed on purpose; published scores then need a new measurement."""
    example = ShapesSource("train", 1)[0]
    np.testing.assert_array_equal(np.bincount(example["label"].ravel(), minlength=6), [2291, 0, 0, 597, 1208, 0])
    assert abs(example["image"].mean() - 127.959) < 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (33, 47), (64, 64), (40, 200)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_and_channels(size, channels):
    source = ShapesSource("train", 3, size, channels=channels)
    for i in range(3):
        example = source[i]
        assert example["image"].shape == (*size, channels) and example["image"].dtype == np.uint8
        assert example["label"].shape == size and example["label"].dtype == np.uint8
        assert example["label"].max() < len(CLASSES)
        if channels == 4:
            assert (example["image"][..., 3] == 255).all()


def test_the_weights_of_a_pixel_sum_to_one():
    _, weights = arrangement(ShapesSource("train", 1), 0)
    np.testing.assert_array_equal(weights.sum(0), 1)


@pytest.mark.parametrize("index", range(6))
def test_the_label_is_the_class_seen_on_more_than_half_of_the_pixel(index):
    """Painted again, back to front, at 16 x 16 points a pixel in float64."""
    source = ShapesSource("train", 6, (48, 40))
    shapes, _ = arrangement(source, index)
    fine = 16
    y, x = (np.indices((48 * fine, 40 * fine)) + 0.5) / fine
    painted = np.zeros(y.shape, np.int64)
    for shape in shapes:
        cos, sin = math.cos(shape.angle), math.sin(shape.angle)
        dx, dy = (x - shape.x) / shape.radius, (y - shape.y) / shape.radius
        painted[outline(CLASSES[shape.kind], cos * dx + sin * dy, cos * dy - sin * dx)] = shape.kind
    blocks = painted.reshape(48, fine, 40, fine)
    shares = np.stack([(blocks == k).mean((1, 3)) for k in range(len(CLASSES))], axis=-1)
    label = source[index]["label"]
    clear = shares.max(-1) > 0.63  # 16 points a pixel resolve less near one half
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(label[clear], shares.argmax(-1)[clear])


def outline(kind, u, v):
    """The shapes again, in polar or vertex form."""
    if kind == "disc":
        return np.hypot(u, v) < 0.9
    if kind == "ring":
        return (np.hypot(u, v) < 1) & (np.hypot(u, v) > 0.5)
    if kind == "square":
        return (abs(u) < 0.82) & (abs(v) < 0.82)
    if kind == "cross":
        return ((abs(u) < 1) & (abs(v) < 0.33)) | ((abs(v) < 1) & (abs(u) < 0.33))
    corners = [1.16 * np.array([math.cos(a), math.sin(a)]) for a in (-math.pi / 2, math.pi / 6, math.pi * 5 / 6)]
    sides = [
        (q[0] - p[0]) * (v - p[1]) - (q[1] - p[1]) * (u - p[0]) > 0 for p, q in zip(corners, corners[1:] + corners[:1])
    ]
    return np.logical_and.reduce(sides)


def test_every_shape_stays_mostly_visible():
    source = ShapesSource("train", 60)
    for i in range(60):
        shapes, weights = arrangement(source, i)
        for weight, shape in zip(weights[1:], shapes):
            alone = module._rasterize(shape, (4 * 64, 4 * 64))[1].sum() / 16
            assert weight.sum() >= 0.75 * alone > 50


def test_every_class_occurs_about_as_often():
    source = ShapesSource("train", 400)
    counts = sum(np.bincount(source[i]["label"].ravel(), minlength=len(CLASSES)) for i in range(400))
    share = counts / counts.sum()
    assert 0.5 < share[0] < 0.75
    assert share[1:].min() > 0.05


def test_colour_says_next_to_nothing_about_the_class():
    """Bayes' rule on a joint colour histogram, fitted on many images, finds no shape in others."""
    bins = 16

    def codes_and_labels(split, count):
        source = ShapesSource(split, count)
        examples = [source[i] for i in range(count)]
        images = np.stack([e["image"] for e in examples]).astype(np.int64) * bins // 256
        return images @ np.array([bins * bins, bins, 1]), np.stack([e["label"] for e in examples]).astype(np.int64)

    codes, labels = codes_and_labels("train", 500)
    counts = np.bincount((codes * 6 + labels).ravel(), minlength=bins**3 * 6).reshape(-1, 6).astype(float)
    codes, labels = codes_and_labels("val", 100)
    balanced = counts / counts.sum(0)  # likelihoods: as if all classes were as frequent
    for score in (counts, balanced):
        assert mean_iou(labels, score.argmax(-1)[codes]) < 0.15


def test_edges_are_blended():
    """A pixel with several layers has a colour between theirs: most edge pixels differ from both sides."""
    _, weights = arrangement(ShapesSource("train", 1), 0)
    assert 0.02 < np.mean(weights.max(0) < 1) < 0.3


def test_an_image_is_quick_to_make():
    source = ShapesSource("train", 64)
    source[0]
    best = math.inf
    for _ in range(3):
        start = time.process_time()
        for i in range(16):
            source[i]
        best = min(best, (time.process_time() - start) / 16)
    assert best < 0.006  # about 0.0015 where nothing else runs


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("trian", 3), "no split 'trian'. Did you mean 'train'"),
        (("train", 0), "at least 1, got 0"),
        (("train", 3, (0, 4)), r"at least 1, got 3 and \(0, 4\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        ShapesSource(*arguments)
    with pytest.raises(DataError, match="not 2"):
        ShapesSource("train", 3, channels=2)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_raises(index):
    with pytest.raises(IndexError, match="outside the 3 images"):
        ShapesSource("train", 3)[index]
