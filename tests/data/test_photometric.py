"""The second view: other colours and less sharp, with every pixel where it was."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data.photometric import blur, make_stronger
from jaxseg.errors import ArgumentError


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(0, 1, (24, 20, 3)).astype(np.float32)


def test_the_blur_is_a_gaussian(image):
    for sigma in (0.0, 0.7, 1.5):
        got = blur(image, sigma, 1.5)
        wanted = image if not sigma else ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest", radius=5)
        np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_views_differ_in_colour_and_stay_in_range(image):
    keys = jax.random.split(jax.random.key(0), 200)
    views = np.asarray(jax.jit(jax.vmap(make_stronger(1.0), in_axes=(0, None)))(keys, image))
    assert views.min() >= 0 and views.max() <= 1
    grey = np.isclose(views[..., :1], views, atol=1e-6).all((1, 2, 3))
    same = np.isclose(views, image, atol=1e-3).all((1, 2, 3))
    assert 0.1 < grey.mean() < 0.3  # a fifth
    assert 0.05 < same.mean() < 0.3  # a fifth keeps its colours, of which a fifth turns grey; the blur is slight here
    brightness = views.mean((1, 2, 3)) / image.mean()
    assert 0.45 < brightness.min() < 0.6 and 1.2 < brightness.max() < 1.5  # clipped at white
    np.testing.assert_array_equal(make_stronger(0.0)(keys[0], image), image)
    weak = np.asarray(jax.jit(jax.vmap(make_stronger(0.2), in_axes=(0, None)))(keys, image))
    assert abs(weak.mean((1, 2, 3)) / image.mean() - 1).max() < 0.11


def test_any_channels_and_a_strength_out_of_range(image):
    key = jax.random.key(3)
    for channels in (1, 4):
        given = np.concatenate([image, image], -1)[..., :channels]
        assert make_stronger(1.0)(key, given).shape == given.shape
    with pytest.raises(ArgumentError, match=r"strength must be a number in \[0, 1\], got 1\.5"):
        make_stronger(1.5)
