"""The meaning of the values in a folder's masks, from `classes.json`, the configuration, or the masks themselves."""

import functools
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg.data.base import DataInfo
from jaxseg.data.images import read_mask
from jaxseg.errors import DataError
from jaxseg.pictures import default_colors
from jaxseg.types import IGNORE

_LOG = logging.getLogger(__name__)


@functools.cache
def _note(sentence: str) -> None:
    """Logs a sentence only the first time: every split gives the same notes."""
    _LOG.warning(sentence)


_EXAMPLE = '{"classes": [{"index": 0, "name": "sky", "colour": [70, 130, 180]}, ...], "ignore_index": 255}'


class Meaning(NamedTuple):
    """info: description of the classes. values: the value of each class in the stored masks."""

    info: DataInfo
    values: tuple[int, ...]


class Labeller:
    """Turns stored mask values into class indices and IGNORE."""

    def __init__(self, meaning: Meaning):
        self.values = meaning.values
        self._table = np.full(65536, -1, np.int16)
        self._table[IGNORE] = IGNORE
        self._table[list(meaning.values)] = np.arange(len(meaning.values))
        if meaning.info.ignore is not None:
            self._table[meaning.info.ignore] = IGNORE

    def __call__(self, mask: np.ndarray, path: str | Path) -> np.ndarray:
        """Returns the label u8[h,w] of a mask u8[h,w] or u16[h,w]; `path` is used in error messages.

        Raises:
            DataError: if the mask holds a value that belongs to no class.
        """
        label = self._table[mask]
        if label.min() < 0:
            strange = np.unique(mask[label < 0]).tolist()
            ignored = np.flatnonzero(self._table == IGNORE).tolist()
            raise DataError(
                f"{path} holds the values {_show(strange)}, which belong to none of the {len(self.values)} classes "
                f"(values {_show(self.values)}; ignored: {_show(ignored) or 'none'})."
                f"{_lossy(path)}"
            )
        return label.astype(np.uint8)


def check_palette(palette: Sequence[Sequence[int]]) -> tuple[tuple[int, int, int], ...]:
    """Returns `data.palette` as a tuple of different colours (red, green, blue), empty if there are none.

    Raises:
        DataError: if an entry is not such a colour, a colour occurs twice, or there are more than 256.
    """
    for color in palette:
        _check_color(color, "data.palette")
    colors = tuple((int(r), int(g), int(b)) for r, g, b in palette)
    if len(set(colors)) < len(colors):
        raise DataError("data.palette has the same colour twice; each class needs its own.")
    if len(colors) > 256:
        raise DataError(f"data.palette has {len(colors)} colours; the limit is 255 classes and one ignored colour.")
    return colors


def json_palette(directory: Path) -> tuple[tuple[int, int, int], ...]:
    """Returns the colours of `classes.json` by index, if it gives each of the indices 0, 1, ... a different colour.

    Otherwise the result is empty, also if the file is missing or invalid; `find_meaning` reports an invalid file.
    """
    try:
        entries = json.loads((directory / "classes.json").read_text(encoding="utf-8"))["classes"]
        colors = {}
        for i, entry in enumerate(entries):
            key = "colour" if "colour" in entry else "color"
            colors[int(entry["index"]) if "index" in entry else i] = tuple(int(v) for v in entry[key])
        palette = tuple(colors[v] for v in range(len(entries)))
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return palette if len(set(palette)) == len(palette) and all(len(c) == 3 for c in palette) else ()


def find_meaning(
    directory: Path,
    masks: Sequence[Path],
    *,
    classes: Sequence[str] = (),
    ignore: int = -1,
    palette: Sequence[Sequence[int]] = (),
    keep_indices: bool = False,
    channels: int = 3,
    strict: bool = True,
) -> Meaning:
    """Returns the meaning of the masks of a folder.

    If the folder has a `classes.json`, it defines the meaning. Otherwise every position of the palette is a class; or,
    without a palette, every value from 0 to the largest in the masks, except the ignored ones. Masks with only the
    values 0 and 255 have two classes.

    Args:
        directory: the folder.
        masks: the masks of all its splits, read only if nothing else defines the classes.
        classes: names, `data.classes`.
        ignore: stored value that is ignored, besides 255; -1 for none.
        palette: the colour of each value, for masks that store colours; see `check_palette`.
        keep_indices: the palette is that of classes.json (`json_palette`), which does not apply to index masks.
        channels: image channels, passed on to the info.
        strict: a mask that cannot be read is an error; otherwise it is left out, if other masks can be read.

    Raises:
        DataError: if `classes.json` is invalid, or these sources disagree.
    """
    path = directory / "classes.json"
    if path.is_file():
        return _from_json(path, masks, ignore, () if keep_indices else palette, channels, strict)
    values = _from_palette(palette, ignore) if len(palette) else _from_masks(masks, len(classes), ignore, strict)
    if len(classes) not in (0, len(values)):
        where = "data.palette" if len(palette) else f"the masks in {directory}"
        raise DataError(
            f"data.classes names {len(classes)} classes ({', '.join(classes)}), but {where} have {len(values)} "
            f"(values {_show(values)})."
        )
    binary = values == (0, 255)
    names = tuple(classes) or (("background", "foreground") if binary else tuple(f"class {v}" for v in values))
    colors = (
        tuple((r, g, b) for r, g, b in (palette[v] for v in values)) if len(palette) else default_colors(len(values))
    )
    return Meaning(DataInfo(names, colors, ignore if ignore >= 0 else None, channels), values)


def _from_palette(palette: Sequence[Sequence[int]], ignore: int) -> tuple[int, ...]:
    return tuple(v for v in range(len(palette)) if v != ignore)


def _from_masks(masks: Sequence[Path], named: int, ignore: int, strict: bool) -> tuple[int, ...]:
    """Returns the values that are classes: as many as there are names, or all values up to the largest that occurs."""
    where = stored_values(masks, strict)
    found = sorted(v for v in where if v not in (ignore, IGNORE))
    if found == [0] and IGNORE in where and ignore != IGNORE and named in (0, 2):
        _note("The masks hold nothing but 0 and 255: taken as background and foreground.")
        return (0, IGNORE)
    largest = max(found, default=-1)
    if largest > 254:
        raise DataError(f"{where[largest]} holds the value {largest}; class indices from 0 to 254 were expected.")
    values = tuple(v for v in range(256) if v not in (ignore, IGNORE))
    if named:
        outside = [v for v in found if v not in values[:named]]
        if outside:
            raise DataError(
                f"data.classes names {named} classes (values {_show(values[:named])}), but {where[outside[0]]} "
                f"holds {_show([v for v in outside if where[v] == where[outside[0]]])}.{_lossy(where[outside[0]])}"
            )
        return values[:named]
    if len(found) < 2 or largest + 1 > 2 * len(found) + 2:
        dense = next((i for i, v in enumerate(found) if v != values[i]), len(found))  # found[:dense] has no gap
        if not strict and dense > 1:
            return values[:dense]  # each mask with another value is then reported as a problem
        stray = found[dense] if dense < len(found) else None
        example = masks[0] if stray is None else where[stray]
        ignored = f" To ignore a value, give --config.data.ignore={stray}." if stray is not None else ""
        raise DataError(
            f"The masks, such as {example}, hold the values {_show(sorted(where))}, where class indices 0, 1, 2, ... "
            f"were expected; if these are the classes, say so in a classes.json beside the folders: {_EXAMPLE}."
            f"{ignored}{_lossy(example)}"
        )
    return tuple(v for v in values if v <= largest)


def stored_values(masks: Sequence[Path], strict: bool = True) -> dict[int, str]:
    """Returns {value: a mask that holds it} over all masks; reads them again only if the files have changed."""
    stats = [(str(path), path.stat()) for path in masks]
    where, errors = _stored_values(tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats))
    if errors and (strict or not where):
        raise errors[0]
    return where


@functools.lru_cache(maxsize=4)
def _stored_values(files: tuple[tuple[str, int, int], ...]) -> tuple[dict[int, str], list[DataError]]:
    if len(files) > 5000:
        _LOG.warning("Reading %d masks to find the classes; a classes.json beside the folders avoids this.", len(files))
    where: dict[int, str] = {}
    errors = []
    with ThreadPoolExecutor() as pool:
        for (path, *_), values in zip(files, pool.map(_values_in, [path for path, *_ in files])):
            if isinstance(values, DataError):
                errors.append(values)
            else:
                where = {value: path for value in values} | where
    return where, errors


def _values_in(path: str) -> list[int] | DataError:
    try:
        return np.flatnonzero(np.bincount(read_mask(path).ravel())).tolist()
    except DataError as error:
        return error


def _from_json(path: Path, masks: Sequence[Path], ignore: int, palette: Any, channels: int, strict: bool) -> Meaning:
    """Reads `classes.json`: {"classes": [{"index", "name", "colour"}], "ignore_index"}; only the names are required."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [e if isinstance(e, dict) else {"name": e} for e in content["classes"]]
        values = tuple(int(e["index"]) if "index" in e else i for i, e in enumerate(entries))
        names = tuple(str(e["name"]) for e in entries)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path} is not of the form {_EXAMPLE} ({type(error).__name__}: {error}).") from error
    stored = content["ignore_index"] if "ignore_index" in content else None
    if stored is not None and not (type(stored) is int and 0 <= stored <= 65535):
        raise DataError(
            f"{path} has the ignore_index {stored!r}; a whole number from 0 to 65535, or null for none, was expected."
        )
    if ignore >= 0 and stored is not None and stored != ignore:
        raise DataError(f"data.ignore is {ignore}, but {path} has ignore_index {stored}.")
    ignore_value = stored if stored is not None else ignore if ignore >= 0 else None
    if not entries or len(set(values)) < len(values) or not all(0 <= v <= 65535 for v in values):
        raise DataError(f"{path} has the indices {_show(values)}; different ones from 0 to 65535 were expected.")
    if ignore_value in values:
        raise DataError(
            f"{path} gives the ignored index {ignore_value} to the class {names[values.index(ignore_value)]!r}."
        )
    if len(palette) and max(values) >= len(palette):
        raise DataError(f"data.palette has {len(palette)} colours, but {path} has the index {max(values)}.")
    if values == (0, 1) and ignore_value is None and not len(palette) and _only_0_and_255(masks, strict):
        _note(f"The masks hold nothing but 0 and 255: 255 is taken as the class {names[1]!r}.")
        values = (0, IGNORE)
    colors = default_colors(len(entries))
    keys = [next((k for k in ("colour", "color") if k in e), None) for e in entries]
    for value, entry, key in zip(values, entries, keys):
        if key is None:
            continue
        _check_color(entry[key], str(path))
        if len(palette) and tuple(entry[key]) != tuple(palette[value]):
            raise DataError(
                f"data.palette gives the index {value} the colour {tuple(palette[value])}, but {path} gives "
                f"{entry['name']!r} (index {value}) the colour {tuple(entry[key])}."
            )
    colors = tuple(tuple(e[k]) if k is not None else c for e, k, c in zip(entries, keys, colors))
    return Meaning(DataInfo(names, colors, ignore_value, channels), values)


def _only_0_and_255(masks: Sequence[Path], strict: bool) -> bool:
    try:
        return set(stored_values(masks, strict)) == {0, IGNORE}
    except DataError:  # masks of colours, or damaged masks, which are reported when they are read
        return False


def _check_color(color: Any, where: str) -> None:
    if not (
        isinstance(color, list | tuple) and len(color) == 3 and all(type(v) is int and 0 <= v < 256 for v in color)
    ):
        raise DataError(
            f"{where} has {color!r}, where a colour (red, green, blue) of numbers from 0 to 255 was expected."
        )


def _show(values: Sequence[int], most: int = 10) -> str:
    """Returns "0 to 4" for consecutive values, otherwise a list of at most `most` values."""
    values = list(values)
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


def _lossy(path: str | Path) -> str:
    return " JPEG changes values: masks must be PNG." if Path(path).suffix.lower() in (".jpg", ".jpeg") else ""
