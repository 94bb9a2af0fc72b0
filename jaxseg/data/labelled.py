"""Which images of the training split keep their labels: a share of them, chosen by a seed, or a list of names."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from jaxseg.arguments import exact_fraction, expanded
from jaxseg.data.base import DataInfo, Example, Source
from jaxseg.data.folds import WithoutFold
from jaxseg.data.joined import Joined
from jaxseg.errors import DataError, counted, nearest
from jaxseg.files import one_line, read_lines


@dataclass(frozen=True)
class PartlyLabelled:
    """A source of which some images keep their labels.

    Attributes:
        source: all images.
        kept: indices in `source`, ascending, of the images that keep their labels.
        others: whether the other images stay, with IGNORE as every label; otherwise they are left out.
    """

    source: Source
    kept: tuple[int, ...]
    others: bool

    @property
    def info(self) -> DataInfo:
        """The classes of the source."""
        return self.source.info

    @property
    def labelled(self) -> tuple[int, ...]:
        """Indices, ascending, of the images with labels."""
        return self.kept if self.others else tuple(range(len(self.kept)))

    def __len__(self) -> int:
        return len(self.source) if self.others else len(self.kept)

    def __getitem__(self, index: int) -> Example:
        """Returns image u8[h,w,c] or u16[h,w,c] and label u8[h,w]."""
        example = self.source[self._place(index)]
        if self.others and not self._keeps(index):
            return {**example, "label": np.full_like(example["label"], self.info.ignored)}
        return example

    def name(self, index: int) -> str:
        return self.source.name(self._place(index))

    def label_size(self, index: int) -> tuple[int, int]:
        return self.source.label_size(self._place(index))

    def _place(self, index: int) -> int:
        return index if self.others else self.kept[index]

    def _keeps(self, index: int) -> bool:
        place = np.searchsorted(self.kept, index)
        return bool(place < len(self.kept) and self.kept[place] == index)


def labelled_indices(source: Source) -> tuple[int, ...]:
    """Returns the indices, ascending, of the images that have labels: a mask, annotations, or those that kept them.

    A mask is not read for this: one that is IGNORE everywhere counts as labels.
    """
    from jaxseg.data.folder import FolderSource  # only here: these import what reads files
    from jaxseg.data.weak.source import AnnotatedSource
    from jaxseg.data.weak.weakened import WeakenedSource

    if isinstance(source, PartlyLabelled | Joined):
        return source.labelled
    if isinstance(source, WithoutFold):
        having = set(labelled_indices(source.whole))
        return tuple(i for i, place in enumerate(source.kept) if place in having)
    if isinstance(source, WeakenedSource):
        return labelled_indices(source.full)
    if isinstance(source, AnnotatedSource):
        return tuple(i for i, (_, annotated) in enumerate(source.examples) if annotated is not None)
    if isinstance(source, FolderSource):
        return tuple(i for i, pair in enumerate(source.pairs) if pair.mask is not None)
    return tuple(range(len(source)))


def choose_labelled(source: Source, labelled: float | str, seed: int) -> tuple[int, ...]:
    """Returns the indices of `source`, ascending, of the images that keep their labels.

    The images of a share are the first in the order of a hash of seed and name. So a smaller share of the same seed
    is part of a larger one, and the choice does not depend on the order of the files.

    Args:
        source: the training split.
        labelled: `data.labelled`: a share, or the path of a text file of names, one a line.
        seed: decides which images a share has.

    Raises:
        DataError: if no image is left with labels, or the file cannot be read, is empty, or names an image twice or one
            that the split does not have or has without a mask.
    """
    candidates = labelled_indices(source)
    share = as_share(labelled)
    if share is None:
        return _listed(source, candidates, Path(str(labelled)))
    count = round(share * len(candidates))
    if count == 0:
        raise DataError(
            f"data.labelled={labelled} of {counted(len(candidates), 'training image')} with labels is less than half "
            f"an image, so none keeps its labels; give at least 1/{len(candidates)}."
        )

    def drawn(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{source.name(index)}".encode(errors="surrogateescape")).digest()

    order = sorted(candidates, key=drawn)
    return tuple(sorted(order[:count]))


def as_share(labelled: float | str) -> Fraction | None:
    """Returns 0.05, "0.05" or "1/64" as an exact number; None for any other text, which is a path."""
    try:
        return exact_fraction(str(labelled))
    except (ValueError, ZeroDivisionError):
        return None


def _listed(source: Source, candidates: Sequence[int], path: Path) -> tuple[int, ...]:
    """Returns the indices of the images that a file names."""
    try:
        lines = [line for line in read_lines(expanded(path)) if line.strip()]
    except OSError as error:
        raise DataError(
            f"data.labelled={str(path)!r} cannot be read: {error.strerror or error}; it is a share of the images, such "
            "as 0.05 or 1/64, or a text file with the name of an image on each line."
        ) from error
    if not lines:
        raise DataError(f"data.labelled={str(path)!r} names no image, so none keeps its labels.")
    places = {one_line(source.name(i)): i for i in range(len(source))}
    having = set(candidates)
    chosen: set[int] = set()
    for line in lines:
        name = line if line in places else line.strip()
        if name not in places:
            raise DataError(
                f"data.labelled={str(path)!r} names {name!r}, which is not in the training split."
                f"{nearest(name, places, listing=False)}"
            )
        if places[name] not in having:
            raise DataError(
                f"data.labelled={str(path)!r} names {name!r}, which is one of the images without masks of "
                "data.unlabelled, and has no labels to keep."
            )
        if places[name] in chosen:
            raise DataError(f"data.labelled={str(path)!r} names {name!r} twice.")
        chosen.add(places[name])
    return tuple(sorted(chosen))
