"""Makes the marks of few labels from full masks, as a careful annotator would draw them: to measure what they lose.

SciPy is imported by what calls it: every training imports this module, and few use it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import numpy as np

from jaxseg.data.weak.marks import Kind, Mark, box, no_points
from jaxseg.errors import ConfigError
from jaxseg.types import IGNORE

Weaker = Literal["scribbles", "points", "boxes", "tags"]
KIND: dict[Weaker, Kind] = {"scribbles": "line", "points": "point", "boxes": "box", "tags": "tag"}

_SMALL = 0.001  # a part of an object below this share of the image gets no mark of its own, unless it is the largest
_STEP = 3  # pixels between the points of a scribble
_NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))


def marks_of(label: np.ndarray, kind: Weaker, classes: Sequence[str], rng: np.random.Generator) -> tuple[Mark, ...]:
    """Returns the marks that an annotator would make of an image with full labels.

    - "points": one in each object, at random among the pixels that are at least half as far from its border as the
      innermost; and as many in the background as there are objects, at least one, at random among its pixels that are
      at least two pixels from the objects.
    - "scribbles": one in each object and each part of the background, along the longest path of its skeleton, without
      5 to 25 % of it at either end.
    - "boxes": the smallest box around each object; none around the background.
    - "tags": the classes that the image has, without the background.

    An object is a part of one class that is connected through sides and corners, of at least a thousandth of the image
    or the largest of its class.

    Args:
        label: u8[h,w], class indices, of which 0 is the background, or IGNORE.
        kind: what to make.
        classes: the name of each class.
        rng: the source of what is random.

    Raises:
        ConfigError: for scribbles, if scikit-image is not installed.
    """
    found = [int(c) for c in np.unique(label) if c != IGNORE]
    if kind == "tags":
        return tuple(Mark("tag", classes[c], no_points()) for c in found if c)
    marks, objects = [], 0
    for c in [c for c in found if c]:
        for corner, part in _parts(label == c):
            objects += 1
            marks.append(_mark(kind, classes[c], part, corner, rng))
    if 0 in found and kind == "points":
        marks += [_point(classes[0], label == 0, np.zeros(2), rng, most=2.0) for _ in range(max(1, objects))]
    elif 0 in found and kind == "scribbles":
        marks += [_mark(kind, classes[0], part, corner, rng) for corner, part in _parts(label == 0)]
    return tuple(marks)


def _parts(mask: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (the (x, y) of its corner, bool[y,x]) of each connected part that is not small."""
    from scipy import ndimage

    numbers, count = cast(tuple[np.ndarray, int], ndimage.label(mask, np.ones((3, 3))))
    areas = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    for number, place in enumerate(ndimage.find_objects(numbers), 1):
        if areas[number - 1] >= min(areas.max(), max(2, _SMALL * mask.size)):
            yield np.array([place[1].start, place[0].start], np.float64), numbers[place] == number


def _mark(kind: Weaker, name: str, part: np.ndarray, corner: np.ndarray, rng: np.random.Generator) -> Mark:
    if kind == "boxes":
        return Mark("box", name, box(*corner, *(corner + part.shape[::-1])))
    if kind == "points":
        return _point(name, part, corner, rng)
    return Mark("line", name, corner + _scribble(part, rng))


def _point(name: str, part: np.ndarray, corner: np.ndarray, rng: np.random.Generator, most: float = np.inf) -> Mark:
    """Returns a point in bool[h,w], half as far from the border as the innermost pixel or farther, or `most` pixels."""
    from scipy import ndimage

    depth = cast(np.ndarray, ndimage.distance_transform_edt(np.pad(part, 1)))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= max(1.0, min(most, depth.max() / 2)))
    chosen = int(rng.integers(len(rows)))
    return Mark("point", name, corner + np.array([[columns[chosen], rows[chosen]]]) + 0.5)


def _scribble(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns points f64[n,2] of (x, y) along the longest path of the skeleton of bool[h,w], without its ends."""
    rows, columns = np.nonzero(_skimage().skeletonize(np.pad(part, 1))[1:-1, 1:-1])
    if not len(rows):  # it may vanish for two pixels
        rows, columns = (each[:1] for each in np.nonzero(part))
    path = _longest_path(rows, columns, part.shape)
    low, high = (rng.uniform(0.05, 0.25, 2) * len(path)).astype(int)
    path = path[low : len(path) - high]
    chosen = np.unique(np.append(np.arange(0, len(path), _STEP), len(path) - 1))
    return np.stack([columns[path][chosen], rows[path][chosen]], 1) + 0.5


def _longest_path(rows: np.ndarray, columns: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Returns the pixels, as positions in `rows`, of a longest shortest path: from a far end to the end farthest of it.

    It is exact for a skeleton without loops, and long for any.
    """
    from scipy import sparse
    from scipy.sparse import csgraph

    at = np.full((size[0] + 2, size[1] + 2), -1)
    at[rows + 1, columns + 1] = np.arange(len(rows))
    first, second, length = [], [], []
    for dy, dx in _NEIGHBOURS:
        other = at[rows + 1 + dy, columns + 1 + dx]
        first.append(np.flatnonzero(other >= 0))
        second.append(other[other >= 0])
        length.append(np.full(len(first[-1]), np.hypot(dy, dx)))
    links = (np.concatenate(length), (np.concatenate(first), np.concatenate(second)))
    graph = sparse.coo_array(links, shape=(len(rows), len(rows))).tocsr()
    far = csgraph.dijkstra(graph, directed=False, indices=0)
    start = int(np.argmax(np.where(np.isfinite(far), far, -1)))
    far, before = csgraph.dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    path = [int(np.argmax(np.where(np.isfinite(far), far, -1)))]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return np.array(path)


def _skimage() -> Any:
    try:
        from skimage import morphology
    except ImportError as error:
        raise ConfigError(
            "Scribbles from full masks need scikit-image: pip install -e '.[regions]' installs it."
        ) from error
    return morphology
