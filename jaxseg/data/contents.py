"""What mask files hold, each read once: their values, and the colours in which their own palettes show these."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxseg.data.classes_file import ClassesFile
from jaxseg.data.images import Mask, read_header, read_mask_and_colors
from jaxseg.data.masks import Color, Palette, what_it_changes
from jaxseg.errors import DataError
from jaxseg.types import IGNORE

_PIXELS = 2**28  # how many pixels of masks are read at the start of a run, for their values
_MOST = 500
_KEPT = 2**17  # of how many masks the contents are kept
_known: dict[tuple, "Content | DataError"] = {}


class Content(NamedTuple):
    """values: those that occur, sorted. colors: {value: its colour} of those, for a palette file with colours."""

    values: tuple[int, ...]
    colors: Mapping[int, Color]


def read_contents(
    masks: Sequence[Path], palette: Palette | None = None, *, keep_indices: bool = False
) -> Iterator[Content | DataError]:
    """Yields the content of each mask, or the error of a mask that cannot be used; see `images.read_mask`.

    Files that have not changed since are not read again.
    """
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda path: _content(path, palette, keep_indices), masks)


def _content(path: Path, palette: Palette | None, keep_indices: bool) -> Content | DataError:
    try:
        key = _key(path, palette, keep_indices)
    except OSError as error:
        return DataError(f"{path} cannot be read: {error.strerror or error}.")
    if key in _known:
        return _known[key]
    return _keep(key, _read(path, palette, keep_indices))


def _key(path: Path, palette: Palette | None, keep_indices: bool) -> tuple:
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size, palette, keep_indices and palette is not None


def _keep(key: tuple, content: Content | DataError) -> Content | DataError:
    if len(_known) >= _KEPT:
        _known.clear()
    _known[key] = content
    return content


def _read(path: Path, palette: Palette | None, keep_indices: bool) -> Content | DataError:
    try:
        compression = read_header(path).lossy
        if compression:
            return DataError(lossy_mask(path, compression))
        return _content_of(read_mask_and_colors(path, palette, keep_indices=keep_indices))
    except DataError as error:
        return error


def _content_of(mask: Mask) -> Content:
    found = np.flatnonzero(np.bincount(mask.values.ravel())).tolist()
    return Content(tuple(found), {value: mask.colors[value] for value in found if value < len(mask.colors)})


def read_and_keep(path: Path, palette: Palette | None = None, *, keep_indices: bool = False) -> np.ndarray:
    """Returns the values of a mask as `images.read_mask`, and keeps its content, for which it is not read again.

    The compression of the mask was checked before.
    """
    mask = read_mask_and_colors(path, palette, keep_indices=keep_indices)
    with contextlib.suppress(OSError):  # it has just been removed
        _keep(_key(path, palette, keep_indices), _content_of(mask))
    return mask.values


def lossy_mask(path: str | Path, compression: str) -> str:
    """Returns the sentence about a mask of lossy content."""
    return f"The mask {path} is a {compression} file. {what_it_changes(compression)}"


def sample(masks: Sequence[Path]) -> list[Path]:
    """Returns masks, evenly spaced over `masks`, that are read in seconds: all of them if these are few."""
    if not masks:
        return []
    try:
        height, width, *_ = read_header(masks[0])
    except DataError:
        height = width = 1
    count = min(len(masks), _MOST, max(16, _PIXELS // (height * width)))
    places = np.linspace(0, len(masks) - 1, count).round().astype(int)
    return [masks[i] for i in places]


def compare_palettes(contents: Mapping[Path, Content], file: ClassesFile | None) -> tuple[list[str], list[str]]:
    """Compares the palettes of palette files with each other and with the colours of `classes.json`.

    Returns:
        A sentence for each file whose colours contradict those of another file or of `classes.json`, where an index has
        the colour of another class; and a sentence about the first file whose colours are merely others, or the greys
        of other indices.
    """
    problems, remarks = [], _greys_of_other_classes(contents, file)
    first: dict[int, tuple[Color, Path]] = {}
    names = dict(zip(file.values, file.names)) if file is not None else {}
    given = dict(zip(file.values, file.colors)) if file is not None else {}
    for path, content in contents.items():
        problem = ""
        for value, color in content.colors.items():
            if value in (IGNORE, file.ignore if file is not None else None):
                continue
            own = given[value] if value in given else None
            other = next((v for v, c in given.items() if c == color and v != value), None)
            before, where = first.setdefault(value, (color, path))
            if own is not None and color != own and other is not None and file is not None:
                problem = problem or (
                    f"The palette of {path} shows the index {value} in {color}, but {file.path} gives that colour to "
                    f"{names[other]!r} (index {other})."
                )
            elif color != before:
                problem = problem or (
                    f"The palette of {path} shows the index {value} in {color}, but that of {where} in {before}."
                )
            elif own is not None and color != own and file is not None and not remarks:
                remarks.append(
                    f"The palette of {path} shows the index {value} in {color}, where {file.path} has {own} for "
                    f"{names[value]!r}; the index counts, not the colour."
                )
        if problem:
            problems.append(
                f"{problem} If the colours are right, give them with data.palette; if the indices are right, save the "
                "masks without a palette (grey, mode L)."
            )
    return problems, remarks


def _greys_of_other_classes(contents: Mapping[Path, Content], file: ClassesFile | None) -> list[str]:
    """Returns a sentence about the first palette file that shows its indices in the greys (v, v, v) of other indices.

    Programs that make files smaller turn grey masks into palette files, and give the greys that occur new indices.
    """
    found = {value for content in contents.values() for value in content.values}
    known = {*(found if file is None else file.values), IGNORE}
    for path, content in contents.items():
        greys = {value: color[0] for value, color in content.colors.items() if len(set(color)) == 1}
        other = next((value for value, grey in greys.items() if grey not in (value, IGNORE)), None)
        if other is not None and len(greys) == len(content.values) and known.issuperset(greys.values()):
            return [
                f"The palette of {path} shows the index {other} in the grey of {greys[other]}. The index counts: if a "
                "program has made a palette file of a grey mask, save the mask as grey again (mode L)."
            ]
    return []
