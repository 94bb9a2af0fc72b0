"""The images of a folder that are the frames of a video, by the numbers in their names."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from jaxseg.data.pairs import Pair
from jaxseg.data.weak.marks import AnnotatedImage, Annotations
from jaxseg.errors import DataError, counted, some

_NUMBER = re.compile(r"\d+(?=\D*$)")  # the last in a name
_WRITE = "ffmpeg -i VIDEO -start_number 0 frame_%06d.png writes all frames with their numbers"


def images_of_frames(annotations: Annotations, pairs: Sequence[Pair], others: Sequence[str] = ()) -> dict[str, Pair]:
    """Returns {name of a frame in the annotations: the image with its number}, without those that have no image.

    The number is the last in the name of an image. Where a folder has the name of the video, it is looked for in there.

    Args:
        annotations: of which some images are frames.
        pairs: the images.
        others: the names of images that are not asked for, such as those of another split: their numbers tell too
            whether the frames are counted from 0.

    Raises:
        DataError: if two images have the number of a frame, or the numbers are as if they were not counted from the
            first frame of the video; see `_shift`.
    """
    videos: dict[str, list[AnnotatedImage]] = {}
    for image in annotations.images:
        if image.frame is not None:
            videos.setdefault(PurePosixPath(image.name).parent.name, []).append(image)
    result: dict[str, Pair] = {}
    for video, frames in videos.items():
        inside = [pair for pair in pairs if video in PurePosixPath(pair.name).parts[:-1]]
        by_number = _numbered(annotations, video, frames, inside or pairs)
        beside = [name for name in others if not inside or video in PurePosixPath(name).parts[:-1]]
        _require_counted_from_0(annotations, frames, [pair.name for pair in inside or pairs] + beside)
        result |= {image.name: by_number[image.frame] for image in frames if image.frame in by_number}
    return result


def without_images(annotations: Annotations, strange: Sequence[str]) -> tuple[list[str], str]:
    """Returns the names of `strange` that are no frames, and a sentence on those that are; "" if there are none."""
    numbers = {image.name: image.frame for image in annotations.images if image.frame is not None}
    missing = [numbers[name] for name in strange if name in numbers]
    others = [name for name in strange if name not in numbers]
    if not missing:
        return others, ""
    verb = "has" if len(missing) == 1 else "have"
    listed = some(list(map(str, missing)), 5)
    return others, f"{counted(len(missing), 'frame')} of {len(numbers)} {verb} no image with the number ({listed})."


def no_frames(annotations: Annotations, pairs: Sequence[Pair]) -> DataError:
    """Returns the error for a video of which no frame is among the images."""
    numbers = sorted(image.frame for image in annotations.images if image.frame is not None)
    folder = pairs[0].image.parent if pairs else "the folder"
    return DataError(
        f"{annotations.path} annotates the frames {numbers[0]} to {numbers[-1]} of a video, and none of the "
        f"{counted(len(pairs), 'image')} of {folder} has such a number in its name "
        f"({some([pair.image.name for pair in pairs], 3)}); {_WRITE}."
    )


def _numbered(
    annotations: Annotations, video: str, frames: Sequence[AnnotatedImage], pairs: Sequence[Pair]
) -> dict[int, Pair]:
    wanted = {image.frame for image in frames if image.frame is not None}
    found: dict[int, Pair] = {}
    for pair in pairs:
        digits = _NUMBER.search(PurePosixPath(pair.name).name)
        if digits is None:
            continue
        number = int(digits[0])
        before = found.setdefault(number, pair)
        if before is not pair and number in wanted:
            raise DataError(
                f"{annotations.path} annotates the frame {number} of a video, but {before.image} and {pair.image} both "
                f"have this number; put the frames of each video into a folder with its name, here {video!r}."
            )
    return found


def _require_counted_from_0(annotations: Annotations, frames: Sequence[AnnotatedImage], names: Sequence[str]) -> None:
    """Raises DataError if the numbers of images do not seem to be those of the frames."""
    wanted = {image.frame for image in frames if image.frame is not None}
    first, last = frames[0].task or (min(wanted), max(wanted))
    kinds: dict[str, set[int]] = {}  # of names that differ in the number alone
    for name in (PurePosixPath(name).name for name in names):
        digits = _NUMBER.search(name)
        if digits is not None:
            kinds.setdefault(f"{name[: digits.start()]}*{name[digits.end() :]}", set()).add(int(digits[0]))
    for kind, numbers in kinds.items():
        shift = _shift(first, last, frames[0].task is not None, min(numbers), max(numbers))
        if shift and numbers & wanted:
            before = "the frame before" if shift == 1 else f"the frame {shift} before"
            raise DataError(
                f"{annotations.path} annotates the frames {first} to {last} of a video, but its images {kind} are "
                f"numbered from {min(numbers)} to {max(numbers)}, as if each were {before}; {_WRITE}. If the numbers "
                f"are right, put the image of the frame {min(numbers) - shift} beside them, and images of "
                "other videos into folders of their own."
            )


def _shift(first: int, last: int, whole: bool, low: int, high: int) -> int:
    """Returns by how much the numbers of images, from `low` to `high`, seem to be too large; 0: they may be right.

    A tool that writes the frames of a video counts from 1 where it is not told to count from 0: then the numbers begin
    at 1 or at one after the first frame, or they go beyond the last.

    Args:
        first, last: the frames, of which the first is 0 for the most.
        whole: whether they are those of the task, and not those with a shape alone.
        low, high: the smallest and the largest number.
    """
    if whole and low > first and (low == first + 1 or high > last):
        return low - first
    if low == 1 and (first == 0 or high > last):
        return 1
    return int(low == first + 1 and high == last + 1)
