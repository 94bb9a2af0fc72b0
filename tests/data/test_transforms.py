"""Image and mask reach one size together; the image like Pillow does it, the mask without new values."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.data.transforms import fill_up, fit_example, pad_to, random_crop, resize_image, resize_label
from jaxseg.types import IGNORE


def _example(h: int, w: int, channels: int = 3, dtype: type = np.uint8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng((h, w, channels))
    image = rng.integers(0, np.iinfo(dtype).max + 1, (h, w, channels)).astype(dtype)
    return {"image": image, "label": rng.integers(0, 5, (h, w)).astype(np.uint8)}


@pytest.mark.parametrize("size", [(16, 24), (7, 5), (40, 61), (1, 1)])
def test_resize_is_pillows(size):
    example = _example(33, 47)
    image, label = fit_example(example, size, "resize", np.random.default_rng(0))
    target = (size[1], size[0])
    np.testing.assert_array_equal(image, Image.fromarray(example["image"]).resize(target, Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(label, Image.fromarray(example["label"]).resize(target, Image.Resampling.NEAREST))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resize_treats_channels_alike(channels, dtype):
    image = _example(20, 30, channels, dtype)["image"]
    resized = resize_image(image, (9, 14))
    assert resized.shape == (9, 14, channels) and resized.dtype == dtype
    for c in range(channels):
        np.testing.assert_allclose(resized[..., c], resize_image(image[..., c : c + 1], (9, 14))[..., 0], atol=1)


def test_a_constant_stays_constant_in_8_and_16_bit():
    for value, dtype in ((255, np.uint8), (65535, np.uint16), (40000, np.uint16)):
        np.testing.assert_array_equal(resize_image(np.full((9, 7, 3), value, dtype), (20, 3)), value)


def test_shrinking_averages_the_covered_area():
    stripes = np.zeros((8, 64, 1), np.uint8)
    stripes[:, ::2] = 200
    np.testing.assert_allclose(resize_image(stripes, (8, 8))[:, 1:-1], 100, atol=2)


def test_an_edge_moves_with_the_mask():
    label = np.zeros((32, 32), np.uint8)
    label[:, 16:] = 1
    image = np.repeat(label[..., None] * 255, 3, axis=-1)
    image, label = fit_example({"image": image, "label": label}, (64, 48), "resize", np.random.default_rng(0))
    np.testing.assert_array_equal(image[..., 0] > 127, label == 1)


def test_the_mask_gets_no_new_values():
    label = np.random.default_rng(0).choice(np.array([0, 7, IGNORE], np.uint8), (30, 40))
    assert set(np.unique(resize_label(label, (17, 23)))) <= {0, 7, IGNORE}


def test_crop_cuts_the_same_window_of_both():
    label = np.arange(20 * 12).reshape(20, 12).astype(np.uint8)
    image, corners = np.repeat(label[..., None], 3, axis=-1), set()
    for seed in range(40):
        cut, mask = random_crop(image, label, (8, 6), np.random.default_rng(seed))
        assert cut.shape == (8, 6, 3) and mask.shape == (8, 6)
        np.testing.assert_array_equal(cut[..., 0], mask)
        corners.add(int(mask[0, 0]))
    assert len(corners) > 20


@pytest.mark.parametrize("shape", [(5, 30), (30, 5), (5, 5), (1, 1)])
def test_crop_extends_what_is_too_small_as_evaluation_does_and_ignores_it(shape):
    example = _example(*shape)
    image, label = fit_example(example, (16, 12), "crop", np.random.default_rng(0))
    assert image.shape == (16, 12, 3) and label.shape == (16, 12)
    h, w = min(shape[0], 16), min(shape[1], 12)
    assert (label[:h, :w] < 5).all()
    assert (label[h:] == IGNORE).all() and (label[:, w:] == IGNORE).all()
    np.testing.assert_array_equal(image, fill_up(image[:h, :w], (16, 12)))
    whole = _example(*shape)["image"]
    assert any(np.array_equal(image[:h, :w], whole[i : i + h, j : j + w]) for i in range(15) for j in range(19))


def test_crop_repeats_with_its_seed():
    example = _example(40, 40)
    first, second = (fit_example(example, (8, 8), "crop", np.random.default_rng(5))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="'resize' or 'crop'"):
        fit_example(_example(4, 4), (4, 4), "squeeze", np.random.default_rng(0))
    with pytest.raises(ValueError, match="does not fit"):
        pad_to(np.zeros((5, 5)), (4, 9), 0)
