"""Colours and quality: the peers' results, exactly nothing where a change is off, and no draw that another changes."""

import io

import jax
import numpy as np
import pytest
from helpers import oracles
from PIL import Image
from scipy import ndimage

from jaxseg.data import degrade as ops
from jaxseg.data.augment import make_augment
from jaxseg.data.colors import adjust_gamma, adjust_hue
from jaxseg.errors import ArgumentError


@pytest.fixture(scope="module")
def image():
    """A smooth picture with an outline, f32[22,27,3] in steps of 1/255."""
    noise = np.random.default_rng(0).uniform(0, 1, (22, 27, 3))
    smooth = ndimage.gaussian_filter(noise, (2, 2, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    smooth[5:14, 8:19] = 1 - smooth[5:14, 8:19]
    return (np.round(smooth * 255) / 255).astype(np.float32)


@pytest.mark.parametrize("turn", [-0.4, -0.1, 0.0, 0.25, 0.5])
def test_hue_is_that_of_torchvision(image, turn):
    torch = pytest.importorskip("torch")
    oracles.torchvision()
    from torchvision.transforms.v2 import functional

    with_primaries = np.concatenate([image, np.eye(3, dtype=np.float32)[None].repeat(9, 1)])
    wanted = functional.adjust_hue(torch.from_numpy(with_primaries).permute(2, 0, 1), turn).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(adjust_hue(with_primaries, turn), wanted, atol=2e-5)


def test_hue_and_gamma_keep_grey_alpha_black_and_white(image):
    grey = image[:, :, :1].repeat(3, 2)
    np.testing.assert_array_equal(adjust_hue(grey, 0.3), grey)
    np.testing.assert_array_equal(adjust_hue(image[:, :, :1], 0.3), image[:, :, :1])
    with_alpha = np.concatenate([image, image[:, :, :1]], 2)
    for change in (lambda each: adjust_hue(each, 0.3), lambda each: adjust_gamma(each, 1.7)):
        np.testing.assert_array_equal(change(with_alpha)[:, :, 3], with_alpha[:, :, 3])
    np.testing.assert_allclose(adjust_gamma(image, 1.7), image.astype(np.float64) ** 1.7, atol=1e-6)
    with pytest.raises(ValueError, match="have a hue, got 2 channels"):
        adjust_hue(image[:, :, :2], 0.1)


@pytest.mark.parametrize("quality", [5, 49, 50, 90])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_compression_is_that_of_libjpeg(image, quality, mode):
    """A coefficient in the middle of two steps may be rounded the other way, which whole numbers decide elsewhere."""
    given = image if mode == "RGB" else image[:, :, :1]
    stored = np.round(given * 255).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(stored.squeeze(), mode).save(written, "jpeg", quality=quality, subsampling=0)
    wanted = np.asarray(Image.open(written), np.float64).reshape(stored.shape)
    got = np.round(np.asarray(ops.compress(given, float(quality))) * 255)
    assert np.abs(got - wanted).mean() < 0.5
    assert np.abs(got - wanted).max() <= 8 and np.quantile(np.abs(got - wanted), 0.98) <= 3
    assert np.abs(stored - wanted).mean() > 2 * np.abs(got - wanted).mean()


def test_low_resolution_is_shrunk_to_the_nearest_and_enlarged_linearly(image):
    np.testing.assert_array_equal(ops.lower_resolution(image, 1.0), image)
    row = np.arange(8, dtype=np.float32)[None, :, None].repeat(4, 0) ** 2
    got = np.asarray(ops.lower_resolution(row, 0.5))[:, :, 0]
    np.testing.assert_allclose(got[0], [0, 2, 4, 10, 16, 26, 36, 42.5])  # 0, 4, 16, 36 and the last, 49
    np.testing.assert_array_equal(got, got[:1].repeat(4, 0))
    assert np.ptp(np.diff(np.asarray(ops.lower_resolution(image, 0.2)), axis=1)) < np.ptp(np.diff(image, axis=1))


def test_noise_and_erasing(image):
    key = jax.random.key(0)
    np.testing.assert_array_equal(ops.add_noise(key, image, 0.0), image)
    middle = np.full((60, 60, 3), 0.5, np.float32)
    noisy = np.asarray(ops.add_noise(key, middle, 0.1))
    assert abs(noisy.std() - 0.1) < 0.005 and abs(noisy.mean() - 0.5) < 0.005
    np.testing.assert_array_equal(ops.erase(key, image, False), image)
    keys = jax.random.split(key, 300)
    gone = np.asarray(jax.vmap(lambda key: ops.erase(key, middle, True))(keys) != 0.5).all(-1)
    rows, columns = gone.any(2).sum(1), gone.any(1).sum(1)
    np.testing.assert_array_equal(gone.sum((1, 2)), rows * columns)  # a rectangle each
    shares = gone.mean((1, 2))
    assert 0.01 < shares.min() < 0.05 and 0.28 < shares.max() < 0.36
    tall = rows / columns
    assert tall.min() < 0.4 and tall.max() > 2.5 and tall.min() > 0.2 and tall.max() < 5
    assert gone.any((0, 1)).all() and gone.any((0, 2)).all()


CHANGES = {
    "perspective": 0.3,
    "elastic": 2.0,
    "gamma": (0.5, 2.0),
    "hue": 0.2,
    "blur": 1.5,
    "low_resolution": 0.5,
    "noise": 0.1,
    "jpeg": 10,
    "erase": 0.5,
}


def test_half_of_the_images_change_and_others_stay(image):
    keys, label = jax.random.split(jax.random.key(1), 200), np.zeros(image.shape[:2], np.int32)
    for name, share in (("blur", 0.5), ("low_resolution", 0.5), ("noise", 0.5), ("jpeg", 0.5), ("erase", 0.5)):
        change = jax.vmap(make_augment(**{name: CHANGES[name]}), in_axes=(0, None, None))
        got, kept = change(keys, image, label)
        changed = (np.asarray(got) != image).any((1, 2, 3))
        assert abs(changed.mean() - share) < 0.12, name
        np.testing.assert_array_equal(kept, 0)


def test_a_change_leaves_the_draws_of_the_others(image):
    """With colours off, all of these give the label of the flip, zoom and crop alone; and each its own image."""
    label = np.random.default_rng(1).integers(0, 5, image.shape[:2]).astype(np.int32)
    key, base = jax.random.key(5), {"flip_horizontal": 0.5, "zoom": (0.7, 1.4), "crop": (12, 14)}
    plain, moved = make_augment(**base)(key, image, label)
    unmoved = {name: value for name, value in CHANGES.items() if name not in ("perspective", "elastic")}
    together, same = make_augment(**base, **unmoved)(key, image, label)
    np.testing.assert_array_equal(same, moved)
    assert np.abs(together - plain).max() > 0.05
    noisy, _ = make_augment(**base, noise=0.1)(key, image, label)
    np.testing.assert_array_equal(make_augment(**base, noise=0.1, gamma=(1.0, 1.0 + 1e-9))(key, image, label)[0], noisy)
    hidden, _ = make_augment(**base, erase=1.0)(key, image, label)
    bright, _ = make_augment(**base, erase=1.0, brightness=0.3)(key, image, label)
    gone = (np.asarray(hidden) != np.asarray(plain)).all(2)
    assert gone.any() and not gone.all()
    np.testing.assert_array_equal(np.asarray(bright)[gone], np.asarray(hidden)[gone])


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_any_channels(image, channels):
    given = np.concatenate([image, image], 2)[:, :, :channels]
    got, _ = make_augment(**CHANGES)(jax.random.key(2), given, np.zeros(given.shape[:2], np.int32))
    assert got.shape == given.shape and got.min() >= 0 and got.max() <= 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("hue", 0.6, r"hue must be a number in \[0, 0\.5\]"),
        ("perspective", 0.5, r"perspective must be a number in \[0, 0\.5\)"),
        ("low_resolution", 0.0, r"low_resolution must be a number in \(0, 1\]"),
        ("jpeg", 101, r"jpeg must be a whole number in \[0, 100\]"),
        ("blur", 40, r"blur must be a number in \[0, 32\]"),
        ("elastic_spacing", 0.5, "elastic_spacing must be a number of at least 1"),
    ],
)
def test_values_out_of_range(name, value, expected):
    with pytest.raises(ArgumentError, match=expected):
        make_augment(**{name: value})
