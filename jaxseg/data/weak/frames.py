"""The images of a folder that are the frames of a video, by the numbers in their names."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from jaxseg.data.pairs import Pair
from jaxseg.data.weak.marks import AnnotatedImage, Annotations
from jaxseg.errors import DataError, counted, some

_NUMBER = re.compile(r"\d+(?=\D*$)")  # the last in a name
_WRITE = "ffmpeg -i VIDEO -start_number 0 frame_%06d.png writes all frames with their numbers"


def images_of_frames(annotations: Annotations, pairs: Sequence[Pair]) -> dict[str, Pair]:
    """Returns {name of a frame in the annotations: the image with its number}, without those that have no image.

    The number is the last in the name of an image. Where a folder has the name of the video, it is looked for in there.

    Raises:
        DataError: if two images have the number of a frame, or all numbers are those of the frames plus one.
    """
    videos: dict[str, list[AnnotatedImage]] = {}
    for image in annotations.images:
        if image.frame is not None:
            videos.setdefault(PurePosixPath(image.name).parent.name, []).append(image)
    result: dict[str, Pair] = {}
    for video, frames in videos.items():
        inside = [pair for pair in pairs if video in PurePosixPath(pair.name).parts[:-1]]
        by_number = _numbered(annotations, video, frames, inside or pairs)
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
    if found and min(found) == min(wanted) + 1 and max(found) == max(wanted) + 1:
        raise DataError(
            f"{annotations.path} annotates the frames {min(wanted)} to {max(wanted)} of a video, but its images are "
            f"numbered from {min(found)} to {max(found)}, as if each were the frame before; {_WRITE}."
        )
    return found
