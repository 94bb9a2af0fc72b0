"""Perspective and elastic deformation: image and label move alike, as SciPy and a solved homography move them."""

import jax
import numpy as np
from scipy import ndimage

from jaxseg.data.augment import make_augment
from jaxseg.data.geometry import elastic_shift, tilt_matrix, warp_image, warp_label
from jaxseg.types import IGNORE


def classes_as_image(h=24, w=20, classes=4):
    label = (np.arange(h)[:, None] // 7 + np.arange(w)[None, :] // 6).astype(np.int32) % classes
    return np.eye(classes, dtype=np.float32)[label], label


def test_a_tilt_has_its_scales_and_keeps_its_centre():
    h, w, row, column = 31, 21, 0.3, -0.2
    matrix = np.asarray(tilt_matrix(row, column, (h, w)), np.float64)

    def source(y, x):
        a, b, depth = matrix @ (y, x, 1)
        return np.array([a, b]) / depth

    np.testing.assert_allclose(source(15, 10), (15, 10), atol=1e-5)
    np.testing.assert_allclose(source(30, 10), (15 + 15 / 1.3, 10), atol=1e-5)  # nearer
    np.testing.assert_allclose(source(15, 20), (15, 10 + 10 / 0.8), atol=1e-5)
    corners = [(0, 0), (0, 20), (30, 0), (30, 20)]
    lines = [np.cross((*source(*a), 1), (*source(*b), 1)) for a, b in zip(corners, corners[::-1])]
    crossing = np.cross(*lines[:2])
    np.testing.assert_allclose(crossing[:2] / crossing[2], (15, 10), atol=1e-4)  # diagonals stay straight


def test_image_and_label_under_perspective_and_shifts():
    image, label = classes_as_image()
    matrix = tilt_matrix(0.3, 0.2, label.shape)
    shift = np.asarray(elastic_shift(jax.random.key(3), label.shape, 2.0, 8.0))
    moved = np.asarray(warp_image(image, matrix, (0, 0), None, shift, True))
    rows, columns = np.indices(label.shape) + np.moveaxis(shift, 2, 0)
    y, x, depth = np.einsum("ij,jhw->ihw", np.asarray(matrix, np.float64), [rows, columns, np.ones_like(rows)])
    places = np.array([y / depth, x / depth])
    for channel in range(4):
        wanted = ndimage.map_coordinates(image[..., channel], places, order=1, mode="nearest")
        np.testing.assert_allclose(moved[..., channel], wanted, atol=1e-3)
    got = np.asarray(warp_label(label, matrix, IGNORE, shift, True))
    nearest = np.floor(places + 0.5)
    outside = (np.abs(nearest[0] - 11.5) > 12) | (np.abs(nearest[1] - 9.5) > 10)
    np.testing.assert_array_equal(got == IGNORE, outside)
    sure = moved.max(2) > 0.8
    np.testing.assert_array_equal(moved.argmax(2)[sure & ~outside], got[sure & ~outside])


def test_elastic_shifts():
    """They have their deviation, are smooth, and smoother with a wider elastic_spacing, in an image of its places."""
    keys, label = jax.random.split(jax.random.key(0), 60), np.zeros((48, 48), np.int32)
    places = np.moveaxis(np.indices((48, 48)), 0, 2).astype(np.float32)
    slopes = {}
    for spacing in (12.0, 48.0):
        augment = make_augment(elastic=3.0, elastic_spacing=spacing)
        moved, _ = jax.vmap(augment, in_axes=(0, None, None))(keys, places / 47, label)
        shifts = (np.asarray(moved) * 47 - places)[:, 16:32, 16:32]
        slopes[spacing] = np.abs(np.diff(shifts, axis=1)).mean()
        assert 1.0 < shifts.std() < 3.3
        assert abs(np.corrcoef(shifts[..., 0].ravel(), shifts[..., 1].ravel())[0, 1]) < 0.4
    assert slopes[12.0] > 2 * slopes[48.0] > 0
    fields = np.asarray(jax.vmap(lambda key: elastic_shift(key, (49, 33), 3.0, 16.0))(keys))
    at_points, between = fields[:, ::16, ::16], fields[:, 8::16, 8::16]
    assert at_points.shape[1:3] == (4, 3) and abs(at_points.std() - 3.0) < 0.2
    np.testing.assert_allclose(between.std(), 3.0 * (2 * 0.5625**2 + 2 * 0.0625**2), atol=0.2)  # weights 9/16, -1/16
    neighbours = np.corrcoef(at_points[:, :, 0].ravel(), at_points[:, :, 1].ravel())[0, 1]
    assert abs(neighbours) < 0.12


def test_shifts_beyond_the_horizon():
    image, label = classes_as_image()
    shift = np.full((*label.shape, 2), -60.0, np.float32)
    matrix = tilt_matrix(0.45, 0.45, label.shape)
    assert np.isfinite(warp_image(image, matrix, (0, 0), None, shift, True)).all()
    assert (np.asarray(warp_label(label, matrix, IGNORE, shift, True)) == IGNORE).all()


def test_the_window_of_a_crop_is_that_of_the_whole():
    image, label = classes_as_image()
    given = {"elastic": 2.0, "elastic_spacing": 8.0, "perspective": 0.2}
    key = jax.random.key(1)
    whole, whole_label = make_augment(**given)(key, image, label)
    window, window_label = make_augment(**given, crop=(10, 12))(key, image, label)
    found = [
        (i, j)
        for i in range(15)
        for j in range(9)
        if np.array_equal(whole_label[i : i + 10, j : j + 12], window_label)
        and np.allclose(whole[i : i + 10, j : j + 12], window, atol=1e-6)
    ]
    assert len(found) == 1
