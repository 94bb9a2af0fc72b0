"""Scores of objects: which of the true ones are found, and how well their pixels agree, image by image on the host.

At an IoU threshold t the true and the predicted objects of an image are matched one to one, so that as many pairs as
possible have an IoU of at least t, and among those matchings the one with the largest sum of IoUs counts. Above .5 no
object can have two partners. Every pair is a true positive (TP), every predicted object without a partner a false
positive (FP), every true one a false negative (FN). Of these

- F1 = 2 TP / (2 TP + FP + FN), and
- AP = TP / (TP + FP + FN), the average precision of the 2018 Data Science Bowl (Caicedo et al., Nucleus segmentation
  across imaging experiments, Nature Methods 16, 2019) and of StarDist (Schmidt et al., Cell Detection with Star-convex
  Polygons, MICCAI 2018). It is no area under a curve of precision and recall, as COCO's AP is.

The mean AP is the mean over the thresholds .5, .55, ..., .95. Counts are summed over the images of a split before they
are divided, as StarDist does; `mean_ap_by_image` has the mean over images of each image's own, as the Bowl ranked.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from jaxseg.errors import ArgumentError
from jaxseg.metrics.formatting import markdown_table, plain

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""The IoU thresholds of the mean AP: .5, .55, ..., .95."""


class Overlaps(NamedTuple):
    """The pairs of a true and a predicted object that share pixels.

    Attributes:
        truth: i[n], the numbers of the true objects, ascending.
        prediction: i[m], the numbers of the predicted objects, ascending.
        rows: i[p], the place in `truth` of the true object of each pair.
        columns: i[p], the place in `prediction` of the predicted one.
        iou: f64[p], their intersection over their union.
    """

    truth: np.ndarray
    prediction: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    iou: np.ndarray


def find_overlaps(truth: np.ndarray, prediction: np.ndarray) -> Overlaps:
    """The overlaps of the objects of two maps i[h,w], which hold 0 where there is no object; numbers may have gaps.

    Raises:
        ArgumentError: if the maps differ in shape, or are no whole numbers of at least 0.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape or truth.dtype.kind not in "iu" or prediction.dtype.kind not in "iu":
        raise ArgumentError(
            f"Maps of objects hold whole numbers in arrays of one shape, got {truth.dtype} of shape "
            f"{list(truth.shape)} and {prediction.dtype} of shape {list(prediction.shape)}."
        )
    if min(truth.min(initial=0), prediction.min(initial=0)) < 0:
        raise ArgumentError("The numbers of objects are at least 0; 0 is for pixels of no object.")
    (ours, place, area), (theirs, other, size) = (
        np.unique(each, return_inverse=True, return_counts=True) for each in (truth, prediction)
    )
    pairs, common = np.unique(place.ravel() * len(theirs) + other.ravel(), return_counts=True)
    rows, columns = np.divmod(pairs, max(len(theirs), 1))
    both = (ours[rows] > 0) & (theirs[columns] > 0)
    rows, columns, common = rows[both], columns[both], common[both]
    iou = common / (area[rows] + size[columns] - common)
    first, other_first = int((ours == 0).sum()), int((theirs == 0).sum())
    return Overlaps(ours[first:], theirs[other_first:], rows - first, columns - other_first, iou)


def match(pairs: Overlaps, threshold: float) -> np.ndarray:
    """The pairs of a matching, i[q] places in `pairs.iou`: see the head of this module.

    Raises:
        ArgumentError: if the threshold is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ArgumentError(f"The threshold of an IoU lies above 0 and at most at 1, got {threshold}.")
    hits = np.flatnonzero(pairs.iou >= threshold)
    (rows, row), (columns, column) = (
        np.unique(each[hits], return_inverse=True) for each in (pairs.rows, pairs.columns)
    )
    if len(rows) == len(columns) == len(hits):
        return hits
    # A further pair is worth more than any sum of the IoUs of the pairs.
    worth, place = np.zeros((len(rows), len(columns))), np.full((len(rows), len(columns)), -1)
    worth[row, column], place[row, column] = min(worth.shape) + 1 + pairs.iou[hits], hits
    chosen = place[linear_sum_assignment(worth, maximize=True)]
    return chosen[chosen >= 0]


def object_sums(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    true_classes: np.ndarray | None = None,
    predicted_classes: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, np.ndarray]:
    """The counts of one image, i[h,w] and i[h,w] -> f64[t] for t thresholds; they add over images (`object_scores`).

    Args:
        truth: the number of the true object of each pixel; 0 where there is none.
        prediction: the number of the predicted object of each pixel; 0 where there is none.
        true_classes: the class of each true object, by ascending numbers; objects match inside their class alone.
        predicted_classes: the class of each predicted object.
        thresholds: the least IoUs of a match, ascending.

    Raises:
        ArgumentError: if an argument is invalid.
    """
    pairs = find_overlaps(truth, prediction)
    n, m = len(pairs.truth), len(pairs.prediction)
    if (true_classes is None) != (predicted_classes is None):
        raise ArgumentError("Give the classes of both the true and the predicted objects, or of none.")
    if true_classes is not None and predicted_classes is not None:
        ours, theirs = np.asarray(true_classes), np.asarray(predicted_classes)
        if ours.shape != (n,) or theirs.shape != (m,):
            raise ArgumentError(
                f"There are {n} true and {m} predicted objects, but classes of {ours.size} and {theirs.size}."
            )
        pairs = pairs._replace(iou=np.where(ours[pairs.rows] == theirs[pairs.columns], pairs.iou, 0.0))
    matched = [pairs.iou[match(pairs, threshold)] for threshold in thresholds]
    hits = np.array([len(iou) for iou in matched], np.float64)
    return {
        "true_positives": hits,
        "false_positives": m - hits,
        "false_negatives": n - hits,
        "iou": np.array([iou.sum() for iou in matched]),
        "precision_by_image": hits / np.maximum(n + m - hits, 1),
        "images": np.full(len(hits), float(n + m > 0)),
    }


class ObjectTotal:
    """Adds `object_sums` over images; `sums` is the total so far.

    Attributes:
        thresholds: the least IoUs of a match.
        sums: the total.
    """

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS):
        self.thresholds = tuple(thresholds)
        empty = np.zeros((1, 1), np.int64)
        self.sums = object_sums(empty, empty, thresholds=self.thresholds)

    def add(self, truth: np.ndarray, prediction: np.ndarray, **classes: np.ndarray) -> None:
        """Adds one image; see `object_sums`."""
        image = object_sums(truth, prediction, thresholds=self.thresholds, **classes)
        self.sums = {name: self.sums[name] + image[name] for name in image}

    def scores(self) -> "ObjectScores":
        """Returns the scores of the images so far."""
        return object_scores(self.sums, self.thresholds)


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectScores:
    """Scores of the objects of a split at each threshold, f64[t]; NaN where there is no object.

    Attributes:
        thresholds: f64[t], the least IoUs of a match.
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        f1: 2 TP / (2 TP + FP + FN).
        average_precision: TP / (TP + FP + FN).
        matched_iou: the mean IoU of the matched pairs.
        panoptic_quality: `f1` times `matched_iou` (Kirillov et al., Panoptic Segmentation, CVPR 2019, eq. 2).
        mean_ap: the mean of `average_precision` over the thresholds.
        mean_ap_by_image: the mean over the images that have objects of the mean AP of each.
        truth, predicted: how many objects there are.
        images: how many images have objects in the truth or the prediction.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    average_precision: np.ndarray
    matched_iou: np.ndarray
    panoptic_quality: np.ndarray
    mean_ap: float
    mean_ap_by_image: float
    truth: int
    predicted: int
    images: int

    def at(self, threshold: float, score: str = "f1") -> float:
        """Returns a score at one of the thresholds: `scores.at(.75)`.

        Raises:
            ArgumentError: if it is none of the thresholds.
        """
        [place] = np.nonzero(np.isclose(self.thresholds, threshold))
        if not len(place):
            raise ArgumentError(f"{threshold} is none of the thresholds {self.thresholds.tolist()}.")
        return float(getattr(self, score)[place[0]])


def object_scores(sums: dict[str, np.ndarray], thresholds: Sequence[float] = THRESHOLDS) -> ObjectScores:
    """Turns summed `object_sums` into `ObjectScores`."""
    hits, extra, missed = (sums[name] for name in ("true_positives", "false_positives", "false_negatives"))

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)

    f1, iou, ap = (
        share(2 * hits, 2 * hits + extra + missed),
        share(sums["iou"], hits),
        share(hits, hits + extra + missed),
    )
    return ObjectScores(
        thresholds=np.asarray(thresholds, np.float64),
        precision=share(hits, hits + extra),
        recall=share(hits, hits + missed),
        f1=f1,
        average_precision=ap,
        matched_iou=iou,
        panoptic_quality=f1 * np.where(hits > 0, iou, 0.0),
        mean_ap=float(ap.mean()),
        mean_ap_by_image=float(share(sums["precision_by_image"], sums["images"]).mean()),
        truth=int(hits[0] + missed[0]),
        predicted=int(hits[0] + extra[0]),
        images=int(sums["images"][0]),
    )


def object_table(result: ObjectScores) -> str:
    """A Markdown table with one line for each threshold, and the means over thresholds; shares in percent."""
    fields = ("f1", "average_precision", "precision", "recall", "matched_iou", "panoptic_quality")
    rows: list[Sequence[str]] = [("IoU", "F1", "AP", "precision", "recall", "matched IoU", "PQ")]
    for i, threshold in enumerate(result.thresholds):
        rows.append((f"{threshold:g}", *(_shown(getattr(result, field)[i]) for field in fields)))
    rows.append(("mean", _shown(result.f1.mean()), _shown(result.mean_ap), "", "", "", ""))
    return "\n".join(markdown_table(rows))


def object_dict(result: ObjectScores) -> dict[str, Any]:
    """The scores in the types of JSON; None for NaN."""
    return {
        field.name: [plain(v) for v in value] if isinstance(value, np.ndarray) else plain(value)
        for field in dataclasses.fields(result)
        for value in [getattr(result, field.name)]
    }


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"
