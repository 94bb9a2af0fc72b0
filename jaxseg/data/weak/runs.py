"""The pixels of an object as the lengths of runs, outside and inside by turns, as COCO, CVAT and others store them.

COCO counts down the columns, from the left one on. Its compressed text has each length as groups of 5 bits, the lowest
first, in characters from "0" on: 32 is added while more groups follow, and the bit 16 of the last is the sign. From the
fourth length on, the text has the difference to the length two places before.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_MOST_GROUPS = 8  # 40 bits: more than any image has pixels


class Runs(NamedTuple):
    """Pixels of an image.

    Attributes:
        counts: i64[n], the lengths of the runs: the first outside the object (it may be 0), the second inside, ...
        shape: (height, width) of the image.
        box: (top, left, height, width) of the part of the image that the runs fill.
        by_columns: whether they go down the columns, as COCO's; else along the rows.
    """

    counts: np.ndarray
    shape: tuple[int, int]
    box: tuple[int, int, int, int]
    by_columns: bool

    @property
    def area(self) -> int:
        """The number of pixels inside."""
        return int(self.counts[1::2].sum())

    def pixels(self) -> np.ndarray:
        """Returns bool[h,w] of the image."""
        top, left, height, width = self.box
        flat = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        part = flat.reshape(width, height).T if self.by_columns else flat.reshape(height, width)
        mask = np.zeros(self.shape, bool)
        mask[top : top + height, left : left + width] = part
        return mask


def make_runs(
    counts: Sequence[int] | np.ndarray,
    shape: tuple[int, int],
    box: tuple[int, int, int, int] | None = None,
    *,
    by_columns: bool = True,
) -> Runs:
    """Returns checked runs, of which no pixel is computed yet; `box` None: the whole image.

    Raises:
        ValueError: if a length is no whole number from 0 on, or they do not add up to the pixels of the box.
    """
    top, left, height, width = box = (0, 0, *shape) if box is None else box
    given = [int(count) for count in counts]
    if any(count < 0 or count != whole for count, whole in zip(counts, given)):
        raise ValueError("the lengths of runs are whole numbers from 0 on")
    if min(shape) < 1 or min(height, width) < 1 or sum(given) != height * width:
        raise ValueError(f"runs of {sum(given)} pixels do not fill {height} x {width}")
    if top < 0 or left < 0 or top + height > shape[0] or left + width > shape[1]:
        raise ValueError(f"runs of {height} x {width} at ({left}, {top}) lie outside the {shape[0]} x {shape[1]} image")
    return Runs(np.array(given, np.int64), (shape[0], shape[1]), box, by_columns)


def runs_of(mask: np.ndarray, shape: tuple[int, int] | None = None, corner: tuple[int, int] = (0, 0)) -> Runs:
    """Returns the runs of bool[h,w], along its rows; `corner` (top, left) is its place in an image of `shape`."""
    flat = mask.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]]))
    counts = np.concatenate([[0], counts]) if flat.size and flat[0] else counts
    height, width = mask.shape
    return make_runs(counts, shape or (height, width), (*corner, height, width), by_columns=False)


def counts_in(text: str) -> list[int]:
    """Returns the lengths in COCO's compressed text; see the docstring of the module.

    Raises:
        ValueError: if it is cut short, or holds another character or too large a number.
    """
    counts: list[int] = []
    value = groups = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or groups == _MOST_GROUPS:
            raise ValueError(f"the run lengths hold {character!r} at a place where it has no meaning")
        value |= (code & 31) << 5 * groups
        groups += 1
        if code & 32:
            continue
        value -= 1 << 5 * groups if code & 16 else 0
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = groups = 0
    if groups:
        raise ValueError("the run lengths are cut short")
    return counts
