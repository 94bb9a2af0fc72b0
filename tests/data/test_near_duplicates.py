"""Near-duplicates: what is found, what is not, and the search against every pair compared."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import fft, ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from jaxseg.data import near_duplicates
from jaxseg.data.leaks import about_leaks, find_leaks
from jaxseg.data.near_duplicates import Sketch, find_links, groups_of, sketch


def picture(seed, size=(72, 96)):
    """Returns u8[h,w,3] of soft blobs, whatever the seed of the same mean and contrast."""
    noise = np.random.default_rng(seed).normal(size=(*size, 3))
    soft = ndimage.gaussian_filter(noise, (size[0] / 12, size[1] / 12, 0))
    return np.clip(128 + 40 * (soft - soft.mean()) / soft.std(), 0, 255).astype(np.uint8)


def resized(image, factor):
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def as_jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


CHANGES = {
    "itself": lambda image: image,
    "half the size": lambda image: resized(image, 0.5),
    "larger": lambda image: resized(image, 1.7),
    "JPEG": lambda image: as_jpeg(image, 20),
    "brighter": lambda image: np.clip(1.35 * image.astype(float), 0, 255).astype(np.uint8),
    "darker": lambda image: (0.4 * image).astype(np.uint8),
    "16 bits": lambda image: image.astype(np.uint16) * 257,
    "grey": lambda image: image.mean(-1, keepdims=True).astype(np.uint8),
    "another aspect": lambda image: resized(image, 1.0)[:, ::2],
    "all at once": lambda image: as_jpeg((0.7 * resized(image, 0.6)).astype(np.uint8), 40),
}


@pytest.fixture(scope="module")
def others():
    """Sketches of forty pictures that differ."""
    return [sketch(picture(seed)) for seed in range(40)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_found(change, others):
    changed = [sketch(CHANGES[change](picture(seed))) for seed in (3, 7, 20)]
    assert find_links([*others, *changed]) == [(3, 40), (7, 41), (20, 42)]


def test_other_pictures_are_not_found(others):
    assert find_links(others) == []
    turned = [
        sketch(image) for image in (picture(0)[::-1], picture(0)[:, ::-1], 255 - picture(0), picture(0)[:48, :48])
    ]
    assert find_links([others[0], *turned]) == []


def test_pictures_of_one_colour_are_left_out():
    flat = [sketch(np.full((20, 20, 3), value, np.uint8)) for value in (0, 0, 90)]
    assert all(each.flat for each in flat) and find_links(flat) == [] and find_links([]) == []


def test_a_single_pixel_is_a_picture():
    assert sketch(np.array([[[5, 6, 7]]], np.uint8)).flat and not sketch(picture(0, (3, 900))).flat


def test_the_hash_is_that_of_the_lowest_frequencies():
    found = sketch(picture(5))
    small = found.picture.astype(float)
    low = fft.dctn(small)[:8, :8].ravel()[1:]
    bits = (low > np.median(low)).astype(np.uint8)
    own = np.unpackbits(np.array([found.hash], ">u8").view(np.uint8))[:63]
    assert (bits != own).sum() <= 1  # the picture is rounded to whole numbers


@pytest.mark.parametrize("at_a_time", [2**18, 50])
def test_the_search_finds_what_comparing_every_pair_finds(at_a_time, monkeypatch):
    monkeypatch.setattr(near_duplicates, "_PAIRS", at_a_time)
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2**64, 12, np.uint64)
    hashes = []
    for _ in range(300):
        flips = rng.permutation(64)[: rng.integers(0, 7)]
        hashes.append(int(rng.choice(centres)) ^ sum(1 << int(bit) for bit in flips))
    same = picture(0, (32, 32))[..., 0]
    links = find_links([Sketch(each, same, False) for each in hashes])
    array = np.array(hashes, np.uint64)
    near = np.bitwise_count(array[:, None] ^ array[None]) <= near_duplicates.DISTANCE
    count, labels = connected_components(coo_matrix(near))
    expected = sorted(tuple(np.flatnonzero(labels == i).tolist()) for i in range(count) if (labels == i).sum() > 1)
    assert groups_of(links) == expected and len(links) == 300 - count


def test_pictures_of_near_hashes_must_look_alike():
    one, other = picture(0, (32, 32))[..., 0], picture(1, (32, 32))[..., 0]
    assert find_links([Sketch(5, one, False), Sketch(5, other, False), Sketch(4, one, False)]) == [(0, 2)]


def test_leaks_between_splits(others):
    copy = [sketch(as_jpeg(picture(seed), 50)) for seed in (1, 2, 2)]
    leaks = find_leaks({"train": others[:5], "val": [others[9], copy[0], copy[1]], "test": [copy[2], others[11]]})
    assert leaks.within == {"train": 0, "val": 0, "test": 0}
    assert leaks.between == [(("test", 0), ("train", 2)), (("val", 1), ("train", 1)), (("val", 2), ("train", 2))]
    sentence = about_leaks(leaks, lambda place: f"{place[0]}/{place[1]}.png")[0]
    assert sentence.startswith(
        "test/0.png (test) and train/2.png (train) are nearly the same picture: what test scores"
    )


def test_copies_within_a_split_are_counted_and_are_no_leak(others):
    leaks = find_leaks({"train": [others[0], others[1], others[0], others[0]], "val": [others[2], others[2]]})
    assert leaks.alike == [(("train", 2), ("train", 0)), (("train", 3), ("train", 0))]
    assert leaks.within == {"train": 2, "val": 1} and leaks.between == []
