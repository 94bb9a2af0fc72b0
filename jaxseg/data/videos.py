"""Frames of one video in two splits, by their names, which differ in a number alone."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from jaxseg.data.base import Source
from jaxseg.errors import counted, some

_FRAME = re.compile(r"^(.*?)(\d+)(\D*)$")
_FRAMES = 3
"""Frames that a video has at least; fewer names of one kind may be anything."""


class SharedVideo(NamedTuple):
    """A video with frames in the first split and in another.

    Attributes:
        name: the names of its frames, with * for the number.
        split: the other split.
        frames: its images there.
        trained: its images in the first split.
        example: one of these images, and the one of the first split whose number is nearest.
    """

    name: str
    split: str
    frames: int
    trained: int
    example: tuple[str, str]


def shared_videos(names: Mapping[str, Sequence[str]]) -> list[SharedVideo]:
    """Returns the videos that the first split shares with others, those with most frames there first.

    The frames of a video are the images of one folder whose names differ in their last number alone. Names of one kind
    in the whole data set, 0001 to 0500, are a numbering that says nothing, and so are kinds of fewer than three images:
    then, and where the kinds have one image each, there is no video.

    Args:
        names: {split: names of its images}, the training split first.
    """
    found: dict[str, dict[str, list[tuple[int, str]]]] = {}
    for split, of_split in names.items():
        for name in of_split:
            path = PurePosixPath(name)
            match = _FRAME.match(path.name)
            if match is not None:
                video = (path.parent / f"{match[1]}*{match[3]}").as_posix()
                found.setdefault(video, {}).setdefault(split, []).append((int(match[2]), name))
    videos = {video: each for video, each in found.items() if sum(map(len, each.values())) >= _FRAMES}
    if len(videos) < 2:
        return []
    first = next(iter(names))
    shared = []
    for video, of_splits in videos.items():
        if first not in of_splits:
            continue
        trained = of_splits[first]
        for split in (split for split in of_splits if split != first):
            pairs = [(abs(n - m), other, own) for n, other in of_splits[split] for m, own in trained]
            _, other, own = min(pairs)
            shared.append(SharedVideo(video, split, len(of_splits[split]), len(trained), (other, own)))
    return sorted(shared, key=lambda each: (-each.frames, each.name, each.split))


def about_videos(splits: Mapping[str, Source]) -> list[str]:
    """Returns a sentence for each split that likely shares videos with the first, that of the training."""
    names = {split: [source.name(i) for i in range(len(source))] for split, source in splits.items()}
    sentences, shared, first = [], shared_videos(names), next(iter(names), "")
    for split in dict.fromkeys(each.split for each in shared):
        own = [each for each in shared if each.split == split]
        other, trained = own[0].example
        sentences.append(
            f"{counted(sum(each.frames for each in own), 'image')} of {split} and images of {first} have names that "
            f"differ in a number alone, such as {other} and {trained}: they are likely frames of "
            f"{counted(len(own), 'video')} ({some([each.name for each in own], 3)}). What {split} scores is then too "
            "good for other videos. Keep each video in one split; where data.val_fraction divides, "
            r"data.group='^(.*?)\d+\D*$' does."
        )
    return sentences
