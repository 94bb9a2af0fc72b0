"""Tables (CSV) that name the images and their masks."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from jaxseg.data.formats.collection import Collection, Lost, Options, split_of_words
from jaxseg.data.formats.colors import TABLES
from jaxseg.data.formats.paired import Found, collection_of
from jaxseg.data.pairs import Pair
from jaxseg.errors import DataError

_COLUMNS = {
    "image": ("image", "img", "image_path", "images", "file", "filename"),
    "mask": ("mask", "mask_path", "masks", "label", "label_path", "annotation", "segmentation"),
    "split": ("split", "subset", "set", "partition"),
}
_WANTED = "expected image,mask or image,mask,split"
_LONGEST = 4096  # bytes of the first line that are looked at


def find_tables(folder: Path) -> tuple[list[Path], str]:
    """Returns the tables of a folder with columns of images and masks, and a sentence on its others, "" for none.

    Tables of the colours of classes are none of them.
    """
    found, others = [], []
    for path in sorted(folder.glob("*.csv")):
        try:
            with path.open("rb") as file:
                head = file.readline(_LONGEST).decode("utf-8-sig", errors="replace")
        except OSError:  # not a file, or not ours to read
            continue
        header = _header(head)
        if _place("image", header) is not None and _place("mask", header) is not None:
            found.append(path)
        elif path.name not in TABLES:
            others.append(f"The table {path.name} has the columns {', '.join(header)[:200]}; {_WANTED}.")
    return found, " ".join(others[:3])


def _header(head: str) -> list[str]:
    """Returns the names of the columns in the first line of a table."""
    try:
        rows = list(csv.reader([head.rstrip("\r\n")], delimiter=_delimiter(head)))
    except csv.Error:
        return []
    return [cell.strip().lower() for cell in rows[0]] if rows else []


def _delimiter(head: str) -> str:
    return max(",;\t", key=head.count)


def _place(key: str, header: Sequence[str]) -> int | None:
    return next((header.index(name) for name in _COLUMNS[key] if name in header), None)


def read_table(path: Path, options: Options) -> Collection:
    """Returns the images and masks that a table (CSV) names: image,mask, and optionally split.

    Paths are relative to the folder of the table, and lead to files in it alone.

    Raises:
        DataError: if the table has other columns, or none of its files is there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table in UTF-8.") from error
    head = text.splitlines()[0] if text.strip() else ""
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=_delimiter(head)))
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}).") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    image, mask, split = (_place(key, header) for key in ("image", "mask", "split"))
    if image is None or mask is None:
        raise DataError(f"{path} has the columns {', '.join(header)[:200]}; {_WANTED}.")
    named: list[tuple[int, Found]] = []
    lost: list[Lost] = []
    root = Path(os.path.abspath(options.images or path.parent))
    for number, row in enumerate(rows[1:], 2):
        cells = [row[place].strip() if place is not None and place < len(row) else "" for place in (image, mask, split)]
        if not any(cells):
            continue
        try:
            files = [_inside(root, cell) if cell else None for cell in cells[:2]]
            if files[0] is None:
                raise DataError("It names no image.")
        except DataError as error:
            lost.append(Lost(f"{path}, line {number}", "image", str(error)))
            continue
        name = files[0].relative_to(root).with_suffix("").as_posix()
        known = split_of_words(cells[2])
        if cells[2] and not known:
            why = f"Its split {cells[2][:60]!r} is none of train, val and test."
            lost.append(Lost(f"{path}, line {number}", "image", why))
            continue
        named.append((number, Found(known, Pair(name, files[0], files[1]))))
    if not any(one.pair.mask is not None for _, one in named):
        raise DataError(f"{path} names no image with a mask.{f' {lost[0].why}' if lost else ''}")
    found, more = _once_each(path, named)
    lost += more
    return collection_of("CSV", path, found, lost, options)


def _once_each(path: Path, named: Sequence[tuple[int, Found]]) -> tuple[list[Found], list[Lost]]:
    """Returns the rows (line, pair) without those of no split where others have one, and of an image of another split.

    An image with a mask and again without is of another split too: those without masks may serve training.
    """
    divided = any(one.split for _, one in named if one.pair.mask is not None)
    first: dict[Path, tuple[int, str]] = {}
    found, lost = [], []
    for number, one in sorted(named, key=lambda entry: entry[1].pair.mask is None):
        if divided and not one.split and one.pair.mask is not None:
            lost.append(Lost(f"{path}, line {number}", "image", "It names no split, although others do."))
            continue
        place = one.split or "no split" if one.pair.mask is not None else "those without masks"
        line, before = first.setdefault(one.pair.image.resolve(), (number, place))
        if place != before:
            why = f"Line {line} has its image {one.pair.image} in {before}; it would be in {place} as well."
            lost.append(Lost(f"{path}, line {number}", "image", why))
        else:
            found.append(one)
    return found, lost


def _inside(root: Path, text: str) -> Path:
    """Returns the file that a table names; raises DataError if it is not there, or not in the folder `root`.

    `root` is absolute: of relative paths, "../x" counts as inside ".". A link in the folder is the user's own, and
    followed.
    """
    try:
        path = Path(os.path.normpath(root / text.replace("\\", "/")))
        inside = path.is_relative_to(root)
        found = inside and path.is_file()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise DataError(f"{text[:200]!r} is no file.") from error
    if not inside:
        raise DataError(f"{text[:200]!r} leads out of the folder {root}.")
    if not found:
        raise DataError(f"There is no file {path}.")
    return path
