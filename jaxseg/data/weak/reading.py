"""Reads annotations of images, each form recognised by its content.

One reader of each form serves marks in place of masks (`source`) and full masks (`jaxseg.data.formats`).
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxseg.data.weak import coco, cvat, label_studio, labelme, supervisely, table, via, via3
from jaxseg.data.weak.faults import Fault, listed
from jaxseg.data.weak.marks import AnnotatedImage, Annotations, Mark, merged
from jaxseg.errors import DataError, counted, first_line

EXPECTED = (
    "a table (.csv), COCO (.json), a folder of LabelMe's or Supervisely's files (.json), CVAT for images or video 1.1 "
    "(.xml), Label Studio's export JSON or JSON-MIN, or VIA's (.json)"
)
_LARGEST = 2**32  # bytes of a file of annotations: those of COCO have 2**29


class Contents(NamedTuple):
    """form: what a file was read as. images: what it annotates. classes: the names that it lists, in their order."""

    form: str
    images: list[AnnotatedImage]
    classes: list[str]


def read_annotations(path: str | Path) -> Annotations:
    """Returns the annotations in a file, or in the LabelMe files of a folder.

    Raises:
        DataError: if there is no such file, or it is empty, damaged, of none of the forms, or annotates nothing.
    """
    path = Path(path)
    if path.is_dir():
        form, images = _folder(path)
    elif path.is_file():
        form, images, _ = read_file(path, path.parent)
    else:
        raise DataError(f"There is no file or folder {path} (data.annotations); expected {EXPECTED}.")
    images = merged(images)
    if not any(image.marks for image in images):
        raise DataError(f"{path} ({form}) holds no annotation of any image.")
    return Annotations(path, form, images)


def files_read(path: Path) -> list[Path]:
    """Returns the files that `read_annotations` reads, sorted; [] if there are none."""
    if path.is_dir():
        return sorted(path.rglob("*.json"))
    return [path] if path.is_file() else []


def read_file(path: Path, root: Path, *, masks: bool = False, faults: list[Fault] | None = None) -> Contents:
    """Returns what one file holds.

    Args:
        path: the file.
        root: the folder that the names of images begin at, of forms with a file for each image.
        masks: whether to read the run lengths of COCO, which `data.annotations` leaves out for its box.
        faults: gets the annotations that cannot be read, so that the others are; None: the first is an error.

    Raises:
        DataError: if it is empty, damaged, or of none of the forms, or none of its annotations can be read.
    """
    contents = _contents(path, root, masks, faults)
    images = []
    for image in contents.images:
        marks = []
        for mark in image.marks:
            with listed(faults, image.name, f"{mark.kind} of {mark.name}"):
                _check_points(mark, f"{path} ({contents.form}) gives {image.name[:200]!r}", strict=faults is not None)
                marks.append(mark)
        images.append(image._replace(marks=tuple(marks)))
    if faults and not any(image.marks for image in images):
        image, what, why = faults[0]
        raise DataError(f"{path} ({contents.form}) has no annotation that can be read; {image}, {what}: {why}")
    return contents._replace(images=images)


def _check_points(mark: Mark, said: str, *, strict: bool) -> None:
    """Raises DataError, which begins with `said`, for points of another form.

    `strict`: also for a polygon of fewer than 3 points.
    """
    if any(points.ndim != 2 or points.shape[1] != 2 for points in (mark.points, *mark.holes)):
        raise DataError(f"{said} points that are no pairs of numbers (x, y).")
    if any(len(hole) < 3 or not np.isfinite(hole).all() for hole in mark.holes):
        raise DataError(f"{said} a hole that is no polygon of finite numbers.")
    if not len(mark.points) and mark.kind not in ("tag", "brush"):
        raise DataError(f"{said} a {mark.kind} without points.")
    if strict and mark.kind == "polygon" and len(mark.points) < 3:
        raise DataError(f"{said} a polygon of {counted(len(mark.points), 'point')}; at least 3 were expected.")


def _contents(path: Path, root: Path, masks: bool, faults: list[Fault] | None) -> Contents:
    """Returns what `read_file` does, with points that may be anything."""
    text = _text(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        with _naming(path, "CSV"):
            return Contents("CSV", table.read(path, text), [])
    if suffix == ".xml":
        with _naming(path, "CVAT"):
            return Contents("CVAT", cvat.read(path, text, faults), cvat.classes(text))
    if suffix == ".json":
        content = _parsed(path, text)
        if coco.is_coco(content):
            with _naming(path, "COCO"):
                return Contents("COCO", coco.read(path, content, masks, faults), coco.classes(content))
        for form, of_form, read in _JSON:
            if of_form(content):
                with _naming(path, form):
                    return Contents(form, read(path, content, root, faults), [])
        if path.name == supervisely.META and supervisely.classes(content):
            return Contents("Supervisely", [], supervisely.classes(content))
    raise DataError(f"{path} is of no form of annotations that is read; expected {EXPECTED}.{_known(path, text)}")


def _folder(folder: Path) -> tuple[str, list[AnnotatedImage]]:
    files = files_read(folder)
    if not files:
        raise DataError(f"The folder {folder} (data.annotations) holds no LabelMe files (.json); expected {EXPECTED}.")
    images, form = [], ""
    for path in files:
        found = read_file(path, folder)
        if found.form not in ("LabelMe", "Supervisely") or form not in ("", found.form):
            raise DataError(
                f"{path} is no {form or 'LabelMe'} file, which a folder of annotations holds alone; name the file "
                "itself if it is of another form."
            )
        form, images = found.form, images + found.images
    return form, images


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} has more than {_LARGEST:,} bytes; give it in several files.")
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


_Reader: TypeAlias = Callable[[Path, Any, Path, list[Fault] | None], list[AnnotatedImage]]
_JSON: tuple[tuple[str, Callable[[Any], bool], _Reader], ...] = (
    ("LabelMe", labelme.is_labelme, labelme.read),
    (
        "Label Studio",
        label_studio.is_label_studio,
        lambda path, content, root, faults: label_studio.read(path, content, faults),
    ),
    ("Supervisely", supervisely.is_supervisely, supervisely.read),
    ("VIA", via3.is_via3, lambda path, content, root, faults: via3.read(path, content, faults)),
    ("VIA", via.is_via, lambda path, content, root, faults: via.read(path, content, faults)),
)


def _known(path: Path, text: str) -> str:
    """Returns what to do about a form that is known, and not read."""
    head = text[:4096]
    if '"type": "FeatureCollection"' in head:
        return " GeoJSON is not read: export COCO."
    return ""
