"""What is annotated in an image: points, lines, areas, boxes and tags, each of a class by name."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jaxseg.data.weak.runs import Runs
from jaxseg.errors import DataError, counted, nearest, some

Kind = Literal["tag", "point", "line", "polygon", "brush", "box"]
_WORDS = {"tag": "tag", "point": "point", "line": "line", "polygon": "polygon", "brush": "brush", "box": "box"}
_CORNERS = 64  # of an ellipse
_BEYOND = 0.02  # of the side of an image: as far may a mark reach beyond it, which hands and rounding do


class Mark(NamedTuple):
    """One annotation.

    Attributes:
        kind: "tag": the image has this class somewhere. "point": each of the points. "line": a scribble along the
            points. "polygon": the pixels inside. "brush": the pixels of `area`. "box": the pixels inside may be of the
            class, and the object reaches to every side.
        name: the class.
        points: f64[n,2], (x, y) in pixels; the pixel (row, column) is the square from (column, row) to
            (column + 1, row + 1). Of a box, its corners.
        area: bool[h,w] of a brush, or its runs; else None.
        holes: of a polygon, f64[n,2] each: the pixels inside them are not of the object.
        layer: where the tool says which of two marks lies on the other, the upper one has the larger number.
        whole: the area in pixels of the object that a polygon is a part of; 0: its own.
    """

    kind: Kind
    name: str
    points: np.ndarray
    area: np.ndarray | Runs | None = None
    holes: tuple[np.ndarray, ...] = ()
    layer: int = 0
    whole: float = 0.0

    def brushed(self) -> np.ndarray:
        """Returns the pixels bool[h,w] of a brush."""
        assert self.area is not None
        return self.area.pixels() if isinstance(self.area, Runs) else self.area


class AnnotatedImage(NamedTuple):
    """What a file says of one image.

    Attributes:
        name: the image's file as the annotations name it.
        size: the (height, width) that they give, or None.
        marks: what is annotated.
        split: the part of the data set that they give it to, or "".
        seen: whether somebody has annotated it; else no marks mean nothing.
        frame: of a video, its number; else None.
        task: of a frame, the first and the last that the task has, where the file says them; else None.
    """

    name: str
    size: tuple[int, int] | None
    marks: tuple[Mark, ...]
    split: str = ""
    seen: bool = True
    frame: int | None = None
    task: tuple[int, int] | None = None


class Annotations(NamedTuple):
    """path: the file or folder. form: what it was read as, in words. images: those that it names, each once."""

    path: Path
    form: str
    images: tuple[AnnotatedImage, ...]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Returns {kind: (marks, images that have one)} of the kinds that occur."""
        found: dict[str, list[int]] = {}
        for image in self.images:
            for mark in image.marks:
                found.setdefault(mark.kind, [0, 0])[0] += 1
            for kind in {mark.kind for mark in image.marks}:
                found[kind][1] += 1
        return {kind: (found[kind][0], found[kind][1]) for kind in _WORDS if kind in found}


def no_points() -> np.ndarray:
    """Returns the points of a tag."""
    return np.zeros((0, 2))


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Returns the corners f64[4,2] of a box along the axes."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def ellipse(centre: Sequence[float] | np.ndarray, radii: Sequence[float], degrees: float = 0.0) -> np.ndarray:
    """Returns the outline f64[64,2] of an ellipse about (x, y), of two radii (x, y), turned as by `turned`."""
    angle = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
    points = np.asarray(centre, np.float64) + np.stack([np.cos(angle), np.sin(angle)], 1) * np.asarray(
        radii, np.float64
    )
    return turned(points, degrees, centre) if degrees else points


def turned(points: np.ndarray, degrees: float, centre: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns points f64[n,2] turned clockwise on the screen (x to the right, y down) about a centre (x, y)."""
    angle = np.deg2rad(degrees)
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return (points - np.asarray(centre)) @ turn + np.asarray(centre)


def merged(images: Iterable[AnnotatedImage]) -> tuple[AnnotatedImage, ...]:
    """Returns the images with all marks of one name together, in the order of their first."""
    found: dict[str, AnnotatedImage] = {}
    for image in images:
        before = found[image.name] if image.name in found else image._replace(marks=())
        found[image.name] = before._replace(
            size=before.size or image.size,
            marks=(*before.marks, *image.marks),
            split=before.split or image.split,
            seen=before.seen or image.seen,
        )
    return tuple(found.values())


def class_indices(annotations: Annotations, classes: Sequence[str]) -> dict[str, int]:
    """Returns {name in the annotations: index of the class}; a whole number that is no name is an index.

    Raises:
        DataError: for a name that is no class.
    """
    known = {name: index for index, name in enumerate(classes)}
    numbers = {str(index): index for index in range(len(classes))}
    result: dict[str, int] = {}
    for image in annotations.images:
        for mark in image.marks:
            if mark.name in known:
                result[mark.name] = known[mark.name]
            elif mark.name in numbers:
                result[mark.name] = numbers[mark.name]
            else:
                raise DataError(
                    f"{annotations.path} gives {image.name} a {_WORDS[mark.kind]} of the class {mark.name!r}, which "
                    f"is none of the {counted(len(classes), 'class')} ({some(classes)}).{_hint(mark.name, classes)}"
                )
    return result


def _hint(name: str, classes: Sequence[str]) -> str:
    if all(known == f"class {i}" for i, known in enumerate(classes)):
        return " Name the classes in classes.json or data.classes, in the order of their values in the masks."
    return nearest(name, classes, listing=False)


def check_marks(annotations: Annotations, image: AnnotatedImage, size: tuple[int, int]) -> None:
    """Checks the marks of an image against its (height, width).

    Raises:
        DataError: as `check_size` and `check_mark`.
    """
    check_size(annotations, image, size)
    for mark in image.marks:
        check_mark(annotations, image, mark, size)


def check_size(annotations: Annotations, image: AnnotatedImage, size: tuple[int, int]) -> None:
    """Raises DataError if an image of (height, width) was annotated at another size."""
    height, width = size
    if image.size is not None and image.size != (height, width):
        raise DataError(
            f"{annotations.path} says that {image.name} is {image.size[0]} x {image.size[1]} (height x width), but "
            f"the image is {height} x {width}; give the images that were annotated, at the same size."
        )


def check_mark(annotations: Annotations, image: AnnotatedImage, mark: Mark, size: tuple[int, int]) -> None:
    """Checks a mark against the (height, width) of its image.

    Raises:
        DataError: if it lies outside the image or has numbers that are not finite, a brush has another size, or a box
            has no area.
    """
    height, width = size
    limits = np.array([width, height], np.float64)
    slack = 1 + _BEYOND * limits
    if mark.area is not None and mark.area.shape != (height, width):
        raise DataError(
            f"{annotations.path} gives {image.name} a brush of {mark.area.shape[0]} x {mark.area.shape[1]} (height "
            f"x width), but the image is {height} x {width}."
        )
    if not len(mark.points):
        return
    low, high = mark.points.min(0), mark.points.max(0)
    said = f"{annotations.path} gives {image.name} a {_WORDS[mark.kind]} of {mark.name!r}"
    at = f"from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g})" if len(mark.points) > 1 else _show(low)
    if not np.isfinite(mark.points).all():
        raise DataError(f"{said} {at}; finite numbers were expected.")
    if (low < -slack).any() or (high > limits + slack).any() or (high < 0).any() or (low > limits).any():
        raise DataError(
            f"{said} {at} (x, y), which lies outside the image of {height} x {width} pixels (height x width)."
        )
    if mark.kind == "box" and not (high > low).all():
        raise DataError(f"{said} {at} (x, y), which has no area.")


def _show(point: np.ndarray) -> str:
    return f"at ({point[0]:g}, {point[1]:g})"
