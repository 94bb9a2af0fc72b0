"""Reads annotations of images: CSV, COCO, LabelMe, CVAT and Label Studio, each recognised by its content."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxseg.data.weak import coco, cvat, label_studio, labelme, table
from jaxseg.data.weak.marks import AnnotatedImage, Annotations, merged
from jaxseg.errors import DataError, first_line

EXPECTED = (
    "a table (.csv), COCO (.json), a folder of LabelMe's files (.json), CVAT for images 1.1 (.xml), or Label Studio's "
    "export JSON (.json)"
)


def read_annotations(path: str | Path) -> Annotations:
    """Returns the annotations in a file, or in the LabelMe files of a folder.

    Raises:
        DataError: if there is no such file, or it is empty, damaged, of none of the forms, or annotates nothing.
    """
    path = Path(path)
    if path.is_dir():
        form, images = "LabelMe", _folder(path)
    elif path.is_file():
        form, images = _file(path)
    else:
        raise DataError(f"There is no file or folder {path} (data.annotations); expected {EXPECTED}.")
    images = merged(images)
    for image in images:
        if any(mark.points.ndim != 2 or mark.points.shape[1] != 2 for mark in image.marks):
            raise DataError(f"{path} ({form}) gives {image.name[:200]!r} points that are no pairs of numbers (x, y).")
    if not any(image.marks for image in images):
        raise DataError(f"{path} ({form}) holds no annotation of any image.")
    return Annotations(path, form, images)


def files_read(path: Path) -> list[Path]:
    """Returns the files that `read_annotations` reads, sorted; [] if there are none."""
    if path.is_dir():
        return sorted(path.rglob("*.json"))
    return [path] if path.is_file() else []


def _file(path: Path) -> tuple[str, list[AnnotatedImage]]:
    text = _text(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        with _naming(path, "CSV"):
            return "CSV", table.read(path, text)
    if suffix == ".xml":
        with _naming(path, "CVAT"):
            return "CVAT", cvat.read(path, text)
    if suffix == ".json":
        content = _parsed(path, text)
        for form, of_form, read in _JSON:
            if of_form(content):
                with _naming(path, form):
                    return form, read(path, content)
    raise DataError(f"{path} is of no form of annotations that is read; expected {EXPECTED}.{_known(path, text)}")


def _folder(folder: Path) -> list[AnnotatedImage]:
    files = files_read(folder)
    if not files:
        raise DataError(f"The folder {folder} (data.annotations) holds no LabelMe files (.json); expected {EXPECTED}.")
    images = []
    for path in files:
        content = _parsed(path, _text(path))
        if not labelme.is_labelme(content):
            raise DataError(
                f"{path} is no LabelMe file, which a folder of annotations holds alone; name the file itself if it "
                "is of another form."
            )
        with _naming(path, "LabelMe"):
            images += labelme.read(path, content, folder)
    return images


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark before the text
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8; expected {EXPECTED}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not text.strip():
        raise DataError(f"{path} is empty; expected {EXPECTED}.")
    return text


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no valid JSON ({error}).") from error


@contextlib.contextmanager
def _naming(path: Path, form: str) -> Iterator[None]:
    """Turns an error about the structure of a file into a sentence."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except KeyError as error:
        raise DataError(f"{path} was read as {form}, but an entry lacks {error.args[0]!r}.") from error
    except Exception as error:  # what another program wrote may hold anything in any place
        why = first_line(error)[:200]
        raise DataError(f"{path} was read as {form}, but an entry is of another form ({why}).") from error


_JSON: tuple[tuple[str, Callable[[Any], bool], Callable[[Path, Any], list[AnnotatedImage]]], ...] = (
    ("COCO", coco.is_coco, coco.read),
    ("LabelMe", labelme.is_labelme, lambda path, content: labelme.read(path, content, path.parent)),
    ("Label Studio", label_studio.is_label_studio, label_studio.read),
)


def _known(path: Path, text: str) -> str:
    """Returns what to do about a form that is known, and not read."""
    head = text[:4096]
    if '"type": "FeatureCollection"' in head:
        return " GeoJSON is not read: export COCO."
    if "via_" in head or '"regions"' in head:
        return " The JSON of the VGG Image Annotator is not read: export COCO."
    if path.suffix.lower() == ".json" and '"image"' in head:
        return " Of Label Studio export JSON, not JSON-MIN."
    return ""
