"""Confidence intervals of scores by the bootstrap over images: how far a score may lie from that of other images.

An evaluated split is a sample of images. The bootstrap draws as many images from it, with replacement, scores each draw
as the whole split is scored, from its summed counts, and takes the percentiles of these scores as the ends of the
interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3). Pixels of one image are not
independent, so whole images are drawn; where several images show one patient or scene, draw these (`grouped`).

The interval says nothing about another training: a seed or a fold changes the score too. Of few images, or of a class
that occurs in few, it is too narrow: it holds the true score less often than its level says.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np

from jaxseg.arguments import Where, WholeNotNegative, at_least, check_value
from jaxseg.errors import ArgumentError, counted
from jaxseg.metrics.confusion import MOST_PAIRS, num_confusion_classes
from jaxseg.types import Array, ignore_in

DRAWS = 2000
"""Draws of an interval. The ends then move by about a fiftieth of its width from seed to seed."""
LEVEL = 0.95
"""The probability with which an interval is meant to hold the score of all images."""

Score = Callable[[np.ndarray], np.ndarray]
"""i64[...,3,k], the right, true and predicted pixels of each class, -> f64[...] or f64[...,n], NaN where undefined."""

_ELEMENTS = 1 << 22  # numbers that a block of draws has at a time
_Level = Annotated[float, Where(lambda v: 0 < v < 1, "between 0 and 1")]


class ImageCounts(NamedTuple):
    """The pixels of each class in each image of a split, for the pairs of image and class that have some.

    Its size is that of the classes that occur in each image, not images x classes x classes.

    Attributes:
        image: i64[m], the index of the image, or of the group (`grouped`).
        label: i64[m], the class, in ascending order.
        pixels: i64[3,m], how many are right, are truly of the class, and are predicted as it.
        images: n, how many images there are.
        classes: k.
        labelled: i64[n], how many pixels of each image are scored. Where a pixel may have several classes or none, this
            is not the sum of the true ones; an image without any class has false positives all the same.
    """

    image: np.ndarray
    label: np.ndarray
    pixels: np.ndarray
    images: int
    classes: int
    labelled: np.ndarray

    def total(self) -> np.ndarray:
        """Returns the sums i64[3,k] over the split, which `Score` and `metrics.scores` of many classes take."""
        return _added(self.label, self.pixels, self.classes)

    def images_of(self) -> np.ndarray:
        """Returns in how many images each class is true or predicted, i64[k].

        In a draw, a class of one image has that image or nothing, so that its interval has no width and means nothing.
        """
        return np.bincount(self.label, minlength=self.classes)


class Interval(NamedTuple):
    """A score and the ends of its interval.

    Attributes:
        value: f64[...], the score of all images.
        low, high: f64[...], the percentiles; NaN where no draw has a score, and of fewer than two images.
        level: the probability that the interval is meant to hold the true score.
        draws: how many draws it is made of.
        images: how many images, or groups of them, have a labelled pixel and can be drawn.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    draws: int
    images: int


def image_counts(matrices: Array | Sequence[Array]) -> ImageCounts:
    """Returns the counts of the confusion matrices of single images.

    Args:
        matrices: i[n,k,k], rows truth and columns prediction; of more than `MOST_PAIRS` classes i[n,3,k], as
            `confusion_matrix` gives them.

    Raises:
        ArgumentError: if the shape is another, or they are no integers.
    """
    array = np.asarray(matrices)
    alone = array.ndim == 3 and array.shape[1] == 3 and array.shape[2] > MOST_PAIRS
    if not (alone or (array.ndim == 3 and array.shape[1] == array.shape[2])) or array.dtype.kind not in "iu":
        raise ArgumentError(
            f"The confusion matrices of images are integers [n,k,k], got {array.dtype} of shape {list(array.shape)}."
        )
    if not alone:
        right = np.diagonal(array, axis1=1, axis2=2)
        array = np.stack([right, array.sum(axis=2, dtype=np.int64), array.sum(axis=1, dtype=np.int64)], axis=1)
    n, _, k = array.shape
    label, image = np.nonzero((array > 0).any(axis=1).T)
    labelled = array[:, 1].sum(axis=1, dtype=np.int64)
    return ImageCounts(image, label, array[image, :, label].T.astype(np.int64), n, k, labelled)


class Pixels(NamedTuple):
    """The pixels of one image: the classes i64[m] that occur in it, i64[3,m] of these, and how many are labelled.

    See `ImageCounts.pixels` and `ImageCounts.labelled`."""

    label: np.ndarray
    pixels: np.ndarray
    labelled: int


def pixels_of(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> Pixels:
    """Returns the pixels of one image, u8|u16[h,w] and u8|u16[h,w].

    Pixels whose label is no class, such as IGNORE, are left out.

    Args:
        prediction: of the network.
        label: of the image.
        num_classes: the channels of the logits; 1 stands for two classes.
    """
    k = num_confusion_classes(num_classes)
    seen = label < k
    truth, predicted = label[seen].astype(np.int64), prediction[seen].astype(np.int64)
    counts = np.stack([np.bincount(each, minlength=k) for each in (truth[truth == predicted], truth, predicted)])
    occurs = np.flatnonzero(counts.any(axis=0))
    return Pixels(occurs, counts[:, occurs], truth.size)


def pixels_of_sets(prediction: np.ndarray, label: np.ndarray, classes: int) -> Pixels:
    """Returns the pixels of one image whose labels are sets (`jaxseg.sets`), i[h,w] and u8|u16|u32[h,w].

    Each class is a question of its own; pixels at which it is unknown are left out.
    """
    known = label != ignore_in(label)
    truth, predicted = label[known].astype(np.int64), prediction[known].astype(np.int64)
    predicted &= ~(truth >> classes)  # bit classes + c: class c alone is unknown
    counts = np.array(
        [[np.count_nonzero(each >> c & 1) for c in range(classes)] for each in (truth & predicted, truth, predicted)]
    )
    occurs = np.flatnonzero(counts.any(axis=0))
    return Pixels(occurs, counts[:, occurs], truth.size)


def join_images(images: Mapping[int, Pixels], count: int, num_classes: int) -> ImageCounts:
    """Returns the counts of `count` images, of which these have labelled pixels: {index: pixels}."""
    k = num_confusion_classes(num_classes)
    none = Pixels(np.zeros(0, np.int64), np.zeros((3, 0), np.int64), 0)
    ordered = [images[index] for index in sorted(images)] or [none]
    image = np.repeat(sorted(images) or [0], [len(each.label) for each in ordered])
    label = np.concatenate([each.label for each in ordered])
    order = np.argsort(label, kind="stable")
    pixels = np.concatenate([each.pixels for each in ordered], axis=1)
    labelled = np.zeros(count, np.int64)
    labelled[sorted(images)] = [images[index].labelled for index in sorted(images)]
    return ImageCounts(image[order], label[order], pixels[:, order], count, k, labelled)


def grouped(counts: ImageCounts, groups: Sequence[str]) -> ImageCounts:
    """Returns the counts with each group of images, such as those of a patient, in place of an image.

    Args:
        counts: of n images.
        groups: the name of the group of each image.

    Raises:
        ArgumentError: if there is not one name for each image.
    """
    if len(groups) != counts.images:
        raise ArgumentError(f"groups must name that of each of {counted(counts.images, 'image')}, got {len(groups)}.")
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    pairs, places = np.unique(counts.label * len(names) + numbers[counts.image], return_inverse=True)
    label, image = np.divmod(pairs, len(names))
    labelled = _added(numbers, counts.labelled[None], len(names))[0]
    return ImageCounts(image, label, _added(places, counts.pixels, len(pairs)), len(names), counts.classes, labelled)


def _added(places: np.ndarray, pixels: np.ndarray, size: int) -> np.ndarray:
    """Returns the sums i64[r,size] of the pixels i64[r,m] of each place i64[m]."""
    return np.stack([np.bincount(places, row, minlength=size) for row in pixels]).astype(np.int64)  # exact to 2^53


def class_iou(counts: np.ndarray) -> np.ndarray:
    """i64[...,3,k] -> the IoU f64[...,k] of each class; NaN for one in neither truth nor prediction."""
    right, true, predicted = np.moveaxis(np.asarray(counts), -2, 0)
    return _ratio(right, true + predicted - right)


def class_f1(counts: np.ndarray) -> np.ndarray:
    """i64[...,3,k] -> the F1 (Dice) f64[...,k] of each class; NaN for one in neither truth nor prediction."""
    right, true, predicted = np.moveaxis(np.asarray(counts), -2, 0)
    return _ratio(2 * right, true + predicted)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """i64[...,3,k] -> the mean IoU f64[...] over the classes that occur; NaN where none does."""
    return _mean(class_iou(counts))


def iou_and_mean(counts: np.ndarray) -> np.ndarray:
    """i64[...,3,k] -> f64[...,k+1], the IoU of each class and their mean."""
    iou = class_iou(counts)
    return np.concatenate([iou, _mean(iou)[..., None]], axis=-1)


def bootstrap_interval(
    matrices: Array | ImageCounts,
    score: Score = iou_and_mean,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Returns a score of a split with its interval by the percentile bootstrap over images.

    A draw in which a score is undefined, such as that of a class that none of its images has, does not count for it.
    The same counts and seed give the same numbers.

    Args:
        matrices: the confusion matrices i[n,k,k] of the images, see `image_counts`, or their counts.
        score: what is scored: `iou_and_mean`, `class_iou`, `mean_iou`, `class_f1`, or a function of the same kind.
        draws: how often n images are drawn.
        level: the share of the draws between the ends.
        seed: of the draws.

    Raises:
        ArgumentError: for an invalid value.
    """
    counts = matrices if isinstance(matrices, ImageCounts) else image_counts(matrices)
    return _interval((counts,), lambda sums: np.asarray(score(sums[0]), np.float64), draws, level, seed)


def paired_interval(
    ours: Array | ImageCounts,
    others: Array | ImageCounts,
    score: Score = iou_and_mean,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Returns the difference of a score between two networks on the same images, `ours` - `others`, with its interval.

    Each draw has the same images for both, so that what makes an image hard for both leaves the difference. Where the
    interval holds 0, the images do not tell which network is better.

    Args:
        ours, others: the confusion matrices i[n,k,k] of both, or their counts, of the same images in the same order.
        score, draws, level, seed: as for `bootstrap_interval`.

    Raises:
        ArgumentError: if these are not the same images, or for an invalid value.
    """
    both = tuple(each if isinstance(each, ImageCounts) else image_counts(each) for each in (ours, others))
    sizes = [(each.images, each.classes) for each in both]
    true = [(each.labelled, np.bincount(each.image, each.pixels[1], minlength=each.images)) for each in both]
    if sizes[0] != sizes[1] or not np.array_equal(true[0], true[1]):
        raise ArgumentError(
            "A paired interval needs the same images in the same order, scored by both networks; the true pixels of "
            f"these differ: {counted(sizes[0][0], 'image')} and {counted(sizes[1][0], 'image')}."
        )

    def difference(sums: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(score(sums[0]), np.float64) - np.asarray(score(sums[1]), np.float64)

    return _interval(both, difference, draws, level, seed)


def _interval(
    counts: Sequence[ImageCounts],
    score: Callable[[Sequence[np.ndarray]], np.ndarray],
    draws: int,
    level: float,
    seed: int,
) -> Interval:
    draws = check_value("draws", draws, Annotated[int, at_least(2)])
    level, seed = check_value("level", level, _Level), check_value("seed", seed, WholeNotNegative)
    value = score([each.total() for each in counts])
    labelled = np.flatnonzero(counts[0].labelled)
    n = len(labelled)
    if n < 2:
        unknown = np.full(value.shape, np.nan)
        return Interval(value, unknown, unknown, level, draws, n)
    random = np.random.Generator(np.random.PCG64(seed))
    size = max(n, max(len(each.label) for each in counts), 3 * counts[0].classes)
    block = max(1, _ELEMENTS // size)
    found = []
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = random.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times = np.zeros((rows, counts[0].images), np.int64)
        times[:, labelled] = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        found.append(score([_sums(each, times) for each in counts]))
    low, high = _percentiles(np.concatenate(found), ((1 - level) / 2, (1 + level) / 2))
    return Interval(value, low, high, level, draws, n)


def _sums(counts: ImageCounts, times: np.ndarray) -> np.ndarray:
    """Returns the sums i64[d,3,k] of d draws in which each image is drawn `times` i64[d,n]."""
    sums = np.zeros((len(times), 3, counts.classes), np.int64)
    labels, starts = np.unique(counts.label, return_index=True)
    of_pairs = times[:, counts.image]
    for row, pixels in enumerate(counts.pixels):
        sums[:, row, labels] = np.add.reduceat(of_pairs * pixels, starts, axis=1)
    return sums


def _percentiles(scores: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """Returns the percentiles f64[...] of draws f64[d,...], without those that are NaN; NaN where all are."""
    ordered = np.sort(scores, axis=0)  # NaN comes last
    known = np.sum(~np.isnan(scores), axis=0)
    found = []
    for share in shares:
        place = np.maximum(share * (known - 1), 0.0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        lower, upper = (np.take_along_axis(ordered, each[None], axis=0)[0] for each in (below, above))
        found.append(lower + (upper - lower) * (place - below))
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.maximum(below, 1), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """f64[...,k] -> the mean f64[...] of those that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))
