"""The bootstrap over images: by hand, against NumPy in float64, its coverage, and its memory."""

import itertools
import tracemalloc

import numpy as np
import pytest

from jaxseg.errors import ArgumentError
from jaxseg.metrics import confusion_matrix, scores
from jaxseg.metrics.intervals import (
    ImageCounts,
    bootstrap_interval,
    class_f1,
    class_iou,
    grouped,
    image_counts,
    iou_and_mean,
    join_images,
    mean_iou,
    paired_interval,
    pixels_of,
    pixels_of_sets,
)
from jaxseg.types import IGNORE


def _matrices(seed: int, images: int = 12, classes: int = 3) -> np.ndarray:
    """Confusion matrices i64[n,k,k] of which some classes are in no pixel of some images."""
    random = np.random.default_rng(seed)
    made = random.poisson(20, (images, classes, classes)) * (random.random((images, classes, 1)) < 0.6)
    made[:, 0, 0] += 5
    return made.astype(np.int64)


def _scores_by_hand(matrix: np.ndarray) -> np.ndarray:
    iou = [
        m[c, c] / d if (d := m[c].sum() + m[:, c].sum() - m[c, c]) else np.nan
        for m in [matrix.astype(np.float64)]
        for c in range(len(matrix))
    ]
    return np.array([*iou, np.mean([v for v in iou if v == v])])


def test_interval_of_every_possible_draw():
    """Of two images there are four draws, so that the ends are known: IoU of class 1 is 8/10, 2/10 or 10/20."""
    matrices = np.array([[[5, 1], [1, 8]], [[5, 4], [4, 2]]])
    found = bootstrap_interval(matrices, class_iou, draws=4000, level=0.4)
    assert np.allclose(found.value, [10 / 20, 10 / 20])
    # a quarter of the draws has the first image twice, a half both, a quarter the second twice
    assert np.allclose([found.low[1], found.high[1]], [10 / 20, 10 / 20])
    wide = bootstrap_interval(matrices, class_iou, draws=4000, level=0.6)
    assert np.allclose([wide.low[1], wide.high[1]], [2 / 10, 8 / 10])
    assert (wide.images, wide.draws, wide.level) == (2, 4000, 0.6)


def test_interval_is_that_of_numpy_in_float64():
    matrices = _matrices(0)
    found = bootstrap_interval(matrices, draws=200, seed=3)
    random = np.random.Generator(np.random.PCG64(3))
    drawn = random.integers(12, size=(200, 12))
    by_hand = np.stack([_scores_by_hand(matrices[rows].sum(0)) for rows in drawn])
    ends = np.nanquantile(by_hand, [0.025, 0.975], axis=0)
    assert np.allclose(found.value, _scores_by_hand(matrices.sum(0)), rtol=1e-12)
    assert np.allclose([found.low, found.high], ends, rtol=1e-12)
    assert np.allclose(found.value[:-1], scores(matrices.sum(0)).iou)
    assert np.allclose(class_f1(image_counts(matrices).total()), scores(matrices.sum(0)).f1)


def test_class_that_few_images_have_does_not_count_in_draws_without_it():
    matrices = _matrices(1, images=6)
    matrices[0, 2, 2] = 4
    matrices[1:, 2], matrices[1:, :, 2] = 0, 0  # class 2 is in the first image alone
    found = bootstrap_interval(matrices, class_iou, draws=300)
    assert found.low[2] == found.high[2] == found.value[2]  # no width: its images say so
    assert image_counts(matrices).images_of()[2] == 1
    absent = bootstrap_interval(np.pad(matrices, ((0, 0), (0, 1), (0, 1))), iou_and_mean, draws=300)
    assert np.isnan([absent.value[3], absent.low[3], absent.high[3]]).all()
    assert absent.low[4] == bootstrap_interval(matrices, mean_iou, draws=300).low


def test_images_without_a_labelled_pixel_are_not_drawn():
    matrices = _matrices(2)
    empty = np.insert(matrices, [0, 5, 12], 0, axis=0)
    with_empty, without = bootstrap_interval(empty, draws=100), bootstrap_interval(matrices, draws=100)
    assert with_empty.images == without.images == 12
    assert np.array_equal(with_empty.low, without.low)
    one = bootstrap_interval(matrices[:1])
    assert one.images == 1 and np.isnan(one.low).all() and not np.isnan(one.value[0])


def test_paired_interval_takes_what_both_find_hard_out():
    random = np.random.default_rng(4)
    hard = random.integers(0, 80, 40)  # wrong pixels of 100 in both networks

    def matrices(wrong: np.ndarray) -> np.ndarray:
        return np.stack([[100 + 0 * wrong, 0 * wrong], [wrong, 100 - wrong]]).transpose(2, 0, 1)

    ours, others = matrices(hard), matrices(hard + 2)
    difference = paired_interval(ours, others, class_iou)
    alone = bootstrap_interval(ours, class_iou)
    assert np.allclose(
        difference.value, class_iou(image_counts(ours).total()) - class_iou(image_counts(others).total())
    )
    assert difference.low[1] > 0  # two pixels more are a difference,
    assert difference.high[1] - difference.low[1] < 0.1 * (alone.high[1] - alone.low[1])  # which the images alone hide
    same = paired_interval(ours, ours, class_iou)
    assert (same.low == 0).all() and (same.high == 0).all()
    flipped = paired_interval(others, ours, class_iou)
    assert np.allclose(flipped.low, -difference.high)
    with pytest.raises(ArgumentError, match="same images in the same order"):
        paired_interval(ours, matrices(hard)[:-1])
    with pytest.raises(ArgumentError, match="same images in the same order"):
        paired_interval(ours, np.concatenate([ours[1:] * 2, ours[:1]]))


def test_counts_of_maps_are_those_of_the_confusion_matrices():
    random = np.random.default_rng(5)
    k = 4
    maps = [
        (random.integers(0, k, (9, 7), np.uint8), np.where(random.random((9, 7)) < 0.2, IGNORE, i).astype(np.uint8))
        for i in range(k - 1)
    ]
    maps.append((maps[0][0], np.full((9, 7), IGNORE, np.uint8)))
    pixels = {i: pixels_of(*maps[i], k) for i in (2, 0, 3, 1)}  # in any order
    found = join_images(pixels, len(maps), k)
    matrices = np.stack([np.asarray(confusion_matrix(p, t, k)) for p, t in maps])
    for ours, theirs in zip(found, image_counts(matrices)):
        assert np.array_equal(ours, theirs)
    nothing = bootstrap_interval(join_images({}, 0, 1))
    assert nothing.images == 0 and np.isnan(nothing.value).all()


def _sets(maps: list[tuple[list[int], list[int]]]) -> ImageCounts:
    """The counts of 2 classes of images of one row, (prediction, label) as sets; 255 is unknown."""
    arrays = [(np.array([p]), np.array([t], np.uint8)) for p, t in maps]
    return join_images({i: pixels_of_sets(*each, 2) for i, each in enumerate(arrays)}, len(maps), 2)


def test_an_image_without_any_class_is_drawn_with_its_false_positives():
    right, empty, unknown = ([1, 1, 1, 1], [1, 1, 1, 1]), ([1, 1, 0, 0], [0, 0, 0, 255]), ([1] * 4, [255] * 4)
    counts = _sets([right, empty, unknown, empty])
    assert counts.labelled.tolist() == [4, 3, 0, 3]
    found = bootstrap_interval(counts, mean_iou, draws=2000)
    assert found.images == 3 and found.value == 4 / 8
    # of 27 draws 1 has the first image alone, 8 only images without it, 12 it once and 6 twice
    assert (found.low, found.high) == (0.0, 1.0)
    assert bootstrap_interval(grouped(counts, ["a", "a", "b", "b"]), mean_iou, level=0.4).low == pytest.approx(4 / 8)
    better = _sets([right, ([0] * 4, [0, 0, 0, 255]), unknown, empty])
    paired = paired_interval(better, counts, mean_iou)
    assert paired.images == 3 and paired.value == 4 / 6 - 4 / 8 and paired.low == 0 and paired.high > 0.3
    other = _sets([right, ([1, 1, 0, 0], [0, 0, 0, 0]), unknown, empty])  # more known pixels, and none of a class
    with pytest.raises(ArgumentError, match="same images in the same order"):
        paired_interval(other, counts, mean_iou)


def test_groups_are_drawn_whole():
    matrices = _matrices(6)
    groups = [f"patient {i % 4}" for i in range(12)]
    of_groups = np.stack([matrices[i::4].sum(0) for i in range(4)])
    found = bootstrap_interval(grouped(image_counts(matrices), groups), draws=150)
    wanted = bootstrap_interval(of_groups, draws=150)
    assert found.images == 4
    for ours, theirs in zip(found, wanted):
        assert np.array_equal(ours, theirs)
    with pytest.raises(ArgumentError, match="12 images, got 2"):
        grouped(image_counts(matrices), ["a", "b"])


def test_interval_holds_the_true_score_as_often_as_it_says():
    """The share of right pixels varies by image. Of 100 images, 95 % intervals hold the true IoU about so often."""
    random = np.random.default_rng(7)

    def sample(images: int) -> ImageCounts:
        size = random.integers(20, 200, images)
        right = random.binomial(size, random.beta(6, 2, images))
        matrix = np.zeros((images, 2, 2), np.int64)
        matrix[:, 1, 1], matrix[:, 1, 0], matrix[:, 0, 0] = right, size - right, 1000 - size
        return image_counts(matrix)

    true = class_iou(sample(500_000).total())
    held = [np.zeros(2), np.zeros(2)]
    for of_size, images in enumerate((5, 100)):
        for seed in range(250):
            found = bootstrap_interval(sample(images), class_iou, draws=300, seed=seed)
            held[of_size] += (found.low <= true) & (true <= found.high)
    few, many = held[0] / 250, held[1] / 250
    assert np.all((many > 0.9) & (many < 0.98))
    assert np.all((few > 0.7) & (few < 0.9))  # too narrow of few images, as the module says


def test_memory_is_that_of_the_classes_in_the_images():
    """2000 images of 3 of 65,535 classes: images x classes would be 3 GB, and classes x classes 34 GB an image."""
    random = np.random.default_rng(8)
    n, k, each = 2000, 65_535, 3
    label = np.sort(random.integers(0, k, n * each))
    image = random.permutation(np.repeat(np.arange(n), each))
    true = random.integers(1, 100, n * each)
    counts = ImageCounts(image, label, np.stack([true // 2, true, true]), n, k, np.bincount(image, true).astype(int))
    tracemalloc.start()
    found = bootstrap_interval(counts, mean_iou, draws=64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500e6
    assert found.low < found.value < found.high


def test_blocks_do_not_change_the_draws(monkeypatch):
    whole = bootstrap_interval(_matrices(9), draws=101)
    monkeypatch.setattr("jaxseg.metrics.intervals._ELEMENTS", 40)
    for ours, theirs in zip(bootstrap_interval(_matrices(9), draws=101), whole):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"draws": 1}, "draws must be a whole number of at least 2"),
        ({"level": 95}, "level must be a number between 0 and 1"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_wrong_use_is_named(given, words):
    with pytest.raises(ArgumentError, match=words):
        bootstrap_interval(_matrices(0), **given)


def test_wrong_matrices_are_named():
    for wrong in (np.zeros((2, 3), int), np.zeros((2, 3, 4), int), np.zeros((2, 3, 3))):
        with pytest.raises(ArgumentError, match=r"integers \[n,k,k\]"):
            bootstrap_interval(wrong)


def test_pairs_of_images_and_classes_are_distinct():
    found = image_counts(_matrices(10))
    pairs = list(zip(found.image.tolist(), found.label.tolist()))
    assert len(set(pairs)) == len(pairs) <= len(list(itertools.product(range(12), range(3))))
    assert (np.diff(found.label) >= 0).all()
