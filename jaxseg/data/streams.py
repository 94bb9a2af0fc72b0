"""The order in which a training visits its images: all of them together, or those with and without labels apart."""

import functools
from dataclasses import dataclass

import numpy as np

from jaxseg.data.base import Source
from jaxseg.data.labelled import labelled_indices
from jaxseg.errors import DataError, counted

# The streams of a loader's random numbers: the order of all images, the crops, and the orders of two streams.
ALL, CROPS, LABELLED, OTHERS = range(4)


@functools.lru_cache(maxsize=8)
def epoch_order(seed: int, stream: int, epoch: int, length: int) -> np.ndarray:
    """Returns the permutation i64[length] of one epoch."""
    return np.random.default_rng((seed, stream, epoch)).permutation(length)


@dataclass(frozen=True)
class Together:
    """The order of all images: each epoch has every image once."""

    length: int

    def index(self, seed: int, batch: int, row: int, batch_size: int) -> int:
        """Returns the index of the image in a row of a batch."""
        epoch, offset = divmod(batch * batch_size + row, self.length)
        return int(epoch_order(seed, ALL, epoch, self.length)[offset])


@dataclass(frozen=True)
class Apart:
    """Two streams with epochs of their own: some rows of each batch hold images with labels, the others those without.

    Attributes:
        labelled, others: indices of the images with and without labels.
        ranks: for each row of a batch, whether it is of the labelled stream, and its place among the rows of that.
    """

    labelled: tuple[int, ...]
    others: tuple[int, ...]
    ranks: tuple[tuple[bool, int], ...]

    def index(self, seed: int, batch: int, row: int, batch_size: int) -> int:
        """Returns the index of the image in a row of a batch."""
        of_labelled, rank = self.ranks[row]
        rows = sum(kind == of_labelled for kind, _ in self.ranks)
        images = self.labelled if of_labelled else self.others
        epoch, offset = divmod(batch * rows + rank, len(images))
        return images[epoch_order(seed, LABELLED if of_labelled else OTHERS, epoch, len(images))[offset]]


def labelled_rows_of(batch_size: int, rows: int, unit: int) -> list[bool]:
    """Returns which rows of a batch hold images with labels: `rows` of them, spread evenly in runs of `unit` rows.

    A device has consecutive rows, and a micro-batch every n-th pair of them, so with a unit of 2 n rows each has its
    share of both kinds, but for one unit where they cannot be divided evenly.

    Raises:
        ValueError: if `unit` does not divide both numbers.
    """
    if batch_size % unit or rows % unit:
        raise ValueError(f"{rows} labelled rows of a batch of {batch_size} cannot be divided into runs of {unit} rows.")
    groups, chosen = batch_size // unit, rows // unit
    return [(row // unit + 1) * chosen // groups > row // unit * chosen // groups for row in range(batch_size)]


def make_order(source: Source, batch_size: int, labelled_rows: int, unit: int) -> Together | Apart:
    """Returns the order of the images of `source`; see `pipeline.make_train_loader` for the arguments.

    Raises:
        DataError: if `labelled_rows` is above 0 and all images, or none, have labels.
    """
    if not labelled_rows:
        return Together(len(source))
    labelled = labelled_indices(source)
    having = set(labelled)
    others = tuple(index for index in range(len(source)) if index not in having)
    if not others or not labelled:
        which = "none has" if others else "all have"
        raise DataError(
            f"data.labelled_rows={labelled_rows} needs training images with and without labels, but of "
            f"{counted(len(source), 'image')} {which} labels; data.labelled says which keep them."
        )
    kinds = labelled_rows_of(batch_size, labelled_rows, unit)
    ranks = tuple((kind, sum(other == kind for other in kinds[:row])) for row, kind in enumerate(kinds))
    return Apart(labelled, others, ranks)
