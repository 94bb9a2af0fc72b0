"""Connected components of the classes of a label map, and label maps without specks and holes.

Two pixels of a class are connected if they share an edge (`connectivity` 4), or an edge or a corner (8). The holes of
8-connected components are 4-connected and the other way round. IGNORE is no class: its pixels stay as they are, belong
to no component, and lie in no hole.
"""

import heapq
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from scipy import ndimage

from jaxseg.errors import ArgumentError, nearest
from jaxseg.types import IGNORE, ignore_in

Connectivity: TypeAlias = Literal[4, 8]

_CROSS = ndimage.generate_binary_structure(2, 1)
_SQUARE = ndimage.generate_binary_structure(2, 2)


def structure(connectivity: int) -> np.ndarray:
    """Returns the neighbourhood bool[3,3] of 4- or 8-connected pixels.

    Raises:
        ArgumentError: for another number.
    """
    if connectivity not in (4, 8):
        raise ArgumentError(f"connectivity must be 4 (edges) or 8 (edges and corners), got {connectivity!r}.")
    return _CROSS if connectivity == 4 else _SQUARE


def check_classes(classes: np.ndarray) -> np.ndarray:
    """Returns a label map as u8[h,w], class indices and IGNORE; a map of 16 bits, whose ignored label is 65535, stays.

    Raises:
        ArgumentError: if it is no such map.
    """
    classes = np.asarray(classes)
    if classes.ndim != 2 or classes.dtype.kind not in "iub":
        raise ArgumentError(
            f"A map of classes holds whole numbers [h,w], got {classes.dtype} of shape {list(classes.shape)}."
        )
    if classes.dtype == np.uint16:
        return classes
    if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) <= IGNORE:
        raise ArgumentError(
            f"A map of classes holds 0 to {IGNORE - 1}, and {IGNORE} for ignored pixels; got {classes.min()} to "
            f"{classes.max()}. A map of more classes is of 16 bits (uint16)."
        )
    return classes.astype(np.uint8)


def find_components(
    classes: np.ndarray, only: Collection[int] | None = None, connectivity: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of every class, i[h,w] -> (i32[h,w], u8|u16[n]): their numbers and their classes.

    A pixel holds the number of its component, from 1 to n; 0 where there is none. The class of component i is at i - 1.
    Components are numbered in the order of their classes, and inside a class in that of their first pixels, row by row.

    Args:
        classes: class indices, and IGNORE.
        only: the classes to look at; None: every class.
        connectivity: 4 or 8.

    Raises:
        ArgumentError: if `classes` is no map of classes, or `connectivity` neither 4 nor 8.
    """
    classes, near = check_classes(classes), structure(connectivity)
    labels, owners = np.zeros(classes.shape, np.int32), [np.zeros(0, classes.dtype)]
    count = 0
    for c in present(classes, only):
        box = ndimage.find_objects((classes == c).view(np.uint8))[0]
        here = classes[box] == c
        numbers, found = components_of(here, near)
        numbers[here] += count
        labels[box] += numbers
        owners.append(np.full(found, c, classes.dtype))
        count += found
    return labels, np.concatenate(owners)


def components_of(mask: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """The connected components of a mask, bool[h,w] -> (i32[h,w], n), numbered from 1 in the order of first pixels.

    Args:
        mask: the pixels.
        near: the neighbourhood bool[3,3]; None: four neighbours.
    """
    numbers = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, near, output=numbers)
    return numbers, int(numbers.max(initial=0))


def present(classes: np.ndarray, only: Collection[int] | None = None) -> list[int]:
    """Returns the classes that occur in a label map, IGNORE left out, and those outside `only` too."""
    return [int(c) for c in np.unique(classes) if c != ignore_in(classes) and (only is None or c in only)]


def choose_classes(names: Sequence[str], chosen: Iterable[str] | None = None) -> tuple[int, ...]:
    """Returns the indices of the classes that regions are wanted of: those named, or all but one named "background".

    Raises:
        ArgumentError: for a name that is no class; the message has the nearest one.
    """
    if chosen is None:
        return tuple(i for i, name in enumerate(names) if name.strip().lower() != "background")
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise ArgumentError(f"{unknown[0]!r} is no class of the run.{nearest(unknown[0], names)}")
    return tuple(sorted({list(names).index(name) for name in chosen}))


def fill_holes(
    classes: np.ndarray, of: Collection[int] | None = None, connectivity: int = 8, max_area: int | None = None
) -> np.ndarray:
    """Gives the pixels in the holes of a class that class, i[h,w] -> u8|u16[h,w].

    A hole is a connected part of what is not the class, which a component of the class encloses: it does not reach the
    border of the image. It holds whatever lies inside, objects of further classes too; `max_area` keeps large ones.
    Holes are filled class by class in ascending order, so that of two classes inside one another the outer one wins.

    Args:
        classes: class indices, and IGNORE.
        of: the classes whose holes are filled; None: all. Leave the background out: objects are its holes.
        connectivity: that of the components, 4 or 8.
        max_area: the most pixels of a hole that is filled; None: any number.

    Raises:
        ArgumentError: if an argument is invalid.
    """
    classes = check_classes(classes)
    structure(connectivity)
    near = _CROSS if connectivity == 8 else _SQUARE
    if max_area is not None and max_area < 0:
        raise ArgumentError(f"max_area must be a number of pixels of at least 0, got {max_area}.")
    filled = classes.copy()
    for c in present(classes, of):
        inside = filled == c
        if not inside.any():
            continue
        box = ndimage.find_objects(inside.view(np.uint8))[0]
        rest = np.pad(~inside[box], 1, constant_values=True)
        numbers, found = components_of(rest, near)
        area = np.bincount(numbers.ravel(), minlength=found + 1)
        hole = area <= (rest.size if max_area is None else max_area)
        hole[0] = False
        hole[numbers[0, 0]] = False  # what lies around the class
        here = hole[numbers][1:-1, 1:-1] & (filled[box] != ignore_in(classes))
        filled[box][here] = c
    return filled


def remove_small(
    classes: np.ndarray,
    min_area: int,
    to: int | None = None,
    connectivity: int = 8,
    only: Collection[int] | None = None,
) -> np.ndarray:
    """A label map without components of fewer than `min_area` pixels, i[h,w] -> u8|u16[h,w].

    Without `to` a small component takes the class of the neighbour with which it shares the longest border, counted in
    edges of pixels (of two such neighbours, the larger one). The smallest component comes first, and what it joins
    grows by it, so that specks beside each other become one component rather than vanish one by one. One without a
    neighbour stays.

    Args:
        classes: class indices, and IGNORE.
        min_area: the least pixels of a component that stays.
        to: the class that small components of the other classes take; None: that of a neighbour.
        connectivity: 4 or 8.
        only: the classes whose small components are removed; None: every class.

    Raises:
        ArgumentError: if an argument is invalid.
    """
    classes = check_classes(classes)
    if min_area < 0:
        raise ArgumentError(f"min_area must be a number of pixels of at least 0, got {min_area}.")
    ignored = ignore_in(classes)
    if to is not None and not 0 <= to < ignored:
        raise ArgumentError(f"to must be a class from 0 to {ignored - 1}, got {to}.")
    labels, owners = find_components(classes, connectivity=connectivity)
    area = np.bincount(labels.ravel(), minlength=len(owners) + 1)
    removable = np.isin(owners, list(only)) if only is not None else np.ones(len(owners), bool)
    small = (area[1:] < min_area) & removable
    if not small.any():
        return classes
    new = owners.copy()
    if to is not None:
        new[small] = to
    else:
        new = _merged(labels, owners, area[1:], min_area, removable, connectivity)
    return np.where(labels == 0, classes, np.concatenate([np.array([ignored], classes.dtype), new])[labels])


def borders(labels: np.ndarray, connectivity: int = 4) -> dict[int, dict[int, int]]:
    """The neighbours of each region of i32[h,w], and how many edges of pixels it shares with each; 0 is no region.

    With `connectivity` 8, regions that touch at corners alone are neighbours with 0 edges.
    """
    neighbours: dict[int, dict[int, int]] = {}
    total = int(labels.max(initial=0)) + 1
    sides = [(labels[:, :-1], labels[:, 1:], 1), (labels[:-1], labels[1:], 1)]
    if connectivity == 8:
        sides += [(labels[:-1, :-1], labels[1:, 1:], 0), (labels[:-1, 1:], labels[1:, :-1], 0)]
    for one, other, length in sides:
        meet = (one != other) & (one > 0) & (other > 0)
        a, b = one[meet].astype(np.int64), other[meet].astype(np.int64)
        pairs, counts = np.unique(np.minimum(a, b) * total + np.maximum(a, b), return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist()):
            for x, y in (divmod(pair, total), divmod(pair, total)[::-1]):
                edges = neighbours.setdefault(x, {})
                edges[y] = (edges[y] if y in edges else 0) + length * count
    return neighbours


def _merged(
    labels: np.ndarray, owners: np.ndarray, area: np.ndarray, min_area: int, removable: np.ndarray, connectivity: int
) -> np.ndarray:
    """Returns the class [n] of each component after the small ones have joined their neighbours, smallest first."""
    neighbours, areas = borders(labels, connectivity), [0, *area.tolist()]
    parent = list(range(len(areas)))
    wanted = [False, *removable.tolist()]
    queue = [(a, i) for i, a in enumerate(areas) if i and a < min_area and wanted[i]]
    heapq.heapify(queue)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(child: int, into: int) -> None:
        parent[child] = into
        areas[into] += areas[child]
        for other, length in neighbours.pop(child).items():
            del neighbours[other][child]
            if other != into:
                for x, y in ((into, other), (other, into)):
                    edges = neighbours.setdefault(x, {})
                    edges[y] = (edges[y] if y in edges else 0) + length

    classes = [-1, *owners.tolist()]
    while queue:
        size, i = heapq.heappop(queue)
        if parent[i] != i or areas[i] != size:
            continue  # it has joined another, or has grown since and is in the queue again
        if i not in neighbours or not neighbours[i]:
            continue  # there is nothing to join
        chosen = max(neighbours[i], key=lambda j: (neighbours[i][j], areas[j], -j))
        if neighbours[i][chosen] == 0 and connectivity == 8:
            continue  # IGNORE surrounds it, but for corners
        # Components of the chosen class that touch this one are now connected through it.
        same = [j for j in neighbours[i] if classes[j] == classes[chosen] and j != chosen]
        join(i, chosen)
        for j in same:
            join(j, chosen)
        if areas[chosen] < min_area and wanted[chosen]:
            heapq.heappush(queue, (areas[chosen], chosen))
    return np.array([classes[root(i)] for i in range(1, len(areas))], owners.dtype)
