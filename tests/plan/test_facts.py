"""What one image says, against values counted by hand, and the sums of several."""

import numpy as np
import pytest

from jaxseg.config import default_config, update
from jaxseg.data import make_source
from jaxseg.data.values import values_of
from jaxseg.plan.facts import BINS, bin_of, class_sums, diameter, difference, facts_of, quantile_of, typical_size
from jaxseg.plan.fingerprint import fingerprint


def example():
    """Returns an image of 6x10 and its mask: objects of class 1 of 4, 9 and 3 pixels, and two ignored pixels."""
    label = np.zeros((6, 10), np.uint8)
    label[0:2, 0:2] = 1
    label[3:6, 6:9] = 1
    label[0, 5:8] = 1
    label[5, 0:2] = 255
    image = np.full((6, 10, 3), 50, np.uint8)
    image[label == 1] = 200
    return image, label


def test_one_image_by_hand():
    image, label = example()
    facts = facts_of(image, label)
    assert facts.size == (6, 10) and facts.bits == 8 and not facts.coloured and facts.ignored == 2
    assert facts.largest == pytest.approx(200 / 255)
    sums = class_sums(image, label, 3)
    assert sums.pixels.tolist() == [60 - 16 - 2, 16, 0] and sums.images.tolist() == [1, 1, 0]
    assert sums.grey[1] / 16 == pytest.approx(200 / 255, abs=1e-6)
    assert sums.square[0] / 42 == pytest.approx((50 / 255) ** 2, abs=1e-6)
    # Three pixels are noise; the disc of 4 pixels is 2.26 wide, that of 9 is 3.39.
    assert np.flatnonzero(sums.sizes[1]).tolist() == [round(4 * np.log2(2.2568)), round(4 * np.log2(3.3851))]
    assert sums.upper[1] == 7 and sums.lower[1] == 9 and sums.left[1] == 4 and sums.right[1] == 12
    assert facts.mean == pytest.approx([(16 * 200 + 44 * 50) / 60 / 255] * 3)


def test_the_centre_of_mass_in_the_box_of_an_object():
    """A triangle of rows of 1, 3 and 5 pixels has its mass 4/9 of a row below the middle one: 4/27 of its height."""
    label = np.zeros((8, 20), np.uint8)
    for row, half in enumerate(range(3)):
        label[1 + row, 4 - half : 5 + half] = 1
        label[4 - row, 14 - half : 15 + half] = 2  # upside down
    label[6, 0:3] = 1  # three pixels are noise
    below = class_sums(np.zeros((8, 20, 3), np.uint8), label, 4).below
    assert below[1:] == pytest.approx([4 / 27, -4 / 27, 0])
    label[label == 2] = 1
    assert class_sums(np.zeros((8, 20, 3), np.uint8), label, 4).below[1] == pytest.approx(0)


def test_16_bits_and_colours():
    image, label = example()
    deep = image.astype(np.uint16) * 257
    assert facts_of(deep, label).bits == 16 and facts_of(deep, label).mean == pytest.approx(facts_of(image, label).mean)
    assert class_sums(deep, label, 2).grey == pytest.approx(class_sums(image, label, 2).grey)
    assert facts_of(image * np.array([1, 0, 0], np.uint8), label).coloured


def test_floats_are_no_16_bits():
    image, label = example()
    floats = image.astype(np.float32) / np.float32(255)
    facts, same = facts_of(floats, label), facts_of(image, label)
    assert facts.bits == 0 and facts.largest == pytest.approx(same.largest) and not facts.coloured
    assert facts.mean == pytest.approx(same.mean) and facts.square == pytest.approx(same.square)
    assert class_sums(floats, label, 2).grey == pytest.approx(class_sums(image, label, 2).grey)
    for each, bits, top in [(floats, 0, 1.0), (image, 8, 255), (image.astype(np.uint16), 16, 65535)]:
        found = values_of(each)
        assert (found.bits, found.top, found.largest) == (bits, top, each.max())


def test_sums_of_two_images_are_those_of_both():
    image, label = example()
    one, other = class_sums(image, label, 3), class_sums(image, label.T.copy().reshape(6, 10), 3)
    both = one + other
    assert both.pixels.tolist() == (one.pixels + other.pixels).tolist() and both.sizes.shape == (3, BINS)


def test_quantiles_of_diameters():
    bins = np.bincount(bin_of(np.array([2.0] * 80 + [16.0] * 20)), minlength=BINS)
    assert [quantile_of(bins, share) for share in (0.1, 0.5, 0.9)] == [2.0, 2.0, 16.0]
    assert typical_size(bins) == 16.0  # 20 large objects have sixteen times the pixels of 80 small ones
    assert quantile_of(np.zeros(BINS, int), 0.5) == 0.0
    assert bin_of(np.array([0.5, 1e9])).tolist() == [0, BINS - 1]
    assert diameter(np.array([np.pi * 25])) == pytest.approx([10])


def test_the_difference_of_halves():
    assert difference(np.array([3, 1]), np.array([30, 10])) == 0
    assert difference(np.array([3, 0]), np.array([0, 7])) == 1
    assert difference(np.array([3, 1]), np.array([1, 1])) == pytest.approx(0.25)
    assert difference(np.array([3, 1]), np.array([0, 0])) == 0


def test_the_fingerprint_of_shapes():
    config = default_config()
    update(config, data__shapes_train=12, data__shapes_val=5, data__size=(32, 48))
    splits = {split: make_source(config, split) for split in ("train", "val")}
    found = fingerprint(splits)
    assert found.images == {"train": 12, "val": 5} and found.train == 12
    assert found.sizes == ((32, 48, 12),) and found.middle == found.largest == (32, 48) and found.aspects == (1.5, 1.5)
    assert found.area == 12 * 32 * 48
    assert found.channels == 3 and found.bits == 8 and found.coloured == 1.0 and found.num_leaks == 0
    labels = np.stack([splits["train"][i]["label"] for i in range(12)])
    images = np.stack([splits["train"][i]["image"] for i in range(12)]) / 255
    names = splits["train"].info.classes
    for i, name in enumerate(names):
        assert found.classes[i].name == name
        assert found.classes[i].share == pytest.approx((labels == i).mean(), abs=1e-6)
        assert found.classes[i].images == (labels == i).any((1, 2)).sum()
        if (labels == i).any():
            assert found.classes[i].mean == pytest.approx(images.mean(-1)[labels == i].mean(), abs=1e-4)
            assert found.classes[i].std == pytest.approx(images.mean(-1)[labels == i].std(), abs=1e-3)
    assert found.mean == pytest.approx(images.mean((0, 1, 2)), abs=1e-4)
    assert found.std == pytest.approx(images.std((0, 1, 2)), abs=1e-4)
    assert names[0] not in {each.name for each in found.things}
    assert fingerprint(splits) == found
