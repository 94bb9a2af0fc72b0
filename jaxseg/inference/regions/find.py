"""The regions of a label map: their pixels, and a table of what is measured of each."""

import dataclasses
from collections.abc import Collection, Iterator

import numpy as np
from scipy import ndimage

from jaxseg.arguments import Positive, WholeNotNegative, checked
from jaxseg.errors import ArgumentError
from jaxseg.inference.regions.components import Connectivity, check_classes, fill_holes, find_components, remove_small
from jaxseg.inference.regions.split import split_touching
from jaxseg.types import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Regions:
    """The regions of an image; row i of each array of the table is of region i + 1.

    Attributes:
        labels: i32[h,w], the region of each pixel; 0 where there is none.
        classes: u8[n], the class of each region.
        area: i64[n], its pixels.
        box: i32[n,4], its (top, left, bottom, right) in pixels, bottom and right outside of it.
        centroid: f64[n,2], the (y, x) of the mean of its pixels; the middle of the first pixel of the image is (0, 0).
        perimeter: f64[n], the length of its outline and that of its holes in pixels; see `perimeters`.
        confidence: f64[n], the mean probability of its class over its pixels; None without probabilities.
    """

    labels: np.ndarray
    classes: np.ndarray
    area: np.ndarray
    box: np.ndarray
    centroid: np.ndarray
    perimeter: np.ndarray
    confidence: np.ndarray | None

    def __len__(self) -> int:
        return len(self.classes)

    def mask(self, i: int) -> np.ndarray:
        """The pixels of row i inside its box, bool[bottom - top, right - left]."""
        top, left, bottom, right = self.box[i]
        return self.labels[top:bottom, left:right] == i + 1

    def masks(self) -> Iterator[np.ndarray]:
        """The masks of all regions, each inside its box."""
        return (self.mask(i) for i in range(len(self)))


@checked
def find_regions(
    classes: Array,
    probabilities: Array | None = None,
    *,
    only: Collection[int] | None = None,
    connectivity: Connectivity = 8,
    min_area: WholeNotNegative = 0,
    small_to: WholeNotNegative | None = None,
    fill: bool | WholeNotNegative = False,
    split: bool | Positive = False,
) -> Regions:
    """The regions of a map of classes, u8|u16[h,w] -> Regions; the connected components of its classes, in this order.

    Holes are filled, small components removed, the components found and, on request, split where objects touch.

    Args:
        classes: class indices, and IGNORE.
        probabilities: f32[h,w,k] of the classes, for the confidence; [h,w,1], that of class 1, of a binary network.
        only: the classes that regions are wanted of, without the background as a rule; None: every class.
        connectivity: 4 or 8; see `components`.
        min_area: components of fewer pixels are removed, those of other classes too: a hole of the background that is
            too small joins what is around it.
        small_to: the class that they take; None: that of the neighbour with the longest shared border.
        fill: True fills the holes of the wanted classes, a number those of at most so many pixels.
        split: True splits regions at waists that are deeper than one pixel, a number at those deeper than so many
            pixels; see `split.split_touching`.

    Raises:
        ArgumentError: if an argument is invalid.
        ConfigError: if `split` is set and scikit-image is not installed.
    """
    found = check_classes(np.asarray(classes))
    if fill:
        found = fill_holes(found, only, connectivity, None if fill is True else int(fill))
    if min_area > 1:
        found = remove_small(found, min_area, small_to, connectivity)
    labels, owners = find_components(found, only, connectivity)
    if split:
        parts = split_touching(labels, 1.0 if split is True else float(split), min_area)
        first = np.zeros(int(parts.max(initial=0)) + 1, np.int64)
        first[parts.ravel()] = labels.ravel()
        labels, owners = parts, owners[first[1:] - 1]
    return measure(labels, owners, None if probabilities is None else np.asarray(probabilities))


def measure(labels: np.ndarray, owners: np.ndarray, probabilities: np.ndarray | None = None) -> Regions:
    """The table of given regions: numbers i[h,w] from 1 to n, 0 for none, and the class u8|u16[n] of each.

    Raises:
        ArgumentError: if numbers are missing, or the probabilities are not those of the image.
    """
    labels, owners = np.asarray(labels, np.int32), np.asarray(owners)
    owners = owners if owners.dtype == np.uint16 else owners.astype(np.uint8)
    n, (h, w) = len(owners), labels.shape
    area = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    if len(area) != n or not area.all():
        raise ArgumentError(f"Regions have the numbers 1 to {n}, each at least once: so many classes are given.")
    rows, columns = (np.bincount(labels.ravel(), _axis(axis, h, w), n + 1) for axis in (0, 1))
    boxes = [(b[0].start, b[1].start, b[0].stop, b[1].stop) for b in ndimage.find_objects(labels)]
    return Regions(
        labels=labels,
        classes=owners,
        area=area,
        box=np.array(boxes, np.int32).reshape(n, 4),
        centroid=np.stack([rows[1:], columns[1:]], -1) / area[:, None],
        perimeter=perimeters(labels, n),
        confidence=None if probabilities is None else _confidence(labels, owners, area, probabilities),
    )


def _axis(axis: int, h: int, w: int) -> np.ndarray:
    return np.broadcast_to(np.arange(h)[:, None] if axis == 0 else np.arange(w)[None], (h, w)).ravel()


def _confidence(labels: np.ndarray, owners: np.ndarray, area: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    shares = np.asarray(probabilities)
    if shares.ndim != 3 or shares.shape[:2] != labels.shape:
        raise ArgumentError(f"The classes are {list(labels.shape)}, but the probabilities {list(shares.shape)}.")
    k = max(shares.shape[2], 2)
    if len(owners) and owners.max() >= k:
        raise ArgumentError(f"A region has class {owners.max()}, but the probabilities are those of {k} classes.")
    y, x = np.nonzero(labels)
    number = labels[y, x]
    of = owners[number - 1]
    chosen = shares[y, x, of] if shares.shape[2] > 1 else np.where(of == 1, shares[y, x, 0], 1 - shares[y, x, 0])
    return np.bincount(number, chosen.astype(np.float64), len(owners) + 1)[1:] / area


# The length that a border pixel adds, by its code: 1 for itself, 2 for each border pixel of the region that shares an
# edge with it, and 10 for each that shares a corner.
_STEPS = np.zeros(50)
_STEPS[[5, 7, 15, 17, 25, 27]] = 1
_STEPS[[21, 33]] = np.sqrt(2)
_STEPS[[13, 23]] = (1 + np.sqrt(2)) / 2


def perimeters(labels: np.ndarray, n: int) -> np.ndarray:
    """The perimeter of each region, i[h,w] with numbers 1 to n -> f64[n], in pixels.

    It is the length of the line through the middles of the border pixels, those with one of their four neighbours
    outside the region or the image, with steps of 1 and sqrt(2): Benkrid, Crookes & Benkrid, Design and FPGA
    implementation of a perimeter estimator, 2000. A single pixel has perimeter 0. Values are those of
    `skimage.measure.perimeter`, computed for all regions at once.
    """
    padded = np.pad(np.asarray(labels, np.int32), 1)
    inner = padded[1:-1, 1:-1]

    def beside(values: np.ndarray, y: int, x: int) -> np.ndarray:
        return values[1 + y : values.shape[0] - 1 + y, 1 + x : values.shape[1] - 1 + x]

    edges, corners = ((-1, 0), (1, 0), (0, -1), (0, 1)), ((-1, -1), (-1, 1), (1, -1), (1, 1))
    border = np.zeros_like(inner, bool)
    for offset in edges:
        border |= beside(padded, *offset) != inner
    lines = np.pad(np.where(border, inner, 0), 1)
    code = np.ones(inner.shape, np.uint8)
    for offsets, weight in ((edges, 2), (corners, 10)):
        for offset in offsets:
            code += np.uint8(weight) * (beside(lines, *offset) == inner)
    on_line = lines[1:-1, 1:-1] > 0
    return np.bincount(inner[on_line], _STEPS[code[on_line]], n + 1)[1:]
