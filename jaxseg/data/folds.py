"""The folds of cross-validation: which examples of the training split a run leaves out, as `data.fold` says."""

import csv
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.arguments import expanded
from jaxseg.data.base import DataInfo, Example, Source
from jaxseg.errors import ConfigError, DataError, counted, first_line, nearest, some

HELD_OUT = "fold"
"""The split of the training images that `data.fold` leaves out."""
NO_FOLD = 0
"""The fold of an image that every run trains on, since it has no labelled pixel to be scored by."""
COLUMNS = ("name", "group", "fold")
"""The columns of a file of folds."""


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


@dataclass(frozen=True, eq=False)
class Folds:
    """How the training split is divided, and the fold that is left out.

    Attributes:
        fold: that fold, from 1.
        folds: how many there are.
        table: the fold of each example by its name, of `data.fold_file`; None: a hash of the name or group.
        group: of `data.group`, which a hash keeps together.
    """

    fold: int
    folds: int
    table: Mapping[str, int] | None = None
    group: "Groups | None" = None

    def number(self, name: str) -> int:
        """Returns the fold of an example; raises DataError if the file of folds does not have it."""
        if self.table is None:
            return fold_of(name if self.group is None else self.group.of(name), self.folds)
        if name not in self.table:
            raise DataError(
                f"The training image {name} is in no fold of data.fold_file; folds of the images that there are now "
                f"need a new file.{nearest(name, self.table)}"
            )
        return self.table[name]


def folds_of(data: Any) -> Folds:
    """Returns the folds of the keys `data.*`, of which `data.fold` is not empty."""
    fold, folds = parse_fold(data.fold)
    group = parse_group(data.group) if data.group and not data.fold_file else None
    return Folds(fold, folds, read_folds(data.fold_file, folds) if data.fold_file else None, group)


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of an example: its patient, scene or video.

    Attributes:
        text: the value of `data.group`.
        pattern: the first group of its match in the name, or the whole match; None: `table`.
        table: by name.
        key: where the value is.
    """

    text: str
    pattern: re.Pattern[str] | None
    table: Mapping[str, str]
    key: str = "data.group"

    def of(self, name: str) -> str:
        """Returns the group of an example; raises DataError if it has none."""
        if self.pattern is not None:
            found = self.pattern.search(name)
            if found is not None and (group := found[1] if self.pattern.groups else found[0]):
                return group
            raise DataError(
                f"{self.key}={self.text!r} matches no group in the name of the image {name!r}; each image needs one, "
                "such as (patient\\d+) for patient12-3."
            )
        known = [each for each in (name, Path(name).with_suffix("").as_posix()) if each in self.table]
        if known and self.table[known[0]]:
            return self.table[known[0]]
        raise DataError(f"{self.key}={self.text!r} has no group for the image {name!r}.{nearest(name, self.table)}")


def parse_group(text: str, key: str = "data.group") -> Groups:
    """Returns the groups of `data.group`, or of another key: a regular expression, or FILE.csv:COLUMN.

    Raises:
        ConfigError: if it is neither.
        DataError: if the file cannot be read or has no such column.
    """
    file, colon, column = text.rpartition(":")
    if not (colon and file.lower().endswith(".csv")):
        try:
            return Groups(text, re.compile(text), {}, key)
        except re.error as error:
            raise ConfigError(
                f"{key}={text!r} is neither a regular expression ({error}) nor FILE.csv:COLUMN."
            ) from error
    rows = _rows(expanded(file), f"{key}={text!r}")
    columns = list(rows[0]) if rows else []
    if column not in columns:
        raise DataError(f"{file} of {key} has no column {column!r}.{nearest(column, columns)}")
    first = "name" if "name" in columns else columns[0]
    names = {row[first]: row[column] for row in rows}
    table = names | {Path(name).with_suffix("").as_posix(): group for name, group in names.items()}
    return Groups(text, None, table, key)


def groups_of(source: Source, text: str) -> list[str]:
    """Returns the group of each example, by `data.group`; without one, each example is a group of its own."""
    names = [source.name(i) for i in range(len(source))]
    return list(map(parse_group(text).of, names)) if text else names


@functools.lru_cache(maxsize=8)
def _folds_in(file: Path, _changed: int) -> Mapping[str, int]:
    rows = _rows(file, "data.fold_file")
    if rows and not {"name", "fold"} <= rows[0].keys():
        raise DataError(f"{file} of data.fold_file needs the columns name and fold, got {', '.join(rows[0])}.")
    wrong = next((row for row in rows if not (row["fold"] or "").isdecimal()), None)
    if wrong is not None:
        raise DataError(f"{file} of data.fold_file has the fold {wrong['fold']!r} for {wrong['name']!r}, no number.")
    return {row["name"]: int(row["fold"]) for row in rows}


def read_folds(file: str | Path, folds: int) -> Mapping[str, int]:
    """Returns the fold of each example by its name, of a file of `write_folds` or one with its columns name and fold.

    Raises:
        DataError: if it cannot be read, or has other folds than 1 to `folds` and 0, that of no fold.
    """
    path = expanded(file)
    table = _folds_in(path, path.stat().st_mtime_ns if path.is_file() else 0)
    most = max(table.values(), default=0)
    if most != folds:
        raise DataError(f"{path} has {counted(most, 'fold')}, and data.fold asks for one of {folds}.")
    return table


def _rows(file: Path, key: str) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            return list(csv.DictReader(lines))
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{file} of {key} cannot be read: {reason or first_line(error)}.") from error


def balanced_folds(counts: np.ndarray, groups: Sequence[str], folds: int) -> np.ndarray:
    """Returns the fold i64[n] of each image, from 1; images without labelled pixels have `NO_FOLD`.

    Groups stay whole, and the folds get about the same number of images, of images with each class, and of its pixels.
    One group after the other goes to the fold that is furthest from its share of what the group has; those with rare
    classes come first, large ones and those with most of the class before others (iterative stratification: Sechidis et
    al., On the Stratification of Multi-Label Data, 2011). Equal ones follow in the order of a hash of their names: the
    folds depend on what the images hold, not on their order.

    Args:
        counts: i64[n,k], the labelled pixels of each class.
        groups: the group of each image.
        folds: how many.

    Raises:
        DataError: if there are fewer groups with labels than folds.
    """
    labelled = np.flatnonzero(counts.sum(axis=1) > 0).tolist()
    names = sorted({groups[i] for i in labelled})
    if len(names) < folds:
        what = "image" if len(set(groups)) == len(groups) else "group"
        raise DataError(
            f"{counted(folds, 'fold')} need at least as many {what}s with labels, and the training split has "
            f"{len(names)}; give fewer folds."
        )
    place = {name: i for i, name in enumerate(names)}
    shares = counts[labelled] / counts[labelled].sum(axis=1, keepdims=True)
    columns = np.concatenate([np.ones((len(labelled), 1)), counts[labelled] > 0, shares], axis=1)
    amounts = np.zeros((len(names), columns.shape[1]))
    np.add.at(amounts, [place[groups[i]] for i in labelled], columns)
    k = counts.shape[1]
    images_of = amounts[:, 1 : 1 + k].sum(axis=0)
    rarest = [min(np.flatnonzero(row[1 : 1 + k]).tolist(), key=lambda c: images_of[c]) for row in amounts]
    order = sorted(
        range(len(names)),
        key=lambda i: (
            images_of[rarest[i]],
            -amounts[i, 0],
            -amounts[i, 1 + k + rarest[i]],
            fold_of(names[i], 2**62),
            names[i],
        ),
    )
    weights = np.concatenate([[1.0 + k], np.ones(2 * k)]) / np.maximum(amounts.sum(axis=0), 1e-12) ** 2
    have, chosen = np.zeros((folds, columns.shape[1])), np.zeros(len(names), np.int64)
    for i in order:
        cost = ((2 * have + amounts[i]) * amounts[i] * weights).sum(axis=1)
        empty = have[:, 0] == 0
        left = len(order) - int((chosen > 0).sum())
        allowed = empty if left <= empty.sum() else np.ones(folds, bool)  # no fold stays empty
        best = min(np.flatnonzero(allowed), key=lambda f: (round(float(cost[f]), 12), have[f, 0], f))
        have[best] += amounts[i]
        chosen[i] = best + 1
    numbers = np.full(len(groups), NO_FOLD, np.int64)
    numbers[labelled] = [chosen[place[groups[i]]] for i in labelled]
    return numbers


@dataclass(eq=False)
class WithoutFold:
    """A source without the examples of one fold, or of that fold alone.

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


def without_fold(source: Source, data: Any) -> WithoutFold:
    """Returns the examples of a training split outside the fold `data.fold` of its folds.

    Raises:
        DataError: if no example lies in the fold, or none outside.
    """
    return WithoutFold(source, _divided(source, data)[0], source.info)


def held_out(source: Source, data: Any) -> WithoutFold:
    """Returns the examples of a training split in the fold `data.fold`; raises as `without_fold` does."""
    return WithoutFold(source, _divided(source, data)[1], source.info)


def _divided(source: Source, data: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the indices of the examples outside and inside the fold."""
    folds = folds_of(data)
    inside = [folds.number(source.name(i)) == folds.fold for i in range(len(source))]
    kept, left = (tuple(i for i, each in enumerate(inside) if each is wanted) for wanted in (False, True))
    if not kept or not left:
        raise DataError(
            f"data.fold={data.fold} leaves out {len(left)} of {counted(len(source), 'training image')}; each "
            "of the folds needs some: give fewer folds."
        )
    return kept, left


def about_folds(numbers: np.ndarray, counts: np.ndarray, classes: Sequence[str], groups: Sequence[str]) -> str:
    """Returns a sentence about the sizes and the balance of folds, and notes on classes that some of them lack."""
    folds = int(numbers.max())
    sizes = [int((numbers == fold).sum()) for fold in range(1, folds + 1)]
    shares = np.stack([counts[numbers == fold].sum(axis=0) for fold in range(1, folds + 1)]).astype(np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    together = len(set(groups)) < len(groups)
    of_groups = f" in {counted(len(set(groups)), 'group')}" if together else ""
    range_ = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    text = f"{counted(folds, 'fold')} of {range_} of {counted(sum(sizes), 'image')}{of_groups}"
    occurs = np.flatnonzero(counts.sum(axis=0)).tolist()
    if len(occurs) > 1:
        spread = (shares.max(axis=0) - shares.min(axis=0))[occurs] / shares.mean(axis=0)[occurs]
        most = int(occurs[spread.argmax()])
        low, high = (100 * value for value in (shares[:, most].min(), shares[:, most].max()))
        text += f"; the class that differs most, {classes[most]}, has {low:.2f} to {high:.2f} % of the pixels of each"
    lacking = [classes[c] for c in occurs if (shares[:, c] == 0).any()]
    if lacking:
        text += f"; not every fold has {some(lacking)}, whose images or groups are fewer"
    if unlabelled := int((numbers == NO_FOLD).sum()):
        text += f"; {counted(unlabelled, 'image')} without labels in the training of every fold"
    return f"{text}."
