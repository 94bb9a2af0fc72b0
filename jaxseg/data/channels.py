"""The channels of an image file by its header, for a configuration that does not give `data.channels`."""

from pathlib import Path
from typing import Any

from jaxseg.data import measured, pages
from jaxseg.data.images import opened, read_header
from jaxseg.errors import DataError

_OF_ONE_CHANNEL = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")  # modes of Pillow
_SAMPLES, _EXTRA = 277, 338  # tags of TIFF: the number of bands, and what those beside grey or colour are
_UNSPECIFIED = 0  # an extra band that is no opacity


def read_channels(path: str | Path, *, exact: bool = False) -> int:
    """Returns the channels with which `read_image` takes all that an image file holds but its opacity.

    They are those of an array, and of a TIFF file whose bands are neither grey nor colour; 1 of other grey files, else
    3.

    Args:
        path: the file.
        exact: count all bands of a TIFF file, as where `read_image` has `limits` and converts none.

    Raises:
        DataError: if the file does not exist or is not an image.
    """
    if measured.is_array(path):
        return measured.array_channels(path)
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        count, opacity = _bands_of(path)
        if exact or count - opacity not in (1, 3):
            return count
    mode = read_header(path).mode
    if not mode:  # a TIFF file that Pillow does not open
        count, opacity = _bands_of(path)
        return count - opacity
    return 1 if mode in _OF_ONE_CHANNEL else 3


def _bands_of(path: str | Path) -> tuple[int, bool]:
    """Returns the number of bands of a TIFF file, and whether the last of them is an opacity."""
    try:
        with opened(path) as image:
            tags: Any = getattr(image, "tag_v2", {})
            count, extra = tags[_SAMPLES] if _SAMPLES in tags else 1, tags[_EXTRA] if _EXTRA in tags else ()
            extra = extra if isinstance(extra, tuple) else (extra,)
    except DataError:  # of a form that Pillow does not know
        with pages.first_page(path, None) as page:
            count, extra = page.samplesperpixel, tuple(page.extrasamples)
    return int(count), bool(extra) and _UNSPECIFIED not in map(int, extra)
