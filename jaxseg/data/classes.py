"""The meaning of the values in a folder's masks, from `classes.json`, the configuration, or the masks themselves."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxseg.data.base import DataInfo
from jaxseg.data.classes_file import EXAMPLE, ClassesFile
from jaxseg.data.contents import read_contents, sample
from jaxseg.data.images import read_header
from jaxseg.data.masks import Palette, what_it_changes
from jaxseg.data.notes import log_once, note
from jaxseg.errors import DataError, counted
from jaxseg.pictures import default_colors
from jaxseg.types import IGNORE, IGNORE_16, label_type


class Meaning(NamedTuple):
    """info: description of the classes. values: the value of each class in the stored masks."""

    info: DataInfo
    values: tuple[int, ...]


class Labeller:
    """Turns stored mask values into class indices and the label of ignored pixels."""

    def __init__(self, meaning: Meaning, advice: str = ""):
        self._advice = advice  # what else a user can do about a value of no class
        self.values = meaning.values
        self._ignored, self._type = meaning.info.ignored, label_type(len(meaning.values))
        self._table = np.full(65536, -1, np.int32)
        self._table[self._ignored] = self._ignored
        self._table[list(meaning.values)] = np.arange(len(meaning.values))
        if meaning.info.ignore is not None:
            self._table[meaning.info.ignore] = self._ignored

    def __call__(self, mask: np.ndarray, path: str | Path) -> np.ndarray:
        """Returns the label u8[h,w], or u16[h,w] of more than 255 classes, of a mask; `path` is used in error messages.

        Raises:
            DataError: if the mask holds a value that belongs to no class.
        """
        label = self._table[mask]
        if label.min() < 0:
            self.check(np.unique(mask).tolist(), path)
        return label.astype(self._type)

    def ignores(self, values: Iterable[int]) -> bool:
        """Returns whether every one of the values is ignored."""
        return all(self._table[v] == self._ignored for v in values)

    def check(self, values: Iterable[int], path: str | Path) -> None:
        """Raises DataError if one of the values of the mask `path` belongs to no class and is not ignored."""
        strange = [v for v in values if self._table[v] < 0]
        if strange:
            ignored = np.flatnonzero(self._table == self._ignored).tolist()
            raise DataError(
                f"{path} holds the values {_show(strange)}, which no class has "
                f"(values of {counted(len(self.values), 'class')}: {_show(self.values)}; ignored: "
                f"{_show(ignored) or 'none'}). Correct the mask, or give the value a class in "
                f"classes.json, or ignore it with data.ignore.{self._advice}{_lossy(path)}"
            )


def find_meaning(
    directory: Path,
    masks: Sequence[Path],
    *,
    file: ClassesFile | None = None,
    classes: Sequence[str] = (),
    ignore: int = -1,
    palette: Palette | None = None,
    unlabelled: bool = False,
    channels: int = 3,
    strict: bool = True,
    skip: bool = False,
) -> Meaning:
    """Returns the meaning of the masks of a folder.

    If the folder has a `classes.json`, it defines the meaning. Otherwise every position of the palette is a class; or,
    without a palette, every value from 0 to the largest in the masks, except the ignored ones. Masks with only the
    values 0 and 255 have two classes.

    Args:
        directory: the folder, for messages.
        masks: the masks of all its splits, read only if nothing else defines the classes.
        file: the content of `classes.json`.
        classes: names, `data.classes`.
        ignore: stored value that is ignored, besides 255 (65535 of more than 255 classes); -1 for none.
        palette: `data.palette`, the colour of each value, for masks that store colours.
        unlabelled: masks that hold nothing but 255 are of use; if all do, two classes are assumed.
        channels: image channels, passed on to the info.
        strict: a mask that cannot be read is an error; otherwise it is left out, if other masks can be read.
        skip: such a mask is left out though `strict`.

    Raises:
        DataError: if these sources disagree.
    """
    repeated = next((name for name in classes if list(classes).count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"data.classes gives the name {repeated!r} to two classes; each class needs its own.")
    if file is not None:
        return _from_file(file, masks, ignore, palette, channels, strict and not skip)
    if palette:
        values = _from_palette(palette, ignore)
    else:
        values = _from_masks(masks, len(classes), ignore, strict, unlabelled, skip)
    if len(classes) not in (0, len(values)):
        where = "data.palette" if palette else f"the masks in {directory}"
        raise DataError(
            f"data.classes names {counted(len(classes), 'class')} ({', '.join(classes)}), but {where} have "
            f"{len(values)} (values {_show(values)})."
        )
    binary = values == (0, 255)
    names = tuple(classes) or (("background", "foreground") if binary else tuple(f"class {v}" for v in values))
    colors = tuple(palette.colors[v] for v in values) if palette else default_colors(len(values))
    return Meaning(DataInfo(names, colors, ignore if ignore >= 0 else None, channels), values)


def _from_palette(palette: Palette, ignore: int) -> tuple[int, ...]:
    return tuple(v for v in palette.values if v != ignore)


def _from_masks(
    masks: Sequence[Path], named: int, ignore: int, strict: bool, unlabelled: bool, skip: bool
) -> tuple[int, ...]:
    """Returns the values that are classes: as many as there are names, or all values up to the largest that occurs."""
    where = stored_values(masks, strict and not skip)
    found = sorted(v for v in where if v not in (ignore, IGNORE))
    if found == [0] and IGNORE in where and ignore != IGNORE and named in (0, 2):
        note("The masks hold nothing but 0 and 255: taken as background and foreground.")
        return (0, IGNORE)
    if named > IGNORE:  # the value 255 is a class then
        found = sorted(v for v in where if v not in (ignore, IGNORE_16))
        values = tuple(v for v in range(IGNORE_16) if v != ignore)
    else:
        values = tuple(v for v in range(256) if v not in (ignore, IGNORE))
    largest = max(found, default=-1)
    if largest > 254 and named <= IGNORE:
        raise DataError(
            f"{where[largest]} holds the value {largest}; class indices from 0 to 254 were expected. Give the names of "
            "more than 255 classes in data.classes, or those of other values in a classes.json beside the folders."
        )
    if named:
        outside = [v for v in found if v not in values[:named]]
        if outside:
            raise DataError(
                f"data.classes names {counted(named, 'class')} (values {_show(values[:named])}), but "
                f"{where[outside[0]]} holds "
                f"{_show([v for v in outside if where[v] == where[outside[0]]])}.{_lossy(where[outside[0]])}"
            )
        return values[:named]
    if unlabelled and not found:
        note("No mask holds a class: two classes are assumed, which no pixel has. data.classes names others.")
        return values[:2]
    if len(found) < 2 or largest + 1 > 2 * len(found) + 2:
        dense = next((i for i, v in enumerate(found) if v != values[i]), len(found))  # found[:dense] has no gap
        if not strict and dense > 1:
            return values[:dense]  # each mask with another value is then reported as a problem
        stray = found[dense] if dense < len(found) else None
        example = masks[0] if stray is None else where[stray]
        if len(found) == len(where) == 1:
            raise DataError(
                f"The masks, such as {example}, hold the value {found[0]} alone, so there is nothing to distinguish; "
                f"give what is around it a value of its own. Class indices 0, 1, 2, ... were expected; values that "
                f"these masks lack can be listed in a classes.json beside the folders: {EXAMPLE}.{_lossy(example)}"
            )
        ignored = f" To ignore a value, give --config.data.ignore={stray}." if stray is not None else ""
        raise DataError(
            f"The masks, such as {example}, hold the values {_show(sorted(where))}, where class indices 0, 1, 2, ... "
            f"were expected; if these are the classes, say so in a classes.json beside the folders: {EXAMPLE}."
            f"{ignored}{_lossy(example)}"
        )
    return tuple(v for v in values if v <= largest)


def stored_values(masks: Sequence[Path], strict: bool = True) -> dict[int, str]:
    """Returns {value: a mask that holds it} over all masks of indices."""
    if len(masks) > 5000:
        log_once(
            f"Reading {counted(len(masks), 'mask')} to find the classes; a classes.json beside the folders avoids this."
        )
    where: dict[int, str] = {}
    errors = []
    for path, content in zip(masks, read_contents(masks)):
        if isinstance(content, DataError):
            errors.append(content)
        else:
            where = {value: str(path) for value in content.values} | where
    if errors and (strict or not where):
        raise errors[0]
    return where


def _from_file(
    file: ClassesFile, masks: Sequence[Path], ignore: int, palette: Palette | None, channels: int, strict: bool
) -> Meaning:
    """Returns the meaning that `classes.json` gives, after comparing it with `data.ignore` and `data.palette`."""
    path, values = file.path, file.values
    if ignore >= 0 and file.ignore is not None and file.ignore != ignore:
        raise DataError(f"data.ignore is {ignore}, but {path} has ignore_index {file.ignore}.")
    ignored = file.ignore if file.ignore is not None else ignore if ignore >= 0 else None
    if ignored in values:
        raise DataError(f"data.ignore is {ignored}, which {path} gives to {file.names[values.index(ignored)]!r}.")
    if palette and max(values) >= len(palette.colors):
        raise DataError(
            f"data.palette has {counted(len(palette.colors), 'colour')}, but {path} has the index {max(values)}."
        )
    for value, name, color in zip(values, file.names, file.colors):
        if palette and color is not None and color != palette.colors[value]:
            raise DataError(
                f"data.palette gives the index {value} the colour {palette.colors[value]}, but {path} gives "
                f"{name!r} (index {value}) the colour {color}."
            )
    if values == (0, 1) and ignored is None and not palette and _only_0_and_255(masks, strict):
        note(f"The masks hold nothing but 0 and 255: 255 is taken as the class {file.names[1]!r}.")
        values = (0, IGNORE)
    others = [palette.colors[value] for value in values] if palette else default_colors(len(values))
    colors = tuple(other if color is None else color for color, other in zip(file.colors, others))
    return Meaning(DataInfo(file.names, colors, ignored, channels), values)


def _only_0_and_255(masks: Sequence[Path], strict: bool) -> bool:
    expected = {0, IGNORE}
    try:  # a few masks usually hold another value, and then the others are not read
        if not expected.issuperset(stored_values(sample(masks), strict)):
            return False
        return set(stored_values(masks, strict)) == expected
    except DataError:  # masks of colours, or damaged masks, which are reported when they are read
        return False


def _show(values: Sequence[int], most: int = 10) -> str:
    """Returns "0 to 4" for consecutive values, otherwise a list of at most `most` values."""
    values = list(values)
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


def _lossy(path: str | Path) -> str:
    """Returns what lossy compression does to a mask, if the file has it."""
    try:
        compression = read_header(path).lossy
    except DataError:
        return ""
    return f" {what_it_changes(compression)}" if compression else ""
