"""Opens image files that anybody may have made: the formats that are read, and the largest number of pixels."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jaxseg.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = "JAXSEG_MAX_PIXELS"
"""Name of the environment variable that sets the largest number of pixels of an image; 0: no limit."""
_OF_DATA = "JAXSEG_MAX_PIXELS_OF_DATA"  # where MAX_PIXELS is not set: `data.max_pixels`, for processes that are started
_USUAL = 178_956_970  # twice the number at which Pillow warns

# What a file holds decides how it is read, not its name. Pillow gives PostScript to the program Ghostscript, and
# unpacks some formats without a limit, so that only those are read that photographs and masks have.
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA"),
    *("TIFF", "WEBP"),
)


def open_image(file: str | Path | BinaryIO) -> "Image.Image":
    """Returns the image in a file, not decoded, as `PIL.Image.open`, of the formats that are read.

    Raises:
        DataError: if the limit of pixels in the environment is no number.
        Exception: whatever Pillow raises for a damaged file, DecompressionBombError for one of too many pixels.
    """
    from PIL import Image

    set_limit()
    Image.init()
    return Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])


def set_limit() -> None:
    """Sets Pillow's limit of pixels to that of the environment; Pillow raises an error at twice its limit."""
    name = MAX_PIXELS if MAX_PIXELS in os.environ else _OF_DATA
    if name in os.environ:
        try:
            most = int(os.environ[name])
        except ValueError:
            most = -1
        if most < 0:
            raise DataError(
                f"The environment variable {name} must be a whole number of at least 0, got {os.environ[name]!r}."
            )
        _set(most)


def _set(most: int) -> None:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = -(-most // 2) or None


def allow_pixels(most: int) -> None:
    """Sets the largest number of pixels of an image for this process and those that it starts; 0 leaves it."""
    if most:
        os.environ[MAX_PIXELS] = str(most)
        set_limit()


def allow_pixels_of_data(most: int) -> None:
    """As `allow_pixels`, until the next call; 0 is the usual limit. What the environment or an option says holds."""
    if most:
        os.environ[_OF_DATA] = str(most)
        set_limit()
    elif os.environ.pop(_OF_DATA, ""):
        _set(_USUAL)


def require_pixels(path: str | Path, height: int, width: int) -> None:
    """Raises DataError if an image, or a part of it that is decoded at once, has more pixels than the limit."""
    from PIL import Image

    set_limit()
    if Image.MAX_IMAGE_PIXELS is not None and height * width > 2 * Image.MAX_IMAGE_PIXELS:
        raise too_large(path)


def too_large(path: str | Path) -> DataError:
    """Returns the error for an image of more pixels than the limit."""
    from PIL import Image

    return DataError(
        f"{path} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, the limit that protects the memory from "
        f"files made to fill it; if you trust the file, set data.max_pixels, or what goes before it, the option "
        f"--max-pixels or the environment variable {MAX_PIXELS} to the number of pixels that an image may have."
    )
