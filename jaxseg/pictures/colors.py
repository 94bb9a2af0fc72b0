"""Colours: a palette for any number of classes, and label maps in the colours of their classes."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from jaxseg.errors import counted
from jaxseg.types import IGNORE_16, ignore_in, ignore_label

Colors: TypeAlias = Sequence[Sequence[int]]

IGNORE_COLOR = (200, 200, 200)
RIGHT_COLOR = (255, 255, 255)
WRONG_COLOR = (0, 0, 0)  # no hue, and shown with a legend of its own: a class may have any colour


def default_colors(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Returns `num_classes` colours, all different: black, then each as different as possible from all before it.

    After some 460 they are scattered over the bright and coloured ones, and may be close to one another.
    """
    levels = np.arange(0, 256, 36)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float64)
    greys = np.ptp(candidates, axis=1) < 72  # reserved for IGNORE and for shading
    candidates = np.concatenate([np.zeros((1, 3)), candidates[~greys]])
    if not 0 <= num_classes <= IGNORE_16 + 1:
        raise ValueError(f"default_colors gives 0 to {IGNORE_16 + 1} colours, got {num_classes}.")
    # Approximate sensitivity of the eye: highest for green.
    weighted = candidates * np.sqrt([2.0, 4.0, 3.0])
    chosen, distance = [0], np.sum((weighted - weighted[0]) ** 2, axis=1)
    while len(chosen) < min(num_classes, len(candidates)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.sum((weighted - weighted[chosen[-1]]) ** 2, axis=1))
    rows = [candidates[i].tolist() for i in chosen[:num_classes]]
    if num_classes > len(rows):
        rows += _scattered(num_classes - len(rows), np.array(rows, np.int64))
    return tuple((int(red), int(green), int(blue)) for red, green, blue in rows)


def _scattered(count: int, others: np.ndarray) -> list[list[int]]:
    """Returns `count` colours that are all different, neither grey nor dark, and none of `others`."""
    # An odd factor permutes the 24-bit numbers, and this one (2^24 over the golden ratio) spreads them evenly.
    codes = np.arange(1, 8 * count + 4096) * 10368889 % 2**24
    rows = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)
    kept = (np.ptp(rows, axis=1) >= 72) & (rows.max(axis=1) >= 96)
    kept &= ~np.isin(codes, others @ np.array([65536, 256, 1]))
    return rows[kept][:count].tolist()


def colorize(label: np.ndarray, colors: Colors, multilabel: bool = False) -> np.ndarray:
    """Returns u8[h,w,3]: the colour of each class of label i[h,w], IGNORE_COLOR where it is IGNORE.

    With `multilabel` the label holds sets (`jaxseg.sets`): the mean of the colours of their classes, black of none; of
    a pixel that is unknown in some classes, those that it is known to have.

    Raises:
        ValueError: if the label holds a class that has no colour.
    """
    label = np.asarray(label)
    if multilabel:
        return _blended(label, colors)
    ignored = ignore_label(len(colors))
    palette = np.full((ignored + 1, 3), IGNORE_COLOR, np.uint8)
    palette[: len(colors)] = np.asarray(colors, np.uint8).reshape(-1, 3)
    wrong = label[((label < 0) | (label >= len(colors))) & (label != ignored)]
    if wrong.size:
        raise ValueError(
            f"The label holds class {wrong.flat[0]}, but there are colours for {counted(len(colors), 'class')}."
        )
    return palette[label]


def known_classes(label: np.ndarray, classes: int) -> np.ndarray:
    """Returns i64[h,w] of sets (`jaxseg.sets`): bit c says whether the pixel is known to have class c, or not to."""
    bits = np.asarray(label).astype(np.int64)
    every = (1 << classes) - 1
    return np.where(np.asarray(label) == ignore_in(np.asarray(label)), 0, ~(bits >> classes) & every)


def _blended(label: np.ndarray, colors: Colors) -> np.ndarray:
    total, count = np.zeros((*label.shape, 3), np.float32), np.zeros((*label.shape, 1), np.float32)
    for c, color in enumerate(colors):
        there = ((label >> label.dtype.type(c)) & label.dtype.type(1))[..., None].astype(np.float32)
        total += there * np.asarray(color, np.float32).reshape((1,) * label.ndim + (3,))
        count += there
    picture = np.round(total / np.maximum(count, 1)).astype(np.uint8)
    picture[known_classes(label, len(colors)) == 0] = IGNORE_COLOR
    return picture
