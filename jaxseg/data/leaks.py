"""Images that are nearly the same in two splits: their score says less about other images than it seems to."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxseg.data.base import Source
from jaxseg.data.folder import FolderSource
from jaxseg.data.near_duplicates import Sketch, find_links, groups_of

Place = tuple[str, int]
"""The name of a split, and the index of an example in it."""


class Leaks(NamedTuple):
    """Near-duplicates of some splits.

    Attributes:
        within: {split: how many of its images are nearly the same as one of it before them}.
        between: for each image of another split with near-duplicates in the first: itself, and one of these, which may
            be alike through others.
        alike: the same within the first split: each of `within` and one before it.
    """

    within: dict[str, int]
    between: list[tuple[Place, Place]]
    alike: list[tuple[Place, Place]]


def find_leaks(sketches: Mapping[str, Sequence[Sketch]]) -> Leaks:
    """Returns the near-duplicates of some splits, the training split first; see `near_duplicates.sketch`."""
    places = [(split, i) for split, of_split in sketches.items() for i in range(len(of_split))]
    links = find_links([each for of_split in sketches.values() for each in of_split])
    direct = {b: a for a, b in reversed(links)} | {a: b for a, b in reversed(links)}
    first = next(iter(sketches), "")
    within = dict.fromkeys(sketches, 0)
    between, alike = [], []
    for group in groups_of(links):
        for split in within:
            within[split] += max(0, sum(places[i][0] == split for i in group) - 1)
        trained = [i for i in group if places[i][0] == first]
        for i in trained[1:]:
            near = direct[i] if direct[i] < i and places[direct[i]][0] == first else trained[0]
            alike.append((places[i], places[near]))
        for i in group:
            if trained and places[i][0] != first:
                near = direct[i] if places[direct[i]][0] == first else trained[0]
                between.append((places[i], places[near]))
    return Leaks(within, sorted(between), sorted(alike))


def about_leaks(leaks: Leaks, name: Callable[[Place], str]) -> list[str]:
    """Returns a sentence for each image that is nearly the same as a training image, first those of other splits.

    Args:
        leaks: of the splits.
        name: the file of an image, or another name.
    """
    return [
        f"{name(one)} ({one[0]}) and {name(other)} ({other[0]}) are nearly the same picture: what {one[0]} scores is "
        "then too good for other images. Keep such images in one split."
        for one, other in leaks.between
    ] + [
        f"{name(one)} and {name(other)} are nearly the same picture, both in {one[0]}: there is less to learn from "
        "than the number of images says."
        for one, other in leaks.alike
    ]


def name_of(source: Source, index: int) -> str:
    """Returns the file of an image, or its name where it has none."""
    return str(source.pairs[index].image) if isinstance(source, FolderSource) else source.name(index)
