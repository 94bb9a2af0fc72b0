"""Reads `classes.json`, the file beside the images that says what the values in their masks mean.

    {"classes": [{"index": 0, "name": "road", "colour": [128, 64, 128]}, ...],
     "ignore_index": 255, "ignore_colour": [0, 0, 0]}

`classes` is a list. An entry is an object, of which only the name is required, or the name alone. Without an index the
classes are counted from 0. Whatever may be meant as one of these keys and is not understood is an error.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxseg.data.masks import Color, Palette, check_color
from jaxseg.data.notes import note
from jaxseg.errors import DataError, counted, nearest
from jaxseg.types import IGNORE, ignore_label

FILE = "classes.json"
EXAMPLE = '{"classes": [{"index": 0, "name": "sky", "colour": [70, 130, 180]}, ...], "ignore_index": 255}'
_KEYS = ("classes", "ignore_index", "ignore_colour", "ignore_color")
_CLASS_KEYS = ("index", "name", "colour", "color")
_NUMBER_OR_COLOR = re.compile(r"\s*(\d+|\(?\d+[\s,;]+\d+[\s,;]+\d+\)?|#[0-9a-fA-F]{6})\s*")


class ClassesFile(NamedTuple):
    """The content of a `classes.json`.

    Attributes:
        path: the file.
        names: the name of each class, all different.
        values: the value of each class in the masks, all different.
        colors: the colour of each class, or None where the file gives none.
        ignore: the value that is ignored besides 255, or None.
        ignore_color: the colour that is ignored in masks of colours, or None.
    """

    path: Path
    names: tuple[str, ...]
    values: tuple[int, ...]
    colors: tuple[Color | None, ...]
    ignore: int | None
    ignore_color: Color | None

    def palette(self) -> Palette | None:
        """Returns the colours and what they stand for, for masks of colours; None if the file gives no colour."""
        ignored = IGNORE if self.ignore is None else self.ignore
        given = [(c, v) for c, v in zip((*self.colors, self.ignore_color), (*self.values, ignored)) if c is not None]
        colors = [color for color, _ in given]
        known = {color: value for color, value in given if colors.count(color) == 1}
        remedy = ' If a class is missing, give it an entry with its "colour" in "classes".'
        if self.ignore_color is None:
            remedy += ' Give a colour that is to be ignored as "ignore_colour".'
        if len(known) < len(given):
            remedy = " A colour that it gives to two classes stands for neither of them."
        return Palette(tuple(known), tuple(known.values()), str(self.path), remedy) if given else None


def classes_text(classes: Sequence[str], colors: Sequence[Sequence[int]]) -> str:
    """Returns the content of a classes.json for masks of class indices."""
    entries = [
        {"index": index, "name": name, "colour": list(color)}
        for index, (name, color) in enumerate(zip(classes, colors))
    ]
    return json.dumps({"classes": entries, "ignore_index": ignore_label(len(classes))}, indent=1) + "\n"


def read_classes_file(directory: Path) -> ClassesFile | None:
    """Returns the content of `classes.json` in a folder; None if there is no such file.

    Raises:
        DataError: if the file cannot be read, or holds anything that is not of the form of the module's docstring.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    content = _load(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {_kind(content)}, where an object was expected: {EXAMPLE}.")
    wrong: list[str] = []
    unknown = _unknown_key(content, _KEYS, path)
    if unknown:
        wrong.append(f"{path} {unknown}")
    listed: list[dict[str, Any]] = []
    with _collected(wrong):
        listed = [{"name": entry} if isinstance(entry, str) else entry for entry in _entries(path, content)]
        wrong += _wrong_entries(path, listed)
    if wrong:
        raise DataError(" ".join(wrong))
    names, given = tuple(e["name"] for e in listed), [e["index"] if "index" in e else None for e in listed]
    values = tuple(position if index is None else index for position, index in enumerate(given))
    if None in given and any(index not in (None, position) for position, index in enumerate(given)):
        name = names[given.index(None)]
        raise DataError(f"{path} gives some classes an 'index', but not {name!r}; give it to all of them, or to none.")
    if not any(index is not None for index in given):
        _note_numbered(path, names)
    _check_different(path, "name", names, names)
    _check_different(path, "index", values, names)
    colors = tuple(_color(e, "colour", "color", f"{path}, in the class {e['name']!r},") for e in listed)
    ignore, ignore_color = _ignored(path, content, names, values)
    return ClassesFile(path, names, values, colors, ignore, ignore_color)


@contextlib.contextmanager
def _collected(wrong: list[str]) -> Iterator[None]:
    """Adds the message of a DataError of the body to `wrong`, so that all of a file's mistakes are named at once."""
    try:
        yield
    except DataError as error:
        wrong.append(str(error))


def _entries(path: Path, content: dict[str, Any]) -> list[Any]:
    """Returns the list of classes."""
    if "classes" not in content:
        raise DataError(f"{path} has no key 'classes'; {EXAMPLE} was expected.")
    entries = content["classes"]
    if not isinstance(entries, list) or not entries:
        raise DataError(
            f"{path} has {_kind(entries)} as 'classes', where a list with an entry for each class was expected: "
            f"{EXAMPLE}."
        )
    return entries


def _load(path: Path) -> Any:
    try:
        # Editors on Windows put a byte order mark before the text.
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repetition)
    except UnicodeDecodeError:
        raise DataError(f"{path} is not encoded as UTF-8; save it again as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no valid JSON ({error}); {EXAMPLE} was expected.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:100]!r} occurs twice in one object")
        found[key] = value
    return found


def _wrong_entries(path: Path, entries: list[Any]) -> list[str]:
    """Returns a sentence for each thing that is wrong in the list, with the number of entries that have it."""
    found: dict[str, list[tuple[int, str]]] = {}
    for position, entry in enumerate(entries):
        expected, said = _wrong_in(entry, path)
        if said:
            found.setdefault(expected or said, []).append((position, said))
    sentences = []
    for (position, said), *others in found.values():
        more = f" (and {counted(len(others), 'other')})" if others else ""
        sentences.append(f"{path}, in entry {position}{more} of 'classes', {said}")
    return sentences


def _wrong_in(entry: Any, path: Path) -> tuple[str, str]:
    """Returns what was expected, if other entries can have another value of the same kind, and what is wrong; or ""."""
    if not isinstance(entry, dict):
        expected = "where a name or an object with a name was expected."
        return expected, f"has {_kind(entry)}, {expected}"
    unknown = _unknown_key(entry, _CLASS_KEYS, path)
    if unknown:
        return "", unknown
    if "name" not in entry:
        return "", "has no 'name'."
    if not isinstance(entry["name"], str) or not entry["name"].strip():
        expected = "a text was expected."
        return expected, f"has the name {entry['name']!r}; {expected}"
    if "index" in entry and not _is_value(entry["index"]):
        expected = "a whole number from 0 to 65535 was expected."
        return expected, f"has the index {entry['index']!r}; {expected}"
    return "", ""


def _ignored(
    path: Path, content: dict[str, Any], names: tuple[str, ...], values: tuple[int, ...]
) -> tuple[int | None, Color | None]:
    """Returns the ignored value and the ignored colour."""
    ignore = content["ignore_index"] if "ignore_index" in content else None
    if ignore is not None and not _is_value(ignore):
        raise DataError(
            f"{path} has the ignore_index {ignore!r}; a whole number from 0 to 65535, or null for none, was expected."
        )
    if ignore in values:
        raise DataError(f"{path} gives the ignored index {ignore} to the class {names[values.index(ignore)]!r}.")
    color = _color(content, "ignore_colour", "ignore_color", str(path))
    if color is not None and ignore is None and IGNORE in values:
        raise DataError(f"{path} has an ignore_colour and a class of the index 255; give an ignore_index too.")
    return ignore, color


def _color(entry: dict[str, Any], key: str, other: str, where: str) -> Color | None:
    """Returns the colour in an object, under the British or the American spelling; None if there is none or null."""
    if key in entry and other in entry:
        raise DataError(f"{where} has both {key!r} and {other!r}; keep one of them.")
    color = entry[key] if key in entry else entry[other] if other in entry else None
    return None if color is None else check_color(color, where)


def _note_numbered(path: Path, names: tuple[str, ...]) -> None:
    """Logs a note if names without an index start with numbers, as "3: sky", that are not their places in the list."""
    starts = [re.match(r"\s*(\d+)\b", name) for name in names]
    numbers = [int(start[1]) for start in starts if start is not None]
    if len(set(numbers)) == len(names) and numbers != list(range(len(names))):
        note(
            f"The names of the classes in {path} start with numbers, such as {names[0]!r}, which are not read: the "
            "first name stands for the value 0, the second for 1, and so on. For other values give each an 'index'."
        )


def _unknown_key(entry: dict[str, Any], known: tuple[str, ...], path: Path) -> str:
    """Returns what to say of an unknown key that may be meant as a known one, by its name or its value; or "".

    A key that cannot be meant so, such as a share of the pixels or a description, is left out with a warning.
    """
    british = [name for name in known if not name.endswith("color")]
    for key, value in entry.items():
        if key in known:
            continue
        hint = nearest(key, british)
        if _could_be_meant(value) or "Did you mean" in hint:
            return f"has the unknown key {key!r}.{hint}"
        note(f"{path} has the key {key!r}, which is not used. The keys of classes.json are: {', '.join(british)}.")
    return ""


def _could_be_meant(value: object) -> bool:
    """Returns whether a value of JSON may be an index, a colour, a list of classes or a map to any of these."""
    if isinstance(value, str):
        return _NUMBER_OR_COLOR.fullmatch(value) is not None
    if isinstance(value, dict) and value:
        return all(_could_be_meant(v) for v in value.values()) or any(key.isdigit() for key in value)
    return type(value) is int or isinstance(value, list)


def _check_different(path: Path, what: str, values: Any, names: Any) -> None:
    """Raises DataError if two classes share a name or an index."""
    first: dict[Any, str] = {}
    for value, name in zip(values, names):
        if value in first:
            both = f"to {first[value]!r} and to {name!r}" if what != "name" else "to two classes"
            raise DataError(f"{path} gives the {what} {value!r} {both}; each class needs its own.")
        first[value] = name


def _is_value(value: object) -> bool:
    return type(value) is int and 0 <= value <= 65535  # True is no number


def _kind(value: object) -> str:
    """Returns what a value of JSON is, in words."""
    if isinstance(value, dict):
        return "an object (a map)"
    if isinstance(value, list):
        return f"a list of {counted(len(value), 'entry')}"
    return "null" if value is None else f"{value!r}"
