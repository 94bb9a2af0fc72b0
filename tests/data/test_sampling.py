"""Rare class sampling, class-balanced crops, and the counts that they and the class weights come from."""

import itertools

import jax
import numpy as np
import pytest

from jaxseg.data import augment
from jaxseg.data.base import DataInfo
from jaxseg.data.class_counts import image_amounts, label_counts, pixel_counts
from jaxseg.data.crops import balanced_origins
from jaxseg.data.pipeline import make_train_loader
from jaxseg.data.sampling import area_order, class_probabilities, rare_class_order
from jaxseg.errors import DataError
from jaxseg.types import IGNORE


class Labels:
    """Images of 2 x 2 pixels with these labels."""

    def __init__(self, *labels):
        self.labels = [np.array(label, np.uint8).reshape(2, 2) for label in labels]
        self.info = DataInfo(("a", "b", "c"), ((0, 0, 0),) * 3, None, 3)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": np.full((2, 2, 3), index, np.uint8), "label": self.labels[index]}

    def name(self, index):
        return str(index)


SOURCE = Labels([0, 0, 0, 0], [0, 0, 0, 1], [0, 0, IGNORE, 2], [IGNORE] * 4)


def test_counts_by_hand():
    counts = label_counts(SOURCE)
    np.testing.assert_array_equal(counts, [[4, 0, 0], [3, 1, 0], [2, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(pixel_counts(SOURCE), [[9, 1, 1], [11, 4, 3]])
    np.testing.assert_allclose(image_amounts(counts), np.array([9, 1, 1]) * 3 / 11)  # of three labelled images
    np.testing.assert_array_equal(image_amounts(0 * counts), [0, 0, 0])


def test_class_probabilities_by_hand():
    """Shares .5, .5 - T log 2 and .5 - T log 4 would be as 1 : 2 : 4; the class without pixels is never asked for."""
    f = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(
        class_probabilities(1000 * f, 0.1), np.exp((1 - f) / 0.1) / np.exp((1 - f) / 0.1).sum(), rtol=1e-12
    )
    np.testing.assert_allclose(class_probabilities(np.array([0, 7, 7]), 1.0), [0, 0.5, 0.5])
    assert np.isfinite(class_probabilities(np.array([10**9, 1]), 1e-4)).all()
    with pytest.raises(ValueError, match="above 0, got 0"):
        class_probabilities(f, 0.0)
    with pytest.raises(ValueError, match="every class count is 0"):
        class_probabilities(0 * f, 1.0)


def test_rare_classes_are_drawn_as_often_as_their_probabilities_say():
    """Class a has three images, b and c one each; an image without labels is never drawn."""
    counts = label_counts(SOURCE)
    order = rare_class_order(counts, 1.0)
    drawn = np.bincount([order.index(5, place, 0, 1) for place in range(4000)], minlength=4) / 4000
    p = class_probabilities(counts.sum(0), 1.0)
    expected = [p[0] / 3, p[0] / 3 + p[1], p[0] / 3 + p[2], 0]
    np.testing.assert_allclose(drawn, expected, atol=4 * np.sqrt(0.25 / 4000))
    assert drawn[3] == 0
    with pytest.raises(DataError, match=r"data\.sampling=rare needs labelled pixels"):
        rare_class_order(0 * counts, 1.0)


def test_an_epoch_has_each_image_as_often_as_windows_cover_it():
    """Of windows of 4x4 an image of 8x8 holds four, one of 6x4 one and a half, rounded to two, others one."""
    order = area_order([(8, 8), (6, 4), (2, 2), (5, 4)], (4, 4))
    epochs = [[order.index(3, place // 4, place % 4, 4) for place in range(start, start + 8)] for start in (0, 8)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 0, 0, 0, 1, 1, 2, 3]] * 2
    assert epochs[0] != epochs[1] and epochs[0] == [order.index(3, 0, place, 8) for place in range(8)]
    assert epochs[0] != [order.index(4, 0, place, 8) for place in range(8)]


def batches(workers=0, state=None, count=6, rows=(0, 1)):
    loader = make_train_loader(
        SOURCE,
        batch_size=4,
        size=(2, 2),
        fit="resize",
        channels=3,
        seed=1,
        workers=workers,
        order=rare_class_order(label_counts(SOURCE), 0.5),
        process_index=rows[0],
        process_count=rows[1],
    )
    with loader:
        if state is not None:
            loader.set_state(state)
        return [b["index"] for b in itertools.islice(loader, count)], loader.get_state()


def test_the_order_is_a_function_of_the_seed_and_the_number_of_the_batch():
    whole, _ = batches()
    _, state = batches(count=2)
    resumed, _ = batches(state=state, count=4)
    np.testing.assert_array_equal(whole[2:], resumed)
    parts = [batches(rows=(i, 2))[0] for i in (0, 1)]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))
    assert len({tuple(row) for row in whole}) > 1


@pytest.mark.slow
def test_the_order_is_the_same_with_worker_processes():
    np.testing.assert_array_equal(batches()[0], batches(workers=2)[0])


LABEL = np.zeros((12, 16), np.uint8)
LABEL[2, 3] = 1
LABEL[8:11, 10:15] = 2
LABEL[:, 0] = IGNORE


def windows(label, n, probability=1.0, size=(4, 6)):
    keys = jax.random.split(jax.random.key(0), n)
    start = np.array([[0, 0]], np.int32)
    draw = jax.jit(jax.vmap(lambda key: balanced_origins(key, start, label, size, probability)[0]))
    return np.array(draw(keys))


def test_balanced_crops_have_each_class_as_a_third():
    """The single pixel of class 1 is in a third of the windows and those that hit it by chance, at every place."""
    found = windows(LABEL, 3000)
    assert (found >= 0).all() and (found <= [8, 10]).all()
    has = np.array([[c in LABEL[y : y + 4, x : x + 6] for c in (1, 2)] for y, x in found])
    # Class 0, drawn by a third, has windows of its own with class 1 or 2 in them.
    assert (has.mean(0) > 1 / 3 - 0.03).all()
    [of_one] = np.where(has[:, 0] & ~has[:, 1])
    places = {(2 - y, 3 - x) for y, x in found[of_one]}
    assert places >= {(row, column) for row in range(3) for column in range(4)}  # the border cuts the others off


def test_balanced_crops_keep_the_other_windows():
    assert (windows(LABEL, 40, 0.0) == 0).all()
    assert (windows(np.full((12, 16), IGNORE, np.uint8), 40) == 0).all()
    share = np.mean(np.any(windows(LABEL, 2000, 0.25) > 0, axis=1))
    assert 0.15 < share < 0.27  # some of the drawn quarter stay at the corner


@pytest.mark.parametrize("max_share", [1.0, 0.9])
def test_crops_of_augmentation_are_balanced_and_change_no_other_draw(max_share):
    image = np.repeat(LABEL[..., None] / 255.0, 3, axis=2).astype(np.float32)
    given = {"flip_horizontal": 0.5, "brightness": 0.3, "crop": (4, 6), "crop_max_share": max_share}
    keys = jax.random.split(jax.random.key(2), 200)
    make = [augment.make_augment(**given), augment.make_augment(**given, crop_balanced=1.0)]
    whole = (jax.jit(jax.vmap(each, in_axes=(0, None, None))) for each in make)
    (_, plain), (images, balanced) = (each(keys, image, LABEL) for each in whole)
    rate = [np.mean([(np.asarray(label) == 1).any() for label in labels]) for labels in (plain, balanced)]
    assert rate[1] > 0.3 > rate[0]
    one = balanced[0] == 1
    assert images.shape == (200, 4, 6, 3) and one.shape == (4, 6)
    off = augment.make_augment(**given, crop_balanced=0.0)
    np.testing.assert_array_equal(jax.jit(off)(keys[0], image, LABEL)[1], plain[0])
