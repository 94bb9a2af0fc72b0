"""Which training image stands at each place of the endless sequence, where it is not every image once an epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jaxseg.data.streams import ALL, epoch_order
from jaxseg.data.transforms import Size
from jaxseg.errors import DataError


class Order(Protocol):
    """Which image stands where; a pure function, so that a run resumes by one number."""

    def index(self, seed: int, batch: int, row: int, batch_size: int) -> int:
        """Returns the index of the image in a row of a batch."""
        ...


_STREAM = 16  # of the seed; the order of epochs and the crops of the loader have 0 and 1


def class_probabilities(pixels: np.ndarray, temperature: float) -> np.ndarray:
    """i64[k] -> f64[k], how often each class is asked for: P(c) = exp((1 - f_c) / T) / Σ_c' exp((1 - f_c') / T).

    Hoyer et al., DAFormer, 2022, "Rare class sampling" (T = 0.01 there). f_c is the share of the class among the
    labelled pixels of the split. A class without pixels is never asked for.

    Raises:
        ValueError: if the temperature is not above 0 or no class has a pixel.
    """
    pixels = np.asarray(pixels, np.float64)
    if not temperature > 0:
        raise ValueError(f"The temperature of rare class sampling must be above 0, got {temperature:g}.")
    if not pixels.any():
        raise ValueError("Rare class sampling needs labelled pixels, and every class count is 0.")
    occurs = pixels > 0
    score = np.where(occurs, -pixels / pixels.sum() / temperature, -np.inf)
    weight = np.exp(score - score.max())
    return weight / weight.sum()


@dataclass(frozen=True)
class RareClassOrder:
    """Draws a class, then one of the images that have it: the `Order` of rare class sampling.

    Attributes:
        probabilities: f64[k], of each class.
        images: for each class, the indices i64[m] of the images that have it.
    """

    probabilities: np.ndarray
    images: tuple[np.ndarray, ...]

    def index(self, seed: int, batch: int, row: int, batch_size: int) -> int:
        """Returns the index of the image in a row of a batch."""
        rng = np.random.default_rng((seed, _STREAM, batch * batch_size + row))
        of_class = self.images[rng.choice(len(self.probabilities), p=self.probabilities)]
        return int(of_class[rng.integers(len(of_class))])


def rare_class_order(counts: np.ndarray, temperature: float) -> RareClassOrder:
    """Returns the order of rare class sampling for the pixels of each class in each image, i64[n,k].

    Raises:
        DataError: if no image has a labelled pixel.
    """
    if not counts.any():
        raise DataError("data.sampling=rare needs labelled pixels, and the masks of the training split have none.")
    images = tuple(np.flatnonzero(of_class) for of_class in counts.T)
    return RareClassOrder(class_probabilities(counts.sum(0), temperature), images)


@dataclass(frozen=True)
class AreaOrder:
    """Every window of every image once a pass: the `Order` in which images stand by their area.

    A pass over the windows is longer than an epoch of `epochs`, of the log and of a plan, which all count images.
    Pixels near the border of an image lie in fewer of the places of a window than others, and are seen less often.

    Attributes:
        images: i32[w], the image of each window.
    """

    images: np.ndarray

    def index(self, seed: int, batch: int, row: int, batch_size: int) -> int:
        """Returns the index of the image in a row of a batch."""
        number, offset = divmod(batch * batch_size + row, len(self.images))
        return int(self.images[epoch_order(seed, ALL, number, len(self.images))[offset]])


def area_order(sizes: Sequence[Size], window: Size) -> AreaOrder:
    """Returns the order in which each image stands as often as windows of some size cover its area, at least once.

    Args:
        sizes: (height, width) of each image.
        window: (height, width) of a window. The loader places each at random, so that in one pass some overlap.
    """
    areas = np.array([height * width for height, width in sizes], np.float64)
    windows = np.maximum(1, np.rint(areas / (window[0] * window[1]))).astype(np.int64)
    return AreaOrder(np.repeat(np.arange(len(areas), dtype=np.int32), windows))
