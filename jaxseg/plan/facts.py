"""What one image and its mask say: pure functions over arrays, whose results add up over a data set."""

from dataclasses import dataclass, fields

import numpy as np

from jaxseg.data.near_duplicates import Sketch, sketch
from jaxseg.data.values import top_of, values_of
from jaxseg.inference.regions.components import components_of, present
from jaxseg.types import ignore_in

BINS = 64  # of the logarithm of a diameter, four an octave: 1 to 2**15.75 pixels
_LEAST = 4  # pixels of an object; smaller ones are taken as noise
_COLOURED = 0.02  # mean distance of the channels, in [0, 1], from which an image counts as coloured


@dataclass(frozen=True)
class ClassSums:
    """Sums over the pixels and objects of each class, of one image or of several; k classes.

    Attributes:
        pixels: i64[k].
        images: i64[k], images in which the class occurs.
        grey: f64[k], sums of the mean of the channels in [0, 1], and `square` of its square.
        square: f64[k].
        sizes: i64[k,64], objects by diameter, that of the disc of the same area; see `BINS`.
        below: f64[k], sums over the objects of how far the centre of mass of each lies below the middle of its box, as
            a share of the height of the box: 1/6 for a triangle that points up.
        upper, lower, left, right: i64[k], pixels in each half of the image.
    """

    pixels: np.ndarray
    images: np.ndarray
    grey: np.ndarray
    square: np.ndarray
    sizes: np.ndarray
    below: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def __add__(self, other: "ClassSums") -> "ClassSums":
        return ClassSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class ImageFacts:
    """What one example says, beside the sums of its classes.

    Attributes:
        size: (height, width).
        bits: 8 or 16, of a stored value; 0 with `data.range`.
        largest: the largest value, in [0, 1].
        mean, square: f64[c], means of the values in [0, 1] and of their squares.
        coloured: whether its channels differ.
        ignored: the number of ignored pixels.
        sketch: for near-duplicates.
    """

    size: tuple[int, int]
    bits: int
    largest: float
    mean: np.ndarray
    square: np.ndarray
    coloured: bool
    ignored: int
    sketch: Sketch


def facts_of(image: np.ndarray, label: np.ndarray) -> ImageFacts:
    """Returns the facts of an image u8|u16|f32[h,w,c] with a label map u8|u16[h,w]."""
    values = values_of(image)
    colours = image[..., :3]
    spread = (colours.max(-1) - colours.min(-1)).mean() / values.top
    return ImageFacts(
        size=(int(label.shape[0]), int(label.shape[1])),
        bits=values.bits,
        largest=values.largest / values.top,
        mean=values.mean,
        square=values.square,
        coloured=bool(spread > _COLOURED),
        ignored=int((label == ignore_in(label)).sum()),
        sketch=sketch(image),
    )


def class_sums(image: np.ndarray, label: np.ndarray, num_classes: int) -> ClassSums:
    """Returns the sums of an image u8|u16|f32[h,w,c] with a label map u8|u16[h,w] of `num_classes` classes."""
    grey = image.mean(-1, dtype=np.float32) / np.float32(top_of(image))
    height, width = label.shape

    def count(part: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        flat = None if weights is None else weights.ravel().astype(np.float64)
        return np.bincount(part.ravel(), flat, minlength=num_classes)[:num_classes]

    pixels = count(label)
    sizes, below = np.zeros((num_classes, BINS), np.int64), np.zeros(num_classes)
    for c in present(label):
        numbers, _ = components_of(label == c)
        areas = np.bincount(numbers.ravel())[1:]
        large = areas >= _LEAST
        sizes[c] = np.bincount(bin_of(diameter(areas[large])), minlength=BINS)
        below[c] = _below_middle(numbers, areas)[large].sum()
    return ClassSums(
        pixels=pixels,
        images=(pixels > 0).astype(np.int64),
        grey=count(label, grey),
        square=count(label, grey * grey),
        sizes=sizes,
        below=below,
        upper=count(label[: height // 2]),
        lower=count(label[-(height // 2) :] if height > 1 else label[:0]),
        left=count(label[:, : width // 2]),
        right=count(label[:, -(width // 2) :] if width > 1 else label[:, :0]),
    )


def _below_middle(numbers: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Returns how far the centres of mass of components i32[h,w] lie below the middles of their boxes, by height."""
    rows = np.bincount(numbers.ravel(), np.repeat(np.arange(len(numbers)), numbers.shape[1]))[1:] / areas
    first, last = np.full(len(areas) + 1, len(numbers)), np.zeros(len(areas) + 1, np.int64)
    for row, found in enumerate(map(np.unique, numbers)):
        first[found] = np.minimum(first[found], row)
        last[found] = row
    return (rows - (first + last)[1:] / 2) / (last - first + 1)[1:]


def diameter(area: np.ndarray) -> np.ndarray:
    """Returns the diameter of discs of some areas, in pixels."""
    return 2 * np.sqrt(np.asarray(area, np.float64) / np.pi)


def bin_of(diameters: np.ndarray) -> np.ndarray:
    """Returns the bin of each diameter, at least 1 pixel: four an octave, the last for all that are larger."""
    return np.clip(np.rint(4 * np.log2(np.maximum(diameters, 1))), 0, BINS - 1).astype(np.int64)


def quantile_of(bins: np.ndarray, share: float) -> float:
    """Returns the diameter that a share of the objects counted in i64[64] does not exceed; 0 without objects."""
    total = bins.sum()
    if not total:
        return 0.0
    place = int(np.searchsorted(np.cumsum(bins), share * total))
    return float(round(2 ** (place / 4), 1))


def typical_size(bins: np.ndarray) -> float:
    """Returns the median over the pixels of all objects of the diameter of the object that each lies in."""
    return quantile_of(bins * 4.0 ** (np.arange(BINS) / 4), 0.5)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Returns how much the shares of the classes in two halves differ, from 0 (not at all) to 1 (no class in both)."""
    if not one.sum() or not other.sum():
        return 0.0
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)
