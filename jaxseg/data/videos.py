"""Frames of one video in two splits, by names that differ in a number alone and by pictures that are alike."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np

from jaxseg.data.near_duplicates import Sketch, likeness
from jaxseg.errors import counted, some

T = TypeVar("T")
_FRAME = re.compile(r"^(.*?)(\d+)(\D*)$")
_FRAMES = 3
"""Frames that a video has at least; fewer names of one kind may be anything."""
_STEPS = 5
"""Frames as many steps apart are near; a step is the median from one number to the next, where it is larger."""
_LIKENESS = 0.5
"""What pictures of near frames correlate by at least, in the median; unrelated photos correlate by some 0.1."""
_MORE = 0.05
"""How much more than with other pictures: road scenes, or slices of a body, are alike without being one video."""
_COMPARED = 256
_OTHERS = 64
"""Images of a video, and images that are not of it, whose pictures are compared at most."""
_GROUP = r"^(.*?\D)\d+[^\d/]*$|^.*$"
"""A value of `data.group` that keeps such names together, and has a group for every other name: the name itself."""


class SharedVideo(NamedTuple):
    """What may be a video with frames in the first split and in another.

    Attributes:
        name: the names of its frames, with * for the number.
        split: the other split.
        frames: its images there that are near one of the first split.
        trained: its images in the first split.
        example: one of these images, and the one of the first split whose number is nearest.
    """

    name: str
    split: str
    frames: int
    trained: int
    example: tuple[str, str]


class _Place(NamedTuple):
    number: int
    name: str
    sketch: Sketch


def shared_videos(names: Mapping[str, Sequence[str]], sketches: Mapping[str, Sequence[Sketch]]) -> list[SharedVideo]:
    """Returns what may be videos that the first split shares with others, those with most frames there first.

    The frames of a video are images of one folder whose names differ in their last number alone. Names of one kind in
    the whole data set, 0001 to 0500, are a numbering that says nothing, and so are kinds of fewer than three images.
    Nor is a kind a video where it is a class or a year (pug_3, 2007_000032): most of the frames in the other split need
    a near number in the first, and such pairs pictures that are more alike than those of other kinds.

    Args:
        names: {split: names of its images}, the training split first.
        sketches: of these images.
    """
    kinds: dict[str, dict[str, list[_Place]]] = {}
    pictures: list[tuple[str, Sketch]] = []
    for split, of_split in names.items():
        for name, sketch in zip(of_split, sketches[split], strict=True):
            path = PurePosixPath(name)
            match = _FRAME.match(path.name)
            kind = name if match is None else (path.parent / f"{match[1]}*{match[3]}").as_posix()
            pictures.append((kind, sketch))
            if match is not None:
                place = _Place(int(match[2]), name, sketch)
                kinds.setdefault(kind, {}).setdefault(split, []).append(place)
    videos = {kind: each for kind, each in kinds.items() if sum(map(len, each.values())) >= _FRAMES}
    if len(videos) < 2:
        return []
    first = next(iter(names))
    shared = []
    for video, of_splits in videos.items():
        for split in of_splits:
            if split == first or first not in of_splits:
                continue
            pairs = _near(of_splits[first], of_splits[split])
            if 2 * len(pairs) >= len(of_splits[split]) and _alike(pairs, _others(pictures, video)):
                _, other, own = min((abs(a.number - b.number), a.name, b.name) for a, b in pairs)
                shared.append(SharedVideo(video, split, len(pairs), len(of_splits[first]), (other, own)))
    return sorted(shared, key=lambda each: (-each.frames, each.name, each.split))


def _near(trained: Sequence[_Place], other: Sequence[_Place]) -> list[tuple[_Place, _Place]]:
    """Returns (one of `other`, the one of `trained` with the nearest number) where these are near."""
    trained = sorted(trained, key=lambda each: (each.number, each.name))
    # Python's whole numbers: a time stamp may have more digits than i64 holds, and a float would round it.
    known, wanted = (np.array([each.number for each in places], object) for places in (trained, other))
    right = np.searchsorted(known, wanted).clip(1, max(len(known) - 1, 1))
    left = right - 1
    right = right.clip(0, len(known) - 1)
    nearest = np.where(np.abs(known[right] - wanted) < np.abs(wanted - known[left]), right, left)
    reach = _STEPS * max(_step(known), _step(wanted))
    pairs = [(each, trained[i]) for each, i in zip(other, nearest)]
    return [(one, two) for one, two in pairs if abs(one.number - two.number) <= reach]


def _step(numbers: np.ndarray) -> int:
    """Returns the median from one number to the next larger one; 1 for a single number."""
    gaps = sorted(np.diff(np.array(sorted(set(numbers)), object)))
    return gaps[len(gaps) // 2] if gaps else 1


def _others(pictures: Sequence[tuple[str, Sketch]], video: str) -> list[Sketch]:
    return _spread([sketch for kind, sketch in pictures if kind != video and not sketch.flat], _OTHERS)


def _alike(pairs: Sequence[tuple[_Place, _Place]], others: Sequence[Sketch]) -> bool:
    """Returns whether the pictures of pairs are alike, and more than they are like those of others."""
    clear = [(one.sketch, two.sketch) for one, two in pairs if not (one.sketch.flat or two.sketch.flat)]
    if not clear or not others:
        return False
    one, two = (np.stack([each.picture for each in side]) for side in zip(*_spread(clear, _COMPARED)))
    near = np.median(np.diagonal(likeness(one, two)))
    apart = np.median(likeness(one, np.stack([each.picture for each in others])))
    return bool(near >= max(_LIKENESS, apart + _MORE))


def _spread(items: Sequence[T], most: int) -> list[T]:
    return [items[i] for i in np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)]


def about_videos(names: Mapping[str, Sequence[str]], sketches: Mapping[str, Sequence[Sketch]]) -> list[str]:
    """Returns a sentence for each split that may share videos with the first, that of the training.

    Args: as `shared_videos`.
    """
    sentences, shared, first = [], shared_videos(names, sketches), next(iter(names), "")
    for split in dict.fromkeys(each.split for each in shared):
        own = [each for each in shared if each.split == split]
        other, trained = own[0].example
        sentences.append(
            f"{counted(sum(each.frames for each in own), 'image')} of {split} and images of {first} have names that "
            f"differ in a number alone, such as {other} and {trained}, and look alike: they may be frames of "
            f"{counted(len(own), 'video')} ({some([each.name for each in own], 3)}). If they are, what {split} scores "
            "is too good for other videos; keep each video in one split. Where data.val_fraction divides, "
            f"data.group='{_GROUP}' does."
        )
    return sentences
