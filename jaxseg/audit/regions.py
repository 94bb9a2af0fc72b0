"""The regions of an image whose label is likely wrong: confident disagreement, and whole components of the label."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from jaxseg.audit.scores import LEAST, PixelScores
from jaxseg.inference.regions import find_components
from jaxseg.types import IGNORE

LEAST_AREA = 4
"""Pixels of a region."""
SAME = 0.5
"""Two regions whose intersection over union is larger are one."""


class Doubt(NamedTuple):
    """A region whose label is likely wrong.

    Attributes:
        kind: "pixels": a component of the pixels that are confidently of another class; "object": a component of the
            label that is less probable than another class as a whole.
        top, left, bottom, right: its box, rows top to bottom - 1.
        area: its pixels.
        given: the class that the label gives most of it.
        suggested: the class that it more likely is.
        probability: the mean probability of the label in it.
        score: the sum of the log odds of its pixels, divided by the square root of their number; regions are ranked by
            it. Pixels of independent errors would give it the same spread at any size.
        mask: bool[bottom - top, right - left], its pixels in the box.
    """

    kind: str
    top: int
    left: int
    bottom: int
    right: int
    area: int
    given: int
    suggested: int
    probability: float
    score: float
    mask: np.ndarray


def find_doubts(pixels: PixelScores, probabilities: np.ndarray, label: np.ndarray, most: int = 20) -> list[Doubt]:
    """Returns the regions of an image whose label is likely wrong, at most `most` of them, the likeliest first.

    Of regions that are nearly the same (`SAME`) the likelier is kept; of equal ones the object.

    Args:
        pixels: the scores of the pixels.
        probabilities: f32[h,w,k], k of at least 2.
        label: u8[h,w].
        most: how many are returned.
    """
    logs = np.log(np.maximum(probabilities, LEAST))
    found = [*_of_objects(pixels, logs, label), *_of_pixels(pixels, label)]
    kept: list[Doubt] = []
    for doubt in sorted(found, key=lambda doubt: -round(doubt.score, 3)):
        if len(kept) == most:
            break
        if not any(overlap(doubt, other) > SAME for other in kept):
            kept.append(doubt)
    return kept


def overlap(a: Doubt, b: Doubt) -> float:
    """Returns the intersection over union of the pixels of two regions."""
    top, left = max(a.top, b.top), max(a.left, b.left)
    bottom, right = min(a.bottom, b.bottom), min(a.right, b.right)
    if top >= bottom or left >= right:
        return 0.0
    parts = [each.mask[top - each.top : bottom - each.top, left - each.left : right - each.left] for each in (a, b)]
    both = int((parts[0] & parts[1]).sum())
    return both / (a.area + b.area - both)


def _of_pixels(pixels: PixelScores, label: np.ndarray) -> list[Doubt]:
    numbers, owners = find_components(pixels.doubted)
    doubts = []
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
        mask = numbers[box] == number
        score = float(np.maximum(pixels.odds[box], 0)[mask].sum(dtype=np.float64))
        given = int(np.bincount(label[box][mask]).argmax())
        doubts += _doubt("pixels", box, mask, given, int(owners[number - 1]), pixels, score)
    return doubts


def _of_objects(pixels: PixelScores, logs: np.ndarray, label: np.ndarray) -> list[Doubt]:
    numbers, owners = find_components(label)
    doubts = []
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
        mask, given = numbers[box] == number, int(owners[number - 1])
        sums = logs[box][mask].sum(0, dtype=np.float64)
        suggested = int(sums.argmax())
        if suggested != given:
            doubts += _doubt("object", box, mask, given, suggested, pixels, float(sums[suggested] - sums[given]))
    return doubts


def _doubt(
    kind: str,
    box: tuple[slice, ...],
    mask: np.ndarray,
    given: int,
    suggested: int,
    pixels: PixelScores,
    total: float,
) -> list[Doubt]:
    """Returns the region of these pixels; [] if it is too small."""
    area, (rows, columns) = int(mask.sum()), box
    if area < LEAST_AREA:
        return []
    return [
        Doubt(
            kind,
            top=int(rows.start),
            left=int(columns.start),
            bottom=int(rows.stop),
            right=int(columns.stop),
            area=area,
            given=given,
            suggested=suggested,
            probability=float(pixels.probability[box][mask].mean()),
            score=total / area**0.5,
            mask=mask,
        )
    ]


def suggested_label(pixels: PixelScores, label: np.ndarray) -> np.ndarray:
    """Returns u8[h,w]: the label, with the class of each pixel that is confidently of another."""
    return np.where(pixels.doubted != IGNORE, pixels.doubted, label).astype(np.uint8)
