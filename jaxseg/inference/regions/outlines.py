"""The exact outline of a mask as polygons along the edges of its pixels, and its run lengths.

A pixel (y, x) is the square from (x, y) to (x + 1, y + 1), so a polygon covers the mask's pixels and nothing else.
"""

from typing import NamedTuple

import numpy as np

from jaxseg.inference.regions.components import components_of


class Polygon(NamedTuple):
    """A 4-connected part of a mask: its outer ring, and one for each hole.

    Attributes:
        outer: f64[m,2], (x, y) of the corners, the last not the first; its signed area (`signed_area`) is positive.
        holes: each f64[m,2], with negative signed area.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...]


def signed_area(ring: np.ndarray) -> float:
    """Half of Σ (x_i y_{i+1} - x_{i+1} y_i) over the corners f[m,2] of a ring."""
    x, y = np.asarray(ring, np.float64).T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1]) / 2


def polygons(mask: np.ndarray, offset: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """The polygons of a mask bool[h,w], one for each of its 4-connected parts, in the order of their first pixels.

    Every ring is simple: it passes no point twice. Parts that touch at a corner are polygons of their own, and holes
    that touch at a corner have a ring each, as GeoJSON and OGC's Simple Features want it.

    Args:
        mask: the pixels.
        offset: (top, left) of the mask in its image, added to the corners.
    """
    mask = np.asarray(mask, bool)
    parts, count = components_of(mask)
    corner = np.array([offset[1], offset[0]], np.float64)
    rings: list[list[np.ndarray]] = [[] for _ in range(count)]
    for ring, part in _rings(np.pad(parts, 1)):
        rings[part - 1].append(np.array(ring, np.float64) + corner)
    result = []
    for of_part in rings:
        areas = [signed_area(ring) for ring in of_part]
        [outer] = [ring for ring, area in zip(of_part, areas) if area > 0]
        result.append(Polygon(outer, tuple(ring for ring, area in zip(of_part, areas) if area < 0)))
    return result


def _rings(parts: np.ndarray) -> list[tuple[list[tuple[int, int]], int]]:
    """(corners, part) of each simple ring of i[h+2,w+2], padded with 0; the part lies to the right of its direction."""
    width = parts.shape[1] - 1  # of the grid of corners
    above, below = parts[:-1, 1:-1], parts[1:, 1:-1]
    left, right = parts[1:-1, :-1], parts[1:-1, 1:]
    starts, ends, owners = [], [], []
    # A step goes east along the top of a pixel, south along its right side, west along its bottom, north on its left.
    for inside, outside, first, second in (
        (below, above, (0, 0), (0, 1)),
        (left, right, (0, 0), (1, 0)),
        (above, below, (0, 1), (0, 0)),
        (right, left, (1, 0), (0, 0)),
    ):
        y, x = np.nonzero((inside > 0) & (inside != outside))
        starts.append((y + first[0]) * width + x + first[1])
        ends.append((y + second[0]) * width + x + second[1])
        owners.append(inside[y, x])
    start, end, owner = (np.concatenate(each) for each in (starts, ends, owners))
    # At a corner where two pixels of a part meet diagonally, two steps of the part leave; any pairing of them with the
    # two that arrive will do, since rings are cut where they pass a corner twice.
    leaving: dict[tuple[int, int], list[int]] = {}
    for step, key in enumerate(zip(start.tolist(), owner.tolist())):
        leaving.setdefault(key, []).append(step)
    target, of = end.tolist(), owner.tolist()
    used, rings, begin = bytearray(len(target)), [], start.tolist()
    for first_step in np.argsort(owner, kind="stable").tolist():
        if used[first_step]:
            continue
        part, step = of[first_step], first_step
        path: list[int] = [begin[first_step]]
        place = {path[0]: 0}
        while not used[step]:
            used[step] = 1
            corner = target[step]
            if corner in place:  # a loop is closed: cut it off
                loop = path[place[corner] :]
                for passed in loop[1:]:
                    del place[passed]
                del path[place[corner] + 1 :]
                rings.append((_corners(loop, width), part))
            else:
                place[corner] = len(path)
                path.append(corner)
            following = [s for s in leaving[corner, part] if not used[s]]
            if following:
                step = following[0]
    return rings


def _corners(loop: list[int], width: int) -> list[tuple[int, int]]:
    """The (x, y) of the points of a loop at which it turns."""
    points = [(at % width, at // width) for at in loop]
    return [
        here
        for before, here, after in zip([points[-1], *points[:-1]], points, [*points[1:], points[0]])
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])
    ]


def run_lengths(mask: np.ndarray, offset: tuple[int, int], size: tuple[int, int]) -> list[int]:
    """The run lengths of a mask in its image, column by column, zeros first, as COCO's uncompressed RLE has them.

    Args:
        mask: bool[h,w], the pixels.
        offset: (top, left) of the mask in its image.
        size: (height, width) of the image.
    """
    height, width = size
    y, x = np.nonzero(np.asarray(mask, bool).T)[::-1]  # column by column
    place = (x + offset[1]).astype(np.int64) * height + y + offset[0]
    if not len(place):
        return [height * width]
    gap = np.flatnonzero(np.diff(place) != 1)
    first, last = place[np.concatenate([[0], gap + 1])], place[np.concatenate([gap, [-1]])] + 1
    edges = np.stack([first, last], -1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return (counts if counts[-1] else counts[:-1]).tolist()
