"""Files that hold more than Pillow gives: 16-bit colour, further bands, several pages.

Pillow drops what its modes cannot hold, and reports nothing. Such PNG and TIFF files are read with tifffile and
imagecodecs, which `pip install -e '.[images]'` installs; all others are refused.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxseg.data.pages import INSTALL, damaged, first_page, open_pages
from jaxseg.errors import DataError, counted
from jaxseg.pictures.opening import require_pixels

_BITS, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 339  # tags of TIFF
_FROM_WHITE, _GREY, _RGB = 0, 1, 2  # values of _PHOTOMETRIC, which says what the bands are
_SIGNED = 2  # a value of _SAMPLE_FORMAT
_UNSPECIFIED, _ASSOCIATED = 0, 1  # extra samples of TIFF: neither, or alpha that the colours are multiplied by
_DEPTH = {"1": 1, "I": 32, "F": 32}  # bits of a band in Pillow's modes; 16 in those of the form I;16, 8 in the others
_TURNS = {1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}
_TURNS[8] = (1, False)  # EXIF orientation -> (quarter turns to the left, then whether to mirror)


class Form(NamedTuple):
    """How a file stores a pixel: the number of its bands, and the bits of each."""

    bands: int
    bits: int

    def __str__(self) -> str:
        return f"{counted(self.bands, 'band')} of {self.bits} bits"


def beyond_mode(image: Image.Image) -> Form | None:
    """Returns the form of an open file if Pillow's mode is known to hold less than the file does; else None."""
    form = stored_form(image)
    depth = 16 if image.mode.startswith("I;") else _DEPTH[image.mode] if image.mode in _DEPTH else 8
    lost = form is not None and (form.bands > len(image.getbands()) or form.bits > depth)
    return form if lost else None


def stored_form(image: Image.Image) -> Form | None:
    """Returns how an open TIFF, PNG, PPM, JPEG 2000 or AVIF file stores its pixels; None for other formats."""
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        bits = tags[_BITS] if _BITS in tags else (1,)
        return Form(int(tags[_SAMPLES]) if _SAMPLES in tags else 1, max(bits) if isinstance(bits, tuple) else bits)
    file: Any = getattr(image, "fp", None)  # None once the image is decoded
    if image.format == "PNG" and file is not None:
        place = file.tell()
        file.seek(24)  # in the chunk IHDR, which is the first
        depth, kind = file.read(2)
        file.seek(place)
        return Form({2: 3, 4: 2, 6: 4}[kind] if kind in (2, 4, 6) else 1, depth)
    if image.format == "PPM" and image.mode == "RGB":  # Pillow keeps every bit of grey
        for tile in getattr(image, "tile", ()):
            decoder, args = tile[0], tile[3]
            return Form(3, 16 if decoder.startswith("ppm") and args[-1] > 255 else 8)
    if image.format == "JPEG2000" and file is not None:
        place = file.tell()
        file.seek(0)
        _, box, rest = file.read(256).partition(b"ihdr")  # height and width in 4 bytes each, the bands in 2, the bits
        file.seek(place)
        bits = (rest[10] & 127) + 1 if box and len(rest) > 10 else 8
        return Form(len(image.getbands()), bits)
    if image.format == "AVIF" and file is not None:
        place = file.tell()
        file.seek(0)
        head, _, _ = file.read(65536).partition(b"mdat")
        file.seek(place)
        return Form(len(image.getbands()), max((_avif_bits(part) for part in head.split(b"av1C")[1:]), default=8))
    return None


def _avif_bits(record: bytes) -> int:
    """Returns the bits of a band, by the record av1C (AV1 in ISOBMFF 1.3, section 2.3.3), of which this is the rest."""
    flags = record[2] if len(record) > 2 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def counts_from_white(image: Image.Image) -> bool:
    """Returns whether an open file is TIFF of which the value 0 is white (MINISWHITE)."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return _PHOTOMETRIC in tags and tags[_PHOTOMETRIC] == _FROM_WHITE


def mask_from_white(path: str | Path) -> DataError:
    """Returns the error for a mask that counts from white, of which programs give the stored value or its opposite."""
    return DataError(
        f"The mask {path} counts from white (MINISWHITE): some programs give its stored values and others their "
        "opposites, so that it is not clear which are the classes; save it with 0 for black, or as PNG."
    )


def has_signed_bytes(image: Image.Image) -> bool:
    """Returns whether an open file is TIFF of numbers from -128 to 127, which Pillow reads as 0 to 255."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    formats = tags[_SAMPLE_FORMAT] if _SAMPLE_FORMAT in tags else ()
    return image.mode == "L" and _SIGNED in (formats if isinstance(formats, tuple) else (formats,))


def read_png(path: str | Path, form: Form, orientation: int) -> np.ndarray:
    """Returns u16[h,w,c] of a PNG file of 16-bit colour, upright.

    Raises:
        DataError: if it is damaged, or the reader is not installed.
    """
    try:
        import imagecodecs
    except ImportError as error:
        raise DataError(
            f"{path} holds {form}, of which Pillow keeps 8 bits; {INSTALL}, or save the image with 8 bits."
        ) from error
    try:
        image = imagecodecs.png_decode(Path(path).read_bytes())
    except MemoryError:
        raise
    except Exception as error:  # the classes are those of its decoders
        raise damaged(path, error) from error
    return upright(image if image.ndim == 3 else image[..., None], orientation)


def read_tiff(path: str | Path, form: Form | None, channels: int) -> np.ndarray:
    """Returns u8|u16[h,w,c] of a TIFF file with up to four bands of 8 or 16 bits, upright.

    Args:
        path: the file.
        form: of the file, if Pillow opens it.
        channels: those that are asked for.

    Raises:
        DataError: if it is damaged or has another form, the reader is not installed, or a fourth band that is no alpha
            channel would be dropped.
    """
    with first_page(path, form) as page:
        held = _checked_page(page, path)
        image = decoded(page, path)
        image = np.moveaxis(image, 0, -1) if held.axes == "SYX" else image if image.ndim == 3 else image[..., None]
        if image.shape != (held.height, held.width, held.bands):
            raise ValueError(f"its parts do not make up {held.height} x {held.width} pixels")
    if held.bands == 4 > channels and not held.alpha and np.any(image[..., 3] != np.iinfo(image.dtype).max):
        raise DataError(
            f"{path} holds 4 bands, of which data.channels={channels} would drop one; set data.channels=4, or save "
            "the three of the colours in a file of their own."
        )
    return upright(_divided_by_alpha(image) if held.associated else image, held.orientation)


class TiffForm(NamedTuple):
    """How a TIFF file stores its image.

    Attributes:
        height, width: as stored, before it is turned upright.
        bands: the number of bands.
        dtype: uint8 or uint16.
        axes: the order of the stored array: "YX", "YXS" or "SYX".
        alpha: whether the last band is an opacity.
        associated: whether the colours are multiplied by it.
        orientation: the tag, 1 to 8; 1 is upright.
    """

    height: int
    width: int
    bands: int
    dtype: np.dtype
    axes: str
    alpha: bool
    associated: bool
    orientation: int


def decoded(page: Any, path: str | Path) -> np.ndarray:
    """Returns the array of an open page, if neither it nor a part that is decoded by itself has too many pixels."""
    require_pixels(path, page.imagelength, page.imagewidth * page.imagedepth)
    if page.is_tiled:
        require_pixels(path, page.tilelength, page.tilewidth * page.tiledepth)
    return page.asarray()


def _checked_page(page: Any, path: str | Path) -> TiffForm:
    """Returns the form of an open page; raises DataError if it is no image of one to four bands of 8 or 16 bits."""
    axes, extra = page.axes, tuple(map(int, page.extrasamples))
    if axes not in ("YX", "YXS", "SYX"):
        raise DataError(f"{path} holds an array with the axes {axes}, where an image [h,w,c] was expected.")
    bands, dtype = page.samplesperpixel, np.dtype(page.dtype)
    alpha = bool(extra) and _UNSPECIFIED not in extra
    if dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} holds {dtype} numbers; whole numbers of 8 or 16 bits were expected, or data.range=(LOW, HIGH), "
            "the numbers that become 0 and 1."
        )
    if page.photometric not in (_GREY, _RGB):
        raise DataError(
            f"{path} holds {counted(bands, 'band')} of the kind {page.photometric.name}; save the image as grey or RGB."
        )
    if bands > 4 or (bands == 2 and not alpha):
        raise DataError(
            f"{path} holds {bands} bands; save those that you want to use in a file of 1, 3 or 4, or set "
            f"data.channels={bands}."
        )
    orientation = int(page.tags.valueof(274, 1))
    return TiffForm(page.imagelength, page.imagewidth, bands, dtype, axes, alpha, _ASSOCIATED in extra, orientation)


def read_tiff_form(path: str | Path, channels: int) -> TiffForm:
    """Returns how a TIFF file stores its image, if parts of it can be read by themselves.

    Raises:
        DataError: as `read_tiff`, and if the image is turned, its colours are multiplied by their opacity, or it has a
            band that `channels` would drop.
    """
    with first_page(path, None) as page:
        form = _checked_page(page, path)
    if form.orientation != 1 or form.associated:
        what = (
            "is turned by its orientation tag" if form.orientation != 1 else "has colours multiplied by their opacity"
        )
        raise DataError(f"{path} {what}, so that it cannot be read by parts; save it upright and without opacity.")
    if form.bands == 4 > channels and not form.alpha:
        raise DataError(
            f"{path} holds 4 bands, of which data.channels={channels} would drop one; set data.channels=4, or save "
            "the three of the colours in a file of their own."
        )
    return form


def read_tiff_values(path: str | Path) -> np.ndarray:
    """Returns the numbers [h,w], upright, of a TIFF file of one band whose type Pillow does not read.

    Raises:
        DataError: if it is damaged, has several bands or counts from white, or the reader is not installed.
    """
    with first_page(path, None) as page:
        values, orientation, meaning = decoded(page, path), int(page.tags.valueof(274, 1)), page.photometric
    if meaning == _FROM_WHITE:
        raise mask_from_white(path)
    if values.ndim != 2:
        raise DataError(f"The mask {path} holds an array with the axes {page.axes}; save it with one band.")
    return upright(values[..., None], orientation)[..., 0]


def _divided_by_alpha(image: np.ndarray) -> np.ndarray:
    """Returns the image of colours that were multiplied by their alpha, with the colours themselves, as Pillow does."""
    top, alpha = np.iinfo(image.dtype).max, image[..., -1:].astype(np.uint64)
    colors = np.minimum(image[..., :-1].astype(np.uint64) * top // np.maximum(alpha, 1), top)
    colors = np.where(alpha > 0, colors, image[..., :-1])
    return np.concatenate([colors.astype(image.dtype), image[..., -1:]], axis=-1)


def tiff_size(path: str | Path, *, paged: bool = False) -> tuple[int, int]:
    """Returns the upright height and width of a TIFF file that Pillow does not open; errors as of `read_tiff`.

    `paged`: of the first page, where there are several.
    """
    with open_pages(path) if paged else first_page(path, None) as opened:
        page: Any = opened[0] if isinstance(opened, list) else opened
        height, width = page.imagelength, page.imagewidth
        return (width, height) if page.tags.valueof(274, 1) in (5, 6, 7, 8) else (height, width)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns the image [h,w,c] turned by its EXIF orientation, 1 to 8."""
    turns, mirrored = _TURNS[orientation] if orientation in _TURNS else (0, False)
    turned = np.rot90(image, turns)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)
