"""The Fréchet distance of thumbnails: by hand, against a matrix square root, and from one set to itself."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from jaxseg.metrics.frechet import frechet_distance, thumbnails


def test_thumbnails_are_means_of_the_cells():
    images = np.arange(2 * 8 * 12 * 3, dtype=np.uint8).reshape(2, 8, 12, 3)
    expected = images.reshape(2, 4, 2, 4, 3, 3).mean((2, 4)).reshape(2, -1) / 255
    np.testing.assert_allclose(thumbnails(images), expected)
    uneven = np.random.default_rng(0).random((1, 7, 5, 1))
    assert thumbnails(uneven, side=2)[0, 0] == pytest.approx(uneven[0, :4, :2].mean())
    with pytest.raises(ValueError, match="Thumbnails of 4x4 pixels need images of at least that size, got 3x9"):
        thumbnails(np.zeros((1, 3, 9, 3)))


def test_distance_is_the_formula_of_the_paper():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 6)), rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) + 0.5
    of_a, of_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    apart = np.sum((a.mean(0) - b.mean(0)) ** 2)
    expected = apart + np.trace(of_a + of_b - 2 * sqrtm(of_a @ of_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2.0) == pytest.approx(6 * 4)
    one = np.array([[0.0], [2.0]])  # variance 2
    assert frechet_distance(one, 3 * one) == pytest.approx((1 - 3) ** 2 + (np.sqrt(2) - 3 * np.sqrt(2)) ** 2)


def test_too_few_rows_are_named():
    with pytest.raises(ValueError, match="at least two rows of one length"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
