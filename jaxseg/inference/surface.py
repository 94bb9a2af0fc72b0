"""Distances between boundaries, image by image on the host: boundary F1, surface Dice, Hausdorff and average distance.

The edge of a mask is the set of its pixels that have at least one of their four neighbours outside the mask or outside
the image. IGNORE pixels belong to no mask of the truth or the prediction; a region that ends at them has an edge there.

If both masks are empty every number is NaN; if one is empty the distances are infinite and the shares 0, as in MONAI
(whose percentile of infinite distances is NaN). The number of a class for a split is the mean over the images with the
class in truth or prediction; the means of the distances leave out the images with the class in only one of the two,
which are counted separately (`one_sided`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.metrics import num_confusion_classes
from jaxseg.metrics.formatting import markdown_table, nan_mean, plain
from jaxseg.types import IGNORE, Array, ignore_label

# Default distance within which boundaries match, as a share of the diagonal: Csurka et al., 2013, section 4.
TOLERANCE = 0.0075

_MEANS = ("boundary_f1", "surface_dice", "hausdorff_95", "surface_distance")


class Distances(NamedTuple):
    """From each edge pixel of one mask to the nearest edge pixel of the other, infinite if the other has none.

    Attributes:
        of_prediction: f64[n], from the prediction's edge pixels to the truth's edge.
        of_truth: f64[m], from the truth's edge pixels to the prediction's edge.
    """

    of_prediction: np.ndarray
    of_truth: np.ndarray


def surface_distances(prediction: Array, truth: Array, spacing: float | Sequence[float] = 1.0) -> Distances:
    """The distances between the edges of two masks, bool[h,w] and bool[h,w], or of any other number of dimensions.

    Args:
        prediction: mask of a class.
        truth: mask of the same shape.
        spacing: size of a pixel, one number or one per axis; distances are in its unit.

    Raises:
        ValueError: if the shapes differ.
    """
    prediction, truth = np.asarray(prediction, bool), np.asarray(truth, bool)
    if prediction.shape != truth.shape:
        raise ValueError(f"The two masks need one shape, got {prediction.shape} and {truth.shape}.")
    box = _ndimage().find_objects((prediction | truth).astype(np.int8))
    if not box:
        return Distances(np.zeros(0), np.zeros(0))
    ours, theirs = mask_edges(prediction[box[0]]), mask_edges(truth[box[0]])
    sampling = np.broadcast_to(np.asarray(spacing, np.float64), (truth.ndim,))
    return Distances(_to(theirs, sampling)[ours], _to(ours, sampling)[theirs])


def _ndimage() -> Any:
    """Returns `scipy.ndimage`; its import takes a tenth of that of the whole program, and training does not need it."""
    from scipy import ndimage

    return ndimage


def mask_edges(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that an erosion with a cross removes, bool[h,w] -> bool[h,w]."""
    return mask & ~_ndimage().binary_erosion(mask)


def _to(edges: np.ndarray, sampling: np.ndarray) -> np.ndarray:
    """Distance of every pixel to the nearest pixel of `edges`, infinite if there is none."""
    if not edges.any():
        return np.full(edges.shape, np.inf)
    return np.asarray(_ndimage().distance_transform_edt(~edges, sampling=sampling))


def boundary_f1(distances: Distances, tolerance: float) -> float:
    """F1 of two shares: of the predicted edge within `tolerance` of the true one, and vice versa. Source: Csurka et
    al., What is a good evaluation measure for semantic segmentation?, 2013, section 3."""
    precision, recall = (float(np.mean(d <= tolerance)) if len(d) else 0.0 for d in distances)
    if not (len(distances.of_prediction) or len(distances.of_truth)):
        return float("nan")
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def surface_dice(distances: Distances, tolerance: float) -> float:
    """Share of the pixels of both edges that lie within `tolerance` of the other edge: Nikolov et al., Deep learning to
    achieve clinically applicable segmentation, 2018 (normalised surface Dice), where each edge pixel counts 1."""
    both = np.concatenate(distances)
    return float(np.mean(both <= tolerance)) if len(both) else float("nan")


def hausdorff(distances: Distances, percentile: float = 100.0) -> float:
    """The larger of the two directed distances; each is the maximum, or a percentile such as 95, over its pixels."""
    empty = [len(d) == 0 for d in distances]
    if any(empty):
        return float("nan") if all(empty) else float("inf")
    return float(max(np.percentile(d, percentile) for d in distances))


def average_surface_distance(distances: Distances, symmetric: bool = True) -> float:
    """Mean distance to the other edge, over the pixels of both edges or of the prediction's edge only."""
    both = np.concatenate(distances) if symmetric else distances.of_prediction
    if any(len(d) == 0 for d in distances):
        return float("nan") if all(len(d) == 0 for d in distances) else float("inf")
    return float(both.mean())


def surface_sums(
    prediction: Array,
    label: Array,
    num_classes: int,
    *,
    tolerance: float | None = None,
    spacing: float | Sequence[float] = 1.0,
) -> dict[str, np.ndarray]:
    """The numbers of one image as sums f64[k] that add over images, i[h,w] and i[h,w]; see `surface_scores`.

    Args:
        prediction: classes 0..k-1.
        label: classes, or IGNORE.
        num_classes: k; 1 means 2.
        tolerance: distance within which boundaries match, in the unit of `spacing`; by default TOLERANCE times the
            image's diagonal, and at least one pixel.
        spacing: size of a pixel, one number or (height, width).
    """
    prediction, label = np.asarray(prediction), np.asarray(label)
    classes = num_confusion_classes(num_classes)
    if tolerance is None:
        pixel = np.broadcast_to(np.asarray(spacing, np.float64), (label.ndim,))
        tolerance = max(TOLERANCE * float(np.linalg.norm(pixel * label.shape)), float(pixel.max()))
    ignored = ignore_label(num_classes)
    prediction = np.where(label == ignored, ignored, prediction)
    sums = {name: np.zeros(classes) for name in (*_MEANS, "images", "one_sided")}
    for c in np.intersect1d(np.union1d(prediction, label), np.arange(classes)):
        distances = surface_distances(prediction == c, label == c, spacing)
        sums["images"][c] = 1
        sums["boundary_f1"][c] = boundary_f1(distances, tolerance)
        sums["surface_dice"][c] = surface_dice(distances, tolerance)
        if np.isinf(farthest := hausdorff(distances, 95.0)):
            sums["one_sided"][c] = 1
        else:
            sums["hausdorff_95"][c] = farthest
            sums["surface_distance"][c] = average_surface_distance(distances)
    return sums


class SurfaceTotal:
    """Adds `surface_sums` of the maps that an evaluation step returns; `sums` is the total so far."""

    def __init__(self, num_classes: int, tolerance: float | None = None):
        self.num_classes, self.tolerance = num_classes, tolerance
        classes = num_confusion_classes(num_classes)
        self.sums = {name: np.zeros(classes) for name in (*_MEANS, "images", "one_sided")}

    def add(self, maps: Mapping[str, np.ndarray]) -> None:
        """Adds a batch: prediction and label u8[b,h,w], and size i[b,2], the height and width of each image."""
        for prediction, label, (h, w) in zip(maps["prediction"], maps["label"], maps["size"]):
            image = surface_sums(prediction[:h, :w], label[:h, :w], self.num_classes, tolerance=self.tolerance)
            self.sums = {name: self.sums[name] + image[name] for name in image}


@dataclasses.dataclass(frozen=True, eq=False)
class SurfaceScores:
    """Means over images for each class, f64[k]; NaN for a class without images.

    boundary_f1, surface_dice: over the images with the class in truth or prediction.
    hausdorff_95, surface_distance: over the images with the class in both, in pixels or the unit of the spacing.
    images: i64[k], number of images with the class in truth or prediction.
    one_sided: i64[k], number of images with the class in only one of the two, where the distances are infinite.
    """

    boundary_f1: np.ndarray
    surface_dice: np.ndarray
    hausdorff_95: np.ndarray
    surface_distance: np.ndarray
    images: np.ndarray
    one_sided: np.ndarray


def surface_scores(sums: Mapping[str, np.ndarray]) -> SurfaceScores:
    """Turns summed `surface_sums` into `SurfaceScores`."""
    images, one_sided = (np.asarray(sums[name], np.int64) for name in ("images", "one_sided"))
    of = dict.fromkeys(_MEANS[:2], images) | dict.fromkeys(_MEANS[2:], images - one_sided)
    means = {n: np.where(of[n] > 0, sums[n] / np.maximum(of[n], 1), np.nan) for n in _MEANS}
    return SurfaceScores(**means, images=images, one_sided=one_sided)


def surface_table(result: SurfaceScores, class_names: Sequence[str]) -> str:
    """A Markdown table with one line per class and their mean: shares in percent, distances in pixels, "-" for NaN.

    Of more than 255 classes it has those that occur.
    """
    rows: list[tuple[str, ...]] = [("class", "boundary F1", "surface Dice", "HD95", "distance", "images", "one-sided")]
    numbers = np.array([getattr(result, name) * (100 if name in _MEANS[:2] else 1) for name in _MEANS])
    for i, name in enumerate(class_names):
        if len(class_names) > IGNORE and not result.images[i]:
            continue
        counts = (str(result.images[i]), str(result.one_sided[i]))
        rows.append((name.replace("|", "\\|"), *map(_shown, numbers[:, i]), *counts))
    rows.append(("mean", *(_shown(nan_mean(row)) for row in numbers), "", ""))
    return "\n".join(markdown_table(rows))


def surface_dict(result: SurfaceScores, class_names: Sequence[str]) -> dict[str, Any]:
    """The scores in the types of JSON: means over classes, and one dictionary per class; None for NaN."""
    classes = [
        {"name": name, "images": int(result.images[i]), "one_sided": int(result.one_sided[i])}
        | {field: plain(getattr(result, field)[i]) for field in _MEANS}
        for i, name in enumerate(class_names)
    ]
    return {f"mean_{field}": plain(nan_mean(getattr(result, field))) for field in _MEANS} | {"classes": classes}


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
