"""The folds of cross-validation: which examples of the training split a run leaves out, as `data.fold` says."""

import hashlib
from dataclasses import dataclass

from jaxseg.data.base import DataInfo, Example, Source
from jaxseg.errors import DataError, counted


def parse_fold(text: str) -> tuple[int, int]:
    """Returns (the fold, the number of folds) of "2/5"."""
    fold, _, folds = text.partition("/")
    return int(fold), int(folds)


def fold_of(name: str, folds: int) -> int:
    """Returns the fold of an example, from 1 to `folds`, which its name alone decides.

    Examples that are added or removed move no other. The hash is another than that by which a folder without splits is
    divided (`data.val_fraction`), so that what is left for training has folds of about the same size.
    """
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8, person=b"data.fold").digest()
    return (int.from_bytes(digest, "big") * folds >> 64) + 1


@dataclass(eq=False)
class WithoutFold:
    """A source without the examples of one fold.

    Attributes:
        whole: the source with all folds.
        kept: the indices in it of the examples that are left.
        info: what the masks mean.
    """

    whole: Source
    kept: tuple[int, ...]
    info: DataInfo

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Example:
        return self.whole[self.kept[index]]

    def name(self, index: int) -> str:
        return self.whole.name(self.kept[index])

    def label_size(self, index: int) -> tuple[int, int]:
        return self.whole.label_size(self.kept[index])


def without_fold(source: Source, text: str) -> WithoutFold:
    """Returns the examples of a source outside the fold `text`, such as "2/5".

    Raises:
        DataError: if no example lies in the fold, or none outside.
    """
    fold, folds = parse_fold(text)
    kept = tuple(i for i in range(len(source)) if fold_of(source.name(i), folds) != fold)
    if not 0 < len(kept) < len(source):
        raise DataError(
            f"data.fold={text} leaves out {len(source) - len(kept)} of {counted(len(source), 'training image')}; each "
            "of the folds needs some: give fewer folds."
        )
    return WithoutFold(source, kept, source.info)
