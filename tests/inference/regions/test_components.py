"""Components, holes and specks of label maps, by hand and against scikit-image."""

import numpy as np
import pytest

from jaxseg.errors import ArgumentError
from jaxseg.inference.regions import choose_classes, fill_holes, find_components, remove_small


def drawn(text):
    """A label map, a digit for each pixel, "i" for IGNORE."""
    return np.array([[255 if c == "i" else int(c) for c in row] for row in text.split()], np.uint8)


def test_components_of_each_class_by_hand():
    classes = drawn("1100 0010 1i02 1022")
    labels, owners = find_components(classes, connectivity=4)
    # Row by row inside a class: background 1 to 4, class 1: 5 to 7, class 2: 8.
    np.testing.assert_array_equal(labels, [[5, 5, 1, 1], [2, 2, 6, 1], [7, 0, 3, 8], [7, 4, 8, 8]])
    np.testing.assert_array_equal(owners, [0, 0, 0, 0, 1, 1, 1, 2])
    labels, owners = find_components(classes, only=(1,), connectivity=8)
    np.testing.assert_array_equal(labels, [[1, 1, 0, 0], [0, 0, 1, 0], [2, 0, 0, 0], [2, 0, 0, 0]])
    np.testing.assert_array_equal(owners, [1, 1])


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_are_those_of_scikit_image(connectivity):
    measure = pytest.importorskip("skimage.measure")
    classes = np.random.default_rng(connectivity).integers(0, 3, (30, 40)).astype(np.uint8)
    labels, owners = find_components(classes, connectivity=connectivity)
    expected = measure.label(classes, background=-1, connectivity=connectivity // 4)
    pairs = np.unique(np.stack([labels, expected], -1).reshape(-1, 2), axis=0)
    assert len(pairs) == len(owners) == expected.max()  # one to one
    np.testing.assert_array_equal(owners[labels - 1], classes)


def test_holes_are_filled_by_hand():
    ring = drawn("00000 01110 01010 01110 00000")
    np.testing.assert_array_equal(fill_holes(ring, (1,)), drawn("00000 01110 01110 01110 00000"))
    # The background has a hole too, the ring, and fills it if it is asked to: 0 comes first.
    assert not fill_holes(ring).any()
    # A hole that reaches the border of the image, or the outside by a corner in a 4-connected component, is none.
    np.testing.assert_array_equal(fill_holes(drawn("101 111"), (1,)), drawn("101 111"))
    open_corner = drawn("1110 1010 1100 0000")
    np.testing.assert_array_equal(fill_holes(open_corner, (1,), 8), drawn("1110 1110 1100 0000"))
    np.testing.assert_array_equal(fill_holes(open_corner, (1,), 4), open_corner)


def test_a_hole_is_filled_with_what_lies_in_it_up_to_an_area_and_without_ignored_pixels():
    nested = drawn("111111 100201 1i0001 111111")
    np.testing.assert_array_equal(fill_holes(nested, (1,)), drawn("111111 111111 1i1111 111111"))
    np.testing.assert_array_equal(fill_holes(nested, (1,), max_area=7), nested)
    with pytest.raises(ArgumentError, match="max_area must be a number of pixels of at least 0, got -1"):
        fill_holes(nested, max_area=-1)


def test_specks_take_a_given_class_or_that_of_the_longest_border():
    classes = drawn("11122 11122 11322 11122")
    assert remove_small(classes, 1).tolist() == remove_small(classes, 2, only=(1, 2)).tolist() == classes.tolist()
    # The 3 shares three edges with class 1, and one with class 2.
    np.testing.assert_array_equal(remove_small(classes, 2), drawn("11122 11122 11122 11122"))
    np.testing.assert_array_equal(remove_small(classes, 2, to=0), drawn("11122 11122 11022 11122"))


def test_the_smallest_speck_joins_first_and_makes_its_neighbour_grow():
    # 2 (one pixel) joins 3, which then has 6 pixels and stays.
    grown = remove_small(drawn("1113331 1113231 1111111"), 6)
    np.testing.assert_array_equal(grown, drawn("1113331 1113331 1111111"))
    # The speck between them joins the two halves of class 1, which together are large enough.
    halves = drawn("11211 11211 00000")
    np.testing.assert_array_equal(remove_small(halves, 5, connectivity=4), drawn("11111 11111 00000"))


def test_a_speck_without_a_neighbour_stays():
    alone = drawn("ii1 ii1 iii")
    np.testing.assert_array_equal(remove_small(alone, 50), alone)
    corner = drawn("i1 2i")  # they touch at a corner alone
    np.testing.assert_array_equal(remove_small(corner, 50, connectivity=8), corner)
    assert remove_small(np.zeros((0, 4), np.uint8), 3).shape == (0, 4)


def test_small_components_of_noise_are_gone_and_large_ones_stay():
    classes = np.random.default_rng(0).integers(0, 3, (60, 60)).astype(np.uint8)
    classes[10:30, 10:30] = 1
    cleaned = remove_small(classes, 12)
    labels, owners = find_components(cleaned)
    assert np.bincount(labels.ravel())[1:].min() >= 12 and len(owners) > 1
    assert (cleaned[12:28, 12:28] == 1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_components(np.zeros((2, 2), np.uint8), connectivity=6), "connectivity must be 4 .* got 6"),
        (lambda: find_components(np.zeros((2, 2))), "whole numbers"),
        (lambda: find_components(np.full((2, 2), -1)), "0 to 254, and 255 for ignored pixels; got -1 to -1"),
        (lambda: remove_small(np.zeros((2, 2), np.uint8), -1), "min_area must be .* at least 0, got -1"),
        (lambda: remove_small(np.zeros((2, 2), np.uint8), 2, to=255), "to must be a class from 0 to 254, got 255"),
        (lambda: choose_classes(("road", "tree"), ["tre"]), "'tre' is no class of the run. Did you mean 'tree'"),
    ],
)
def test_wrong_arguments_are_sentences(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_the_background_is_left_out_by_its_name():
    assert choose_classes(("Background", "road", "tree")) == (1, 2) == choose_classes(("a", "b", "c"), ["c", "b", "c"])
    assert choose_classes(("road", "tree")) == (0, 1)
