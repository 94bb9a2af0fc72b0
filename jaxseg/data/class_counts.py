"""Counts of the pixels of each class over the images of a source."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxseg.data.batching import cores
from jaxseg.data.notes import note
from jaxseg.data.reading import STOP, Reading
from jaxseg.errors import DataError


def label_counts(source: Any, reading: Reading = STOP) -> np.ndarray:
    """Reads every mask of a `jaxseg.data.base.Source`; returns i64[n,k], the pixels of each class in each image.

    IGNORE pixels are in no count.

    Args:
        source: the images and their labels.
        reading: what to do about an image that cannot be read; with "skip" it has no pixel, and a note names it.

    Raises:
        DataError: if an image cannot be read in time, but with "skip".
    """
    classes = len(source.info.classes)

    def count(index: int) -> np.ndarray:
        try:
            label = reading.example(source, index)["label"]
        except DataError as error:
            if reading.on_error != "skip":
                raise
            note(f"{error} data.on_error=skip: the counts of the classes leave it out.")
            return np.zeros(classes, np.int64)
        return np.bincount(label.ravel(), minlength=classes)[:classes]

    with ThreadPoolExecutor(cores()) as pool:
        rows = list(pool.map(count, range(len(source))))
    return np.array(rows, np.int64).reshape(len(rows), classes)


def pixel_counts(source: Any, reading: Reading = STOP) -> tuple[np.ndarray, np.ndarray]:
    """Counts the pixels of each class: (of the class i64[k], in the images where the class is present i64[k]).

    These are the two numbers of median-frequency balancing (Eigen & Fergus 2015, section 6.3.2). Neither includes
    IGNORE pixels. `reading` is as of `label_counts`.
    """
    counts = label_counts(source, reading)
    return counts.sum(0), np.where(counts > 0, counts.sum(1, keepdims=True), 0).sum(0)


def image_amounts(counts: np.ndarray) -> np.ndarray:
    """i64[n,k] -> f64[k], the whole images that the pixels of each class would fill; their sum is the labelled images.

    An image without a labelled pixel is not counted.
    """
    labelled = counts.sum(1) > 0
    total = counts.sum()
    return counts.sum(0) * (labelled.sum() / total) if total else np.zeros(counts.shape[1])
