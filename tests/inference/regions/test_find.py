"""The table of regions by hand and against scikit-image, and the split of objects that touch."""

import sys

import numpy as np
import pytest

from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.inference.regions import find_regions, measure, split_touching


def discs(*places, size=(40, 60)):
    """bool[h,w], the union of discs (y, x, radius)."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.any([(y - cy) ** 2 + (x - cx) ** 2 <= r**2 for cy, cx, r in places], axis=0)


def test_the_table_by_hand():
    classes = np.zeros((5, 6), np.uint8)
    classes[1:4, 1:5] = 1
    classes[4, 5] = 2
    shares = np.full((5, 6, 3), 0.25, np.float32)
    shares[1:4, 1:5, 1], shares[1, 1, 1], shares[4, 5, 2] = 0.5, 1.0, 0.75
    regions = find_regions(classes, shares, only=(1, 2), connectivity=4)
    np.testing.assert_array_equal(regions.labels, classes)
    assert len(regions) == 2 and regions.classes.tolist() == [1, 2] and regions.area.tolist() == [12, 1]
    np.testing.assert_array_equal(regions.box, [[1, 1, 4, 5], [4, 5, 5, 6]])
    np.testing.assert_allclose(regions.centroid, [[2, 2.5], [4, 5]])
    # The line through the middles of the border pixels of 3x4 pixels; a single pixel has no line.
    np.testing.assert_allclose(regions.perimeter, [2 * (2 + 3), 0])
    np.testing.assert_allclose(regions.confidence, [(11 * 0.5 + 1) / 12, 0.75])
    assert [mask.shape for mask in regions.masks()] == [(3, 4), (1, 1)] and regions.mask(0).all()


def test_confidence_of_a_binary_network():
    shares = np.array([[0.9, 0.7, 0.2]], np.float32)[..., None]
    regions = find_regions(np.array([[1, 1, 0]], np.uint8), shares)
    np.testing.assert_allclose(regions.confidence, [0.8, 0.8], rtol=1e-6)
    assert regions.classes.tolist() == [0, 1]


@pytest.mark.parametrize("connectivity", [4, 8])
def test_the_table_is_that_of_scikit_image(connectivity):
    skimage = pytest.importorskip("skimage.measure")
    classes = np.random.default_rng(connectivity).integers(0, 2, (25, 30)).astype(np.uint8)
    classes[3:15, 4:20] = 1
    regions = find_regions(classes, only=(1,), connectivity=connectivity)
    props = skimage.regionprops(regions.labels)
    np.testing.assert_array_equal(regions.area, [p.area for p in props])
    np.testing.assert_array_equal(regions.box, [p.bbox for p in props])
    np.testing.assert_allclose(regions.centroid, [p.centroid for p in props])
    lines = [skimage.perimeter(np.pad(p.image, 1), 4) for p in props]
    np.testing.assert_allclose(regions.perimeter, lines, atol=1e-9)


def test_cleaning_comes_before_the_components():
    classes = np.zeros((12, 12), np.uint8)
    classes[2:8, 2:8] = 1
    classes[4, 4] = 0
    classes[10, 10] = 2
    regions = find_regions(classes, only=(1, 2), min_area=4, fill=True)
    assert regions.area.tolist() == [36] and regions.labels[4, 4] == 1 and regions.labels[10, 10] == 0
    assert find_regions(classes, only=(1,), fill=0).area.tolist() == [35]
    assert find_regions(classes, only=(1,), min_area=4).area.tolist() == [36]  # the hole is too small to stay
    assert find_regions(classes, only=(2,), min_area=2, small_to=2).area.tolist() == [1, 1]


def test_an_image_without_regions_has_an_empty_table():
    regions = find_regions(np.zeros((4, 4), np.uint8), np.ones((4, 4, 1), np.float32), only=(1,), split=True)
    assert len(regions) == 0 and regions.box.shape == (0, 4) and regions.centroid.shape == (0, 2)
    assert regions.confidence is not None and regions.confidence.shape == (0,)


def test_touching_discs_are_split_at_their_waist_and_others_stay():
    pytest.importorskip("skimage")
    classes = discs((15, 15, 9), (15, 31, 9), (30, 48, 6)).astype(np.uint8)
    assert len(find_regions(classes, only=(1,))) == 2
    regions = find_regions(classes, only=(1,), split=True)
    assert len(regions) == 3
    np.testing.assert_array_equal(regions.labels > 0, classes > 0)  # no line of the watershed is lost
    np.testing.assert_allclose(regions.centroid, [[15, 15], [15, 31], [30, 48]], atol=0.75)
    # The waist is 9 - sqrt(9² - 8²) = 4.9 pixels deep.
    assert (
        len(find_regions(classes, only=(1,), split=4.0)) == 3 and len(find_regions(classes, only=(1,), split=6.0)) == 2
    )


def test_two_tops_of_one_height_are_one_hill():
    """A bar has many tops with hardly a saddle between them."""
    pytest.importorskip("skimage")
    bar = np.zeros((20, 60), np.int32)
    bar[5:12, 4:56] = 1
    bar[4, 8:14] = bar[4, 40:46] = 1
    np.testing.assert_array_equal(split_touching(bar), bar)


def test_a_split_keeps_classes_and_joins_small_parts():
    pytest.importorskip("skimage")
    classes = 2 * discs((15, 15, 9), (15, 27, 4)).astype(np.uint8)
    classes[30:, :20] = 1
    apart = find_regions(classes, only=(1, 2), split=0.75)
    assert apart.classes.tolist() == [1, 2, 2] and apart.area.min() < 60
    whole = find_regions(classes, only=(1, 2), split=0.75, min_area=60)
    assert whole.classes.tolist() == [1, 2] and whole.area.tolist() == [200, int((classes == 2).sum())]


def test_without_scikit_image_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    classes = np.ones((4, 4), np.uint8)
    assert len(find_regions(classes)) == 1
    with pytest.raises(ConfigError, match=r"needs scikit-image: pip install -e '\.\[regions\]' installs it"):
        find_regions(classes, split=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_area": -3}, "min_area must be a whole number of at least 0, got -3"),
        ({"connectivity": 5}, "connectivity must be one of 4, 8, got 5"),
        ({"split": 0.0}, "split must be True or False or a number above 0, got 0.0"),
        ({"probabilities": np.ones((2, 2, 3))}, r"The classes are \[4, 4\], but the probabilities \[2, 2, 3\]"),
        ({"probabilities": np.ones((4, 4, 2))}, "class 3, but the probabilities are those of 2 classes"),
    ],
)
def test_wrong_arguments_are_sentences(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        find_regions(np.full((4, 4), 3, np.uint8), **arguments)


def test_regions_of_given_numbers_have_no_gap():
    with pytest.raises(ArgumentError, match="have the numbers 1 to 2, each at least once"):
        measure(np.array([[1, 3]]), np.array([0, 1]))
