"""The pages of image files: how many there are, which are smaller copies of others, and how tifffile opens them."""

import contextlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxseg.errors import DataError, OutOfMemoryError, first_line, printable

INSTALL = "pip install -e '.[images]' installs a reader for it"
_SUBFILE = 254  # a tag of TIFF
_PREVIEW = 1 | 4  # bits of _SUBFILE: a smaller copy of another page, or its transparency mask
_PAGED = ("TIFF", "PNG", "WEBP", "GIF")  # not MPO: cameras add pictures of their own to a JPEG file
_PAGES = 2000  # more than a pyramid has levels, or an image bands
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of TIFF and BigTIFF
PICTURES = (1, 3, 4)  # channels that pictures are converted to

# It says in many lines what is wrong with a file that the error names.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def takes_pages(channels: int, limits: Sequence[float]) -> bool:
    """Returns whether the pages of a TIFF file may be the channels of one image, with data.channels and data.range."""
    return channels not in PICTURES or len(limits) > 0


def is_tiff(path: str | Path) -> bool:
    """Whether the file begins as a TIFF file does, also one that Pillow does not open."""
    with Path(path).open("rb") as file:
        return file.read(4) in _MAGIC


def check_pages(image: Any, path: str | Path) -> None:
    """Raises DataError if a file that Pillow has opened holds several images, of which it reads the first."""
    count = getattr(image, "n_frames", 1) if image.format in _PAGED else 1
    if count > 1 and image.format == "TIFF":
        count -= sum(_is_preview(image, page) for page in range(1, count))
        image.seek(0)
    if count > 1:
        raise too_many(path, count)


def _is_preview(image: Any, page: int) -> bool:
    image.seek(page)
    tags = image.tag_v2
    return _SUBFILE in tags and bool(tags[_SUBFILE] & _PREVIEW)


@contextlib.contextmanager
def first_page(path: str | Path, form: object) -> Iterator[Any]:
    """Opens the only page of a TIFF file, see `open_pages`."""
    with open_pages(path, form) as pages:
        if len(pages) > 1:
            raise too_many(path, len(pages))
        yield pages[0]


@contextlib.contextmanager
def open_pages(path: str | Path, form: object = None) -> Iterator[list[Any]]:
    """Opens the pages of a TIFF file that are no smaller copies of others, with tifffile.

    It turns every error of its own into a DataError; `form` of the file is for the one that it is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        held = "bands in a form that Pillow does not read" if form is None else f"{form}, of which Pillow drops a part"
        raise DataError(
            f"{path} holds {held}; {INSTALL}, or save the image with 8 bits and 1, 3 or 4 channels (RGBA)."
        ) from error
    try:
        with tifffile.TiffFile(path) as file:
            yield own_pages(file, path)
    except DataError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"{path} does not fit into the memory of this machine.") from error
    except Exception as error:  # the classes are those of its decoders
        raise damaged(path, error) from error


def own_pages(file: Any, path: str | Path) -> list[Any]:
    """Returns the pages of a file that tifffile has opened without smaller copies of others.

    Raises:
        DataError: if there are more pages than an image has.
    """
    # A chain of pages may lead back to its start.
    found = list(itertools.islice(file.pages, _PAGES + 1))
    if len(found) > _PAGES:
        raise DataError(
            f"{path} holds more than {_PAGES} pages, or they lead back to the first; save each page that you want to "
            "use as a file of its own, or the bands of one image in one page."
        )
    return [page for page in found if not page.subfiletype & _PREVIEW] or [file.pages.first]


def seek_own_page(image: Any) -> None:
    """Moves a TIFF file that Pillow has opened to the first of its `own_pages`."""
    count = min(image.n_frames, _PAGES) if _is_preview(image, 0) else 1
    image.seek(next((page for page in range(1, count) if not _is_preview(image, page)), 0))


def too_many(path: str | Path, count: int) -> DataError:
    """Returns the error for a file of several pages."""
    of_range = " and data.range=(LOW, HIGH)" if count in PICTURES else ""
    bands = f", or set data.channels={count}{of_range}, which reads them as channels" if is_tiff(path) else ""
    return DataError(
        f"{path} holds {count} pages, where one image was expected; save each page that you want to use as a file of "
        f"its own{bands}."
    )


def damaged(path: str | Path, error: Exception) -> DataError:
    """Returns the error for a file that a decoder refused."""
    why = printable(first_line(error)[:200])
    return DataError(f"{path} cannot be read as an image: it is damaged, cut short or of another type ({why}).")
