"""Corrupted images: their definitions in NumPy and by peers, their strengths, and one image stays the same."""

import io
import time

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, special

from jaxseg.data import corruptions as ops
from jaxseg.data import make_eval_loader
from jaxseg.data.corruptions import CORRUPTIONS, Corrupted, corrupt, corrupt_stored, possible_corruptions
from jaxseg.data.reading import Reading
from jaxseg.data.shapes import ShapesSource
from jaxseg.errors import ArgumentError, DataError

SIZE = (52, 64)  # the sides of pixelate have no pixel on the border of two blocks
SCALE = 52 / 224
HALF = 0.5 / 255 + 1e-5  # what rounding to 8 bits changes


@pytest.fixture(scope="module")
def image():
    """A smooth picture with an outline, grey, black and white, f32[h,w,3] in steps of 1/255."""
    noise = np.random.default_rng(0).uniform(0, 1, (*SIZE, 3))
    smooth = ndimage.gaussian_filter(noise, (2, 2, 0))
    smooth = 0.1 + 0.8 * (smooth - smooth.min()) / np.ptp(smooth)
    smooth[15:34, 18:49] = 1 - smooth[15:34, 18:49]
    smooth[:6, :6] = 0.4
    smooth[-6:, :6], smooth[-6:, -6:] = 0, 1
    return (np.round(smooth * 255) / 255).astype(np.float32)


@pytest.fixture(scope="module")
def programs():
    """{name: the compiled (key, image) -> f32[6,h,w,3], of the strengths 0 to 5}."""

    def program(name):
        return jax.jit(lambda key, image: jax.vmap(lambda s: corrupt(key, image, name, s))(np.arange(6)))

    return {name: program(name) for name in CORRUPTIONS}


@pytest.fixture(scope="module")
def found(programs, image):
    return {name: np.asarray(program(jax.random.key(1), image)) for name, program in programs.items()}


def test_strength_0_is_the_image_and_others_are_further_from_it(found, image):
    for name, images in found.items():
        np.testing.assert_array_equal(images[0], image, err_msg=name)
        assert images.min() >= 0 and images.max() <= 1
        np.testing.assert_allclose(images * 255, np.round(images * 255), atol=1e-3)  # 8 bits
        distance = np.abs(images - image).mean((1, 2, 3))
        if name == "saturate":  # less at 1 and 2, more above
            assert 0 < distance[1] < distance[2] and 0 < distance[3] < distance[4] < distance[5]
        else:
            assert (np.diff(distance) > 0).all(), (name, distance)


def test_noise_has_the_deviations_of_its_definition(programs):
    grey = np.full((*SIZE, 3), 128 / 255, np.float32)
    gaussian, shot, impulse = (
        np.asarray(programs[name](jax.random.key(2), grey))
        for name in ("gaussian_noise", "shot_noise", "impulse_noise")
    )
    assert gaussian[1:3].std((1, 2, 3)) == pytest.approx([0.08, 0.12], rel=0.03)
    assert shot[1:4].std((1, 2, 3)) == pytest.approx(np.sqrt(grey[0, 0, 0] / np.array([60, 25, 12])), rel=0.04)
    assert shot[1:4].mean((1, 2, 3)) == pytest.approx([0.5] * 3, abs=0.01)
    changed = impulse != grey
    assert changed[1:].mean((1, 2, 3)) == pytest.approx([0.03, 0.06, 0.09, 0.17, 0.27], rel=0.1)
    assert set(np.unique(impulse[changed])) == {0, 1} and impulse[changed].mean() == pytest.approx(0.5, abs=0.04)
    assert changed.any(-1).sum() > 1.5 * changed.all(-1).sum()  # channel by channel
    assert (changed[2:] >= changed[1:-1]).all()  # of the same draws


def test_blurs_are_the_sums_of_their_kernels(found, image):
    for strength, (deviation, radius) in enumerate(zip((1, 2, 3, 4, 6), (3, 4, 6, 8, 10)), start=1):
        along = special.ive(np.arange(-8, 9), (deviation * SCALE) ** 2)
        wanted = ndimage.correlate(image.astype(np.float64), np.outer(along, along)[:, :, None], mode="nearest")
        np.testing.assert_allclose(found["gaussian_blur"][strength], wanted, atol=HALF)
        parts = np.arange(-3 + 1 / 128, 3, 1 / 64)
        inside = np.hypot(parts[:, None], parts) <= radius * SCALE
        share = np.maximum(1 - np.abs(np.arange(-3, 4)[:, None] - parts), 0)
        disc = share @ inside @ share.T
        wanted = ndimage.correlate(image.astype(np.float64), (disc / disc.sum())[:, :, None], mode="nearest")
        np.testing.assert_allclose(found["defocus_blur"][strength], wanted, atol=HALF + 0.003)  # of coarser parts


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_the_weakest_strengths_change_small_images(size):
    small = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    for name in ("gaussian_blur", "defocus_blur", "motion_blur", *(() if size[0] > 32 else CORRUPTIONS)):
        changed = np.abs(corrupt_stored(small, name, 1).astype(int) - small).mean()
        assert changed > 1, (name, changed)


def test_motion_averages_along_a_line_about_the_pixel_itself(found, programs, image):
    angle = np.deg2rad(45) * (2 * float(jax.random.uniform(jax.random.key(1))) - 1)
    for strength, (half, deviation) in enumerate(((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), start=1):
        taps = np.arange(1 / 64, 2 * half * SCALE, 1 / 32)
        weights = np.exp(-0.5 * (taps / (deviation * SCALE)) ** 2)
        weights /= weights.sum()
        wanted = np.zeros((*SIZE, 3))
        for weight, along in zip(weights, taps - (weights * taps).sum()):
            down, right = along * np.sin(angle), along * np.cos(angle)
            wanted += weight * ndimage.shift(image.astype(np.float64), (down, right, 0), order=1, mode="nearest")
        np.testing.assert_allclose(found["motion_blur"][strength], wanted, atol=HALF + 0.001)
    block = np.zeros((*SIZE, 3), np.float32)
    block[22:30, 28:36] = 1
    blurred = np.asarray(programs["motion_blur"](jax.random.key(1), block), np.float64)
    rows, columns = (np.tensordot(blurred.sum((-1, 3 - axis)), np.arange(SIZE[axis - 1]), 1) for axis in (1, 2))
    np.testing.assert_allclose(rows / blurred.sum((1, 2, 3)), 25.5, atol=0.05)
    np.testing.assert_allclose(columns / blurred.sum((1, 2, 3)), 31.5, atol=0.05)


def test_colours_are_changed_in_hsv(found, image):
    color = pytest.importorskip("skimage.color")
    hsv = color.rgb2hsv(image.astype(np.float64))
    for strength, (factor, amount) in enumerate(((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)), start=1):
        bright, full = hsv.copy(), hsv.copy()
        bright[..., 2] = np.clip(hsv[..., 2] + strength / 10, 0, 1)
        full[..., 1] = np.clip(hsv[..., 1] * factor + amount, 0, 1)
        np.testing.assert_allclose(found["brightness"][strength], color.hsv2rgb(bright), atol=HALF)
        np.testing.assert_allclose(found["saturate"][strength], color.hsv2rgb(full), atol=HALF)


def test_contrast_is_about_the_mean_of_each_channel(found, image):
    wide = image.astype(np.float64)
    means = wide.mean((0, 1))
    for strength, factor in enumerate((0.4, 0.3, 0.2, 0.1, 0.05), start=1):
        np.testing.assert_allclose(found["contrast"][strength], means + factor * (wide - means), atol=HALF)


def test_jpeg_and_pixelate_are_those_of_pillow(found, image):
    stored = np.round(image * 255).astype(np.uint8)
    h, w = SIZE
    for strength, (quality, scale) in enumerate(zip((25, 18, 15, 10, 7), (0.6, 0.5, 0.4, 0.3, 0.25)), start=1):
        written = io.BytesIO()
        Image.fromarray(stored).save(written, "jpeg", quality=quality, subsampling=0)
        wanted = np.asarray(Image.open(written), np.float64)
        apart = np.abs(255 * found["jpeg"][strength] - wanted)
        assert apart.mean() < 0.1 * np.abs(stored - wanted).mean()  # some coefficients are rounded the other way
        small = Image.fromarray(stored).resize((int(w * scale), int(h * scale)), Image.Resampling.BOX)
        wanted = np.asarray(small.resize((w, h), Image.Resampling.BOX), np.float64)
        np.testing.assert_allclose(255 * found["pixelate"][strength], wanted, atol=1.01)  # Pillow rounds in between


def test_occlusion_covers_its_share_with_one_grey_rectangle(found, image):
    before = np.zeros(SIZE, bool)
    for strength, share in enumerate((0.05, 0.1, 0.2, 0.3, 0.4), start=1):
        changed = (np.abs(found["occlusion"][strength] - image) > 1e-3).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        box = found["occlusion"][strength][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert np.abs(box - 128 / 255).max() < 1e-6
        assert box.shape[:2] == (round(share**0.5 * SIZE[0]), round(share**0.5 * SIZE[1]))
        assert (changed >= before).all()
        before = changed


def test_other_channels():
    assert possible_corruptions(3) == possible_corruptions(4) == tuple(CORRUPTIONS)
    assert [name for name in CORRUPTIONS if name not in possible_corruptions(1)] == ["saturate"]
    assert [name for name in CORRUPTIONS if name not in possible_corruptions(6)] == ["brightness", "saturate"]
    for channels in (1, 6):
        given = jax.ShapeDtypeStruct((9, 11, channels), np.float32)
        for name in possible_corruptions(channels):
            assert jax.eval_shape(lambda x, name=name: corrupt(jax.random.key(0), x, name, 3), given) == given
    with pytest.raises(
        ArgumentError, match=r"saturate changes colours, of images with 3 or 4 channels, and these have"
    ):
        corrupt(jax.random.key(0), np.zeros((4, 4, 1), np.float32), "saturate", 1)
    with pytest.raises(
        ArgumentError, match=r"no corruption 'jpg'\. Did you mean 'jpeg'\? There are gaussian_noise, .*"
    ):
        corrupt(jax.random.key(0), np.zeros((4, 4, 3), np.float32), "jpg", 1)


class Shifted:
    """The images of a source in another order."""

    def __init__(self, source):
        self.info, self.source = source.info, source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[(index + 1) % len(self)]

    def name(self, index):
        return self.source.name((index + 1) % len(self))

    def label_size(self, index):
        return self.source.label_size((index + 1) % len(self))


def test_an_image_is_corrupted_the_same_in_every_order_and_batch():
    source = ShapesSource("val", 5, (16, 16))
    one = Corrupted(source, "gaussian_noise", 3)
    images = np.stack([one[i]["image"] for i in range(5)])
    for batch_size in (1, 4):
        batches = list(make_eval_loader(one, batch_size=batch_size, size=(16, 16), fit="resize"))
        rows = np.concatenate([batch["image"][batch["index"] >= 0] for batch in batches])
        np.testing.assert_array_equal(rows, images)
    other = Corrupted(Shifted(source), "gaussian_noise", 3)
    for i in range(5):
        np.testing.assert_array_equal(other[i]["image"], images[(i + 1) % 5])
        np.testing.assert_array_equal(one[i]["label"], source[i]["label"])
    assert images.dtype == np.uint8 and (one.name(2), one.label_size(2)) == (source.name(2), source.label_size(2))
    noise = images.astype(int) - np.stack([source[i]["image"] for i in range(5)]).astype(int)
    assert np.abs(noise[0] - noise[1]).mean() > 10  # each image has its own
    seeded = Corrupted(source, "gaussian_noise", 3, seed=1)[0]["image"]
    assert np.abs(seeded.astype(int) - images[0].astype(int)).mean() > 10
    np.testing.assert_array_equal(Corrupted(source, "gaussian_noise", 0)[0]["image"], source[0]["image"])


def test_stored_images_are_those_of_the_pure_function(found, image):
    stored = np.round(image * 255).astype(np.uint8)
    for name in ("contrast", "pixelate"):
        apart = np.abs(corrupt_stored(stored, name, 4) - np.round(found[name][4] * 255))
        assert apart.max() <= 1 and apart.mean() < 0.02  # halves are rounded as the last bits of a program fall


def test_images_of_16_bits_are_refused():
    class Deep(Shifted):
        def __getitem__(self, index):
            return {**self.source[index], "image": self.source[index]["image"].astype(np.uint16)}

    with pytest.raises(DataError, match=r"defined for images of 8 bits, and .* is read as uint16\."):
        Corrupted(Deep(ShapesSource("val", 2, (16, 16))), "jpeg", 1)[0]


def test_other_strengths_are_refused():
    source = ShapesSource("val", 2, (16, 16))
    for strength in (9, -1):
        for make in (lambda s: Corrupted(source, "jpeg", s), lambda s: corrupt_stored(source[0]["image"], "jpeg", s)):
            with pytest.raises(ArgumentError, match=rf"is 1, 2, 3, 4 or 5, or 0 for none, got {strength}\."):
                make(strength)


def test_the_limit_of_time_is_that_of_reading(monkeypatch):
    monkeypatch.setattr(ops, "corrupt_stored", lambda image, *rest: time.sleep(0.3) or image)
    split = Corrupted(ShapesSource("val", 2, (16, 16)), "jpeg", 1, reading=Reading(timeout=0.2))
    assert split[0]["image"].shape == (16, 16, 3)


def test_every_strength_has_a_parameter():
    tables = [value for name, value in vars(ops).items() if name.startswith("_") and isinstance(value, tuple)]
    flat = [row for table in tables for row in (table if isinstance(table[0], tuple) else [table])]
    assert len(flat) >= len(CORRUPTIONS) and {len(row) for row in flat} == {len(ops.STRENGTHS)}
