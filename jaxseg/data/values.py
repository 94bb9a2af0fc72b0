"""The numbers of an image, in the files' own scale and in [0, 1]."""

from typing import NamedTuple

import numpy as np


class Values(NamedTuple):
    """What the numbers of an image are like.

    Attributes:
        bits: 8 or 16, of a stored value; 0 of floats in [0, 1], which `data.range` makes.
        top: the value that is 1 in [0, 1]: 255, 65535, or 1.0 of floats.
        largest: the largest value, as stored.
        mean, square: f64[c], means of the values in [0, 1] and of their squares.
    """

    bits: int
    top: float
    largest: float
    mean: np.ndarray
    square: np.ndarray


def top_of(image: np.ndarray) -> float:
    """Returns the value of an image u8|u16|f32[h,w,c] that is 1 in [0, 1]: 255, 65535, or 1.0 of floats."""
    return int(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else 1.0


def values_of(image: np.ndarray) -> Values:
    """Returns what the numbers of an image u8[h,w,c], u16[h,w,c], or f32[h,w,c] in [0, 1] are like."""
    top = top_of(image)
    pixels = image.reshape(-1, image.shape[-1])
    return Values(
        bits=8 * image.dtype.itemsize if image.dtype.kind == "u" else 0,
        top=top,
        largest=image.max().item(),
        mean=pixels.mean(0, dtype=np.float64) / top,
        square=np.einsum("pc,pc->c", pixels, pixels, dtype=np.float64) / (len(pixels) * top**2),
    )
