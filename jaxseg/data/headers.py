"""What the headers of an image and its mask say together: whether they can be read, fit, and hold what a mask needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxseg.data.contents import lossy_mask
from jaxseg.data.images import Header, read_header
from jaxseg.data.pairs import Pair
from jaxseg.errors import DataError


def damage_of(files: Any, headers: Callable[[Any], object], check: Callable[[Any], object]) -> str:
    """Returns the error of an example whose files are damaged, and "" of another, after `check` of it.

    Args:
        files: of the example.
        headers: raises DataError if a file is damaged, or they do not fit.
        check: raises DataError also for other reasons.

    Raises:
        DataError: what `check` raises of files that can be read and fit, such as masks of a form that is not read.
    """
    try:
        headers(files)
    except DataError as error:
        return str(error)
    check(files)
    return ""


def check_headers(pair: Pair, *, paged: bool = False) -> str:
    """Returns the mode of the mask; raises DataError if the files of a pair do not fit or the mask is lossy.

    `paged` is that of `images.read_header`, for the image.
    """
    mask = headers_of(pair, paged=paged)
    if pair.mask is None or mask is None:
        return ""
    if mask.lossy:
        raise DataError(lossy_mask(pair.mask, mask.lossy))
    return mask.mode


def headers_of(pair: Pair, *, paged: bool = False) -> Header | None:
    """Returns the header of the mask; raises DataError if one cannot be read, or the sizes differ."""
    image = read_header(pair.image, paged=paged)
    mask = None if pair.mask is None else read_header(pair.mask)
    if pair.mask is not None and mask is not None:
        require_same_size(pair.image, image[:2], pair.mask, mask[:2])
    return mask


def orientation(path: Path) -> int:
    """Returns the EXIF orientation of a picture; 1 where its header cannot be read."""
    try:
        return read_header(path).orientation
    except DataError:
        return 1


def require_same_size(image: Path, size: tuple[int, ...], mask: Path, of_mask: tuple[int, ...]) -> None:
    """Raises DataError if the size (h, w) of a mask is another than that of its image."""
    if tuple(size) != tuple(of_mask):
        raise DataError(
            f"The mask {mask} is {of_mask[0]} x {of_mask[1]} (height x width), but its image {image} is "
            f"{size[0]} x {size[1]} (after its EXIF orientation, if any); the same size was expected."
        )
