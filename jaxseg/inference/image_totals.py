"""The pixels of single images of a scored split, and the intervals of its scores that come from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg import metrics
from jaxseg.data.base import Source
from jaxseg.data.folds import groups_of
from jaxseg.data.notes import note
from jaxseg.errors import ConfigError, DataError, counted
from jaxseg.metrics import ImageCounts, Interval
from jaxseg.metrics.formatting import percent, plain
from jaxseg.metrics.intervals import (
    Pixels,
    Score,
    grouped,
    iou_and_mean,
    join_images,
    mean_iou,
    pixels_of,
    pixels_of_sets,
)

_FEW = 20  # images below which an interval holds the true score clearly less often than it says


class ImageTotals:
    """Collects the pixels of each image from the maps that an evaluation passes to `see`."""

    def __init__(self, num_classes: int, multilabel: bool = False):
        self._num_classes, self._pixels_of = num_classes, pixels_of_sets if multilabel else pixels_of
        self._pixels: dict[int, Pixels] = {}

    def add(self, maps: Mapping[str, np.ndarray]) -> None:
        """Adds a batch: prediction and label u8|u16[b,h,w], size i[b,2], and index i[b], -1 for padding."""
        for index, prediction, label, (h, w) in zip(maps["index"], maps["prediction"], maps["label"], maps["size"]):
            if index >= 0:
                self._pixels[int(index)] = self._pixels_of(prediction[:h, :w], label[:h, :w], self._num_classes)

    def counts(self, source: Source) -> ImageCounts:
        """Returns the counts of the images of the split."""
        return join_images(self._pixels, len(source), self._num_classes)


def groups_to_draw(source: Source, text: str, split: str) -> tuple[str, ...]:
    """Returns the group of each image by `data.group`, which intervals draw whole; (): none, so that they draw images.

    An interval is no reason not to score: where the images have no such groups, or the file of these is gone, a note
    says so.
    """
    if not text:
        return ()
    try:
        return tuple(groups_of(source, text))
    except (ConfigError, DataError) as error:
        note(f"{error} So the intervals of the split {split} draw single images.")
        return ()


def interval_of(counts: ImageCounts, groups: Sequence[str] = ()) -> Interval:
    """Returns the interval of the IoU of each class and of their mean, f64[k+1]; of many classes of the mean, f64[1].

    A class of fewer than two images, or groups of them, has none: NaN.

    Args:
        counts: of the images.
        groups: the group of each, which is drawn whole; (): images are drawn.
    """
    (drawn,) = _drawn((counts,), groups)
    return _of_several(metrics.bootstrap_interval(drawn, _score(drawn)), (drawn,))


def difference_of(ours: ImageCounts, others: ImageCounts, groups: Sequence[str] = ()) -> Interval:
    """Returns the paired interval of the scores of `ours` minus those of `others`, shaped as that of `interval_of`.

    A class that either network has in fewer than two images, or groups of them, has none: NaN.

    Raises:
        ArgumentError: if these are not the same images.
    """
    both = _drawn((ours, others), groups)
    return _of_several(metrics.paired_interval(both[0], both[1], _score(both[0])), both)


def gain_of(ours: ImageCounts, others: ImageCounts, groups: Sequence[str] = ()) -> tuple[float, float] | None:
    """Returns the ends of the paired interval of the mean IoU of `ours` minus that of `others`; None if unknown."""
    found = difference_of(ours, others, groups)
    return None if np.isnan(found.low[-1]) else (float(found.low[-1]), float(found.high[-1]))


def _drawn(counts: Sequence[ImageCounts], groups: Sequence[str]) -> tuple[ImageCounts, ...]:
    """Returns the counts of what is drawn whole."""
    return tuple(grouped(each, groups) if groups else each for each in counts)


def _score(counts: ImageCounts) -> Score:
    """Returns what is scored: the IoU of each class and their mean, of many classes the mean alone."""
    return (lambda sums: mean_iou(sums)[..., None]) if counts.classes > metrics.MOST_PAIRS else iou_and_mean


def _of_several(found: Interval, counts: Sequence[ImageCounts]) -> Interval:
    """Returns an interval without the ends of classes that fewer than two images, or groups of them, have."""
    if len(found.low) == 1:
        return found
    known = np.append(np.min([each.images_of() for each in counts], axis=0) > 1, True)
    return found._replace(low=np.where(known, found.low, np.nan), high=np.where(known, found.high, np.nan))


def interval_line(interval: Interval, unit: str = "image") -> str:
    """Returns the line that says what the interval of the mean IoU is, of "image"s or groups of them."""
    low, high = percent(interval.low[-1]), percent(interval.high[-1])
    if np.isnan(interval.low[-1]):
        return f"no interval of the mIoU: it needs two labelled {unit}s"
    few = f"; of so few {unit}s it is too narrow" if interval.images < _FEW else ""
    return (
        f"{interval.level:.0%} interval of the mIoU {low} to {high} % "
        f"({interval.draws} bootstrap draws of {counted(interval.images, unit)}{few})"
    )


def interval_dict(interval: Interval, classes: Sequence[str], unit: str = "image") -> dict[str, Any]:
    """Returns the intervals in the types of JSON: shares of 1, None for an end that is unknown."""
    ends = [[plain(low), plain(high)] for low, high in zip(interval.low, interval.high)]
    return {
        "level": interval.level,
        "draws": interval.draws,
        "method": "percentile bootstrap",
        "unit": unit,
        "units": interval.images,
        "mean_iou": ends[-1],
        "iou": dict(zip(classes, ends[:-1])) if len(ends) > 1 else None,
    }
