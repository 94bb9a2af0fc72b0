"""The colours of classes in masks: tables of other tools, and the nearest class of a colour that is not exact."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxseg.data.classes_file import FILE, read_classes_file
from jaxseg.data.masks import Color, Palette, check_color
from jaxseg.errors import DataError
from jaxseg.types import IGNORE, IGNORE_16

TABLES = (FILE, "labelmap.txt", "class_dict.csv", "label_colors.txt")
"""The files that say the colours of the classes, which are looked for in a folder."""

_CHUNK = 2**16  # colours that are compared at a time


class ColorTable(NamedTuple):
    """names and colors: of the classes, in the order of their indices."""

    names: tuple[str, ...]
    colors: tuple[Color, ...]


def read_color_table(path: Path) -> ColorTable:
    """Returns the classes of a file of one of these forms, by its content:

        {"classes": [{"name": "road", "colour": [128, 64, 128]}, ...]}     classes.json
        name,r,g,b                                                         a table with such a first line
        road:128,64,128::                                                  labelmap.txt, of CVAT
        128 64 128 road                                                    label_colors.txt, of CamVid

    Raises:
        DataError: if it is of another form, or has a colour twice.
    """
    if path.name == FILE:
        found = read_classes_file(path.parent)
        if found is None:
            raise DataError(f"There is no file {path}, which should have the colours of the classes.")
        if None in found.colors or found.values != tuple(range(len(found.values))):
            raise DataError(f"{path} gives no colour to some classes, or indices other than 0, 1, 2, ...")
        return ColorTable(found.names, tuple(color for color in found.colors if color is not None))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, which should have the colours of the classes, cannot be read.") from error
    rows = _comma_rows(text) or _line_rows(text)
    if not rows:
        raise DataError(
            f"{path} has no colours of classes; expected lines as 'name,r,g,b' under such a first line, as "
            "'name:r,g,b::', or as 'r g b name'."
        )
    names = tuple(name for name, _ in rows)
    colors = tuple(check_color([int(value) for value in color], str(path)) for _, color in rows)
    if len(set(names)) < len(names) or len(set(colors)) < len(colors):
        raise DataError(f"{path} has a name or a colour twice; each class needs its own.")
    return ColorTable(names, colors)


def _comma_rows(text: str) -> list[tuple[str, tuple[str, ...]]]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    head = [cell.lower() for cell in rows[0]] if rows else []
    places = [head.index(key) for key in ("r", "g", "b") if key in head]
    named = next((head.index(key) for key in ("name", "class", "class_name", "label") if key in head), None)
    if len(places) < 3 or named is None:
        return []
    full = [row for row in rows[1:] if len(row) >= len(head) and all(row[place].isdigit() for place in places)]
    return [(row[named], tuple(row[place] for place in places)) for row in full]


def _line_rows(text: str) -> list[tuple[str, tuple[str, ...]]]:
    rows = []
    for line in text.splitlines():
        if match := re.fullmatch(r"\s*([^#:][^:]*):(\d{1,3}),(\d{1,3}),(\d{1,3}):.*", line):
            rows.append((match[1].strip(), match.groups()[1:]))
        elif match := re.fullmatch(r"\s*(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*?)\s*", line):
            rows.append((match[4], match.groups()[:3]))
    return rows


def nearest_values(colors: np.ndarray, palette: Palette, tolerance: float) -> tuple[np.ndarray, int]:
    """Returns the value u8|u16[h,w] of the nearest colour, and how many pixels are near none.

    Args:
        colors: u8[h,w,3].
        palette: the colours and their values.
        tolerance: largest distance sqrt(dr² + dg² + db²), from 0 to 442; beyond it a pixel is IGNORE (65535 where
            `palette` has larger values than 254).
    """
    flat = colors.reshape(-1, 3)
    codes, back = np.unique(flat.astype(np.int32) @ np.array([65536, 256, 1], np.int32), return_inverse=True)
    known = np.array(palette.colors, np.int32)
    wide = max(palette.values) > IGNORE
    values = np.array([*palette.values, IGNORE_16 if wide else IGNORE], np.uint16 if wide else np.uint8)
    chosen = np.empty(len(codes), np.int64)
    for start in range(0, len(codes), _CHUNK):
        part = codes[start : start + _CHUNK]
        shown = np.stack([part >> 16, part >> 8 & 255, part & 255], axis=-1)
        best = np.full(len(part), -1)
        least = np.full(len(part), int(tolerance**2) + 1)
        for place, color in enumerate(known):
            distance = ((shown - color) ** 2).sum(-1)
            best, least = np.where(distance < least, place, best), np.minimum(distance, least)
        chosen[start : start + _CHUNK] = best
    found = chosen[back.reshape(-1)]
    return values[found].reshape(colors.shape[:2]), int((found < 0).sum())
