"""What a report says of the images of a split: counts by image and class, objects by size, and what was predicted.

One image at a time is in memory. Predictions of all images are kept on the disk, reduced to the size of the pictures of
a page, so that a page shows what was scored without segmenting an image again.
"""

import math
import tempfile
import zlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy import ndimage

from jaxseg.data.base import Source
from jaxseg.errors import ConfigError
from jaxseg.inference.evaluation import Evaluation, evaluate
from jaxseg.inference.other_data import open_split
from jaxseg.inference.predictor import Predictor
from jaxseg.metrics import num_confusion_classes
from jaxseg.metrics.intervals import ImageCounts, class_iou
from jaxseg.pages.cards import SIDES, reduced
from jaxseg.run.load import Run, require_one_class

BINS = 32
"""Bins of the sizes of objects: bin b has those of 2^b to 2^(b+1) - 1 pixels."""
FOUND = 0.5
"""The share of its pixels of which an object counts as found."""


class Spool:
    """Label maps on the disk, compressed; they are read in any order."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this object)
        self._places: dict[int, tuple[int, int, tuple[int, ...], np.dtype[Any]]] = {}

    def add(self, index: int, classes: np.ndarray) -> None:
        """Adds the label map [h,w] of an image."""
        packed = zlib.compress(np.ascontiguousarray(classes).data, 1)
        self._places[index] = (self._file.seek(0, 2), len(packed), classes.shape, classes.dtype)
        self._file.write(packed)

    def __getitem__(self, index: int) -> np.ndarray:
        start, size, shape, kind = self._places[index]
        self._file.seek(start)
        return np.frombuffer(zlib.decompress(self._file.read(size)), kind).reshape(shape)


@dataclass(frozen=True, eq=False)
class Objects:
    """Connected regions (8 neighbours) of the classes of the truth, by class and size.

    Attributes:
        count: i64[k,BINS], how many there are.
        recall: f64[k,BINS], the sum over them of the share of their pixels that is predicted as their class.
        found: i64[k,BINS], of how many this share is at least `FOUND`.
    """

    count: np.ndarray
    recall: np.ndarray
    found: np.ndarray

    @classmethod
    def none(cls, classes: int) -> "Objects":
        shape = (classes, BINS)
        return cls(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Adds the objects of an image; pixels that are no class are in none."""
        for c in np.unique(truth):
            if c >= len(self.count):
                continue
            numbers, n = ndimage.label(truth == c, np.ones((3, 3)))  # type: ignore[misc]
            area = np.bincount(numbers.ravel(), minlength=n + 1)[1:]
            right = np.bincount(numbers[prediction == c], minlength=n + 1)[1:]
            share, place = right / area, np.log2(area).astype(np.int64)
            self.count[c] += np.bincount(place, minlength=BINS)
            self.recall[c] += np.bincount(place, share, minlength=BINS)
            self.found[c] += np.bincount(place[share >= FOUND], minlength=BINS)


class _Seen:
    """Collects the objects and the predictions of the images from the maps that an evaluation passes to `look`."""

    def __init__(self, classes: int) -> None:
        self.objects, self.predictions = Objects.none(classes), Spool()

    def add(self, maps: dict[str, np.ndarray]) -> None:
        """Adds a batch; index is -1 for padding."""
        for index, prediction, label, (h, w) in zip(maps["index"], maps["prediction"], maps["label"], maps["size"]):
            if index >= 0:
                predicted = np.asarray(prediction[:h, :w])
                self.objects.add(np.asarray(label[:h, :w]), predicted)
                self.predictions.add(int(index), reduced(predicted, SIDES[0]))


@dataclass(frozen=True, eq=False)
class Collected:
    """A run on a split.

    Attributes:
        evaluation: its scores.
        source: the images.
        names: their names.
        counts: the pixels of each class in each image.
        objects: the objects of the truth by size.
        predictions: the classes [h,w] of each image, its longer side at most `SIDES[0]`.
    """

    evaluation: Evaluation
    source: Source
    names: tuple[str, ...]
    counts: ImageCounts
    objects: Objects
    predictions: Spool

    @property
    def run(self) -> Run:
        """The run."""
        return self.evaluation.run

    @property
    def scores(self) -> np.ndarray:
        """The mean IoU f64[n] of each image over the classes that are true or predicted in it; NaN where none is."""
        return image_scores(self.counts)


def source_of(run: Run, split: str) -> Source:
    """Returns the images of a split, which have the classes of the run; raises DataError as `collect` does."""
    return open_split(run, split)


def collect(run: Run, split: str, predictor: Predictor | None = None) -> Collected:
    """Returns what a report says of a run on a split.

    Args:
        run: from `load_run`.
        split: see `inference.evaluation.evaluate`.
        predictor: how images are segmented; None: as training evaluates.

    Raises:
        ConfigError: in a program of several processes, of which each sees its own images.
        DataError: if the data is missing or empty, has no such split, or its classes are not those of the run.
    """
    if jax.process_count() > 1:
        raise ConfigError("A report is made by one process, which sees all images; start it without others.")
    require_one_class(run, "A report")
    source = source_of(run, split)
    seen = _Seen(num_confusion_classes(run.num_classes))
    evaluation = evaluate(run, split, predictor=predictor, look=seen.add)
    names = tuple(source.name(i) for i in range(len(source)))
    assert evaluation.counts is not None  # of one process
    return Collected(evaluation, source, names, evaluation.counts, seen.objects, seen.predictions)


def image_scores(counts: ImageCounts) -> np.ndarray:
    """Returns the mean IoU f64[n] of each image over the classes that are true or predicted in it; NaN where none."""
    iou = class_iou(counts.pixels)
    known = ~np.isnan(iou)
    sums, number = (
        np.bincount(counts.image[known], weights, minlength=counts.images) for weights in (iou[known], None)
    )
    return np.where(number > 0, sums / np.maximum(number, 1), np.nan)


def wrong_shares(counts: ImageCounts) -> np.ndarray:
    """Returns the share f64[n] of the labelled pixels of each image that is wrong; NaN where none is labelled."""
    right, true = (np.bincount(counts.image, counts.pixels[row], minlength=counts.images) for row in (0, 1))
    return np.where(true > 0, 1 - right / np.maximum(true, 1), np.nan)


def worst(scores: np.ndarray, number: int) -> list[int]:
    """Returns the images of the lowest scores f64[n], the lowest first, without those that have none."""
    order = np.argsort(scores, kind="stable")
    return [int(i) for i in order[:number] if not math.isnan(scores[i])]


def around_median(scores: np.ndarray, number: int) -> list[int]:
    """Returns the images whose scores stand in the middle of the order, lowest first."""
    order = [i for i in np.argsort(scores, kind="stable") if not math.isnan(scores[i])]
    start = max(0, (len(order) - number) // 2)
    return [int(i) for i in order[start : start + number]]


def of_class(counts: ImageCounts, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images i64[m] in which a class is true or predicted, and its IoU f64[m] in each."""
    mine = counts.label == label
    return counts.image[mine], class_iou(counts.pixels[:, mine])


def in_image(counts: ImageCounts, image: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes i64[m] that are true or predicted in an image, and the IoU f64[m] of each."""
    mine = counts.image == image
    return counts.label[mine], class_iou(counts.pixels[:, mine])
