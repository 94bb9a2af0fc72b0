"""Reads image and mask files of any mode into arrays; every failure is an error that names the file.

It is a DataError, or an OutOfMemoryError for a file that does not fit into the memory of the machine.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxseg.data import bands, masks, measured, pages
from jaxseg.data.cut_files import require_whole_tiff
from jaxseg.data.masks import Color, Palette
from jaxseg.data.pages import PICTURES
from jaxseg.errors import DataError, OutOfMemoryError, first_line, printable
from jaxseg.pictures.opening import open_image, too_large

# Pillow warns from half its limit on; jaxseg knows the limit alone.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_ORIENTATION = 0x0112  # the EXIF tag
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's convert("L")
_MARGIN = 1e-3  # how far a float may be outside [0, 1]: interpolation overshoots


class Header(NamedTuple):
    """The properties of a file that are read without decoding.

    Attributes:
        height, width: the upright size, after the EXIF orientation.
        mode: Pillow's mode.
        lossy: the name of the compression if it changes values, else "".
        orientation: the EXIF orientation, 1 to 8; 1 is upright.
    """

    height: int
    width: int
    mode: str
    lossy: str = ""
    orientation: int = 1


class _UnidentifiedError(DataError):
    """Pillow does not know the form of the file."""


@contextmanager
def opened(path: str | Path, *, paged: bool = False) -> Iterator[Image.Image]:
    """Opens an image of one page; turns every error in its body, of Pillow, into a DataError or OutOfMemoryError.

    `paged`: of several pages of a TIFF file the first that is no preview, since they are the channels of one image.
    """
    try:
        # If Pillow opens a file by name it maps the file into memory, and then corrupts rotated TIFF files.
        with open(path, "rb") as file, open_image(file) as image:
            if paged and image.format == "TIFF":
                pages.seek_own_page(image)
            else:
                pages.check_pages(image, path)
            yield image
    except (DataError, OutOfMemoryError):
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"{path} does not fit into the memory of this machine.") from error
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, where an image file was expected.") from None
    except PermissionError:
        raise DataError(f"{path} cannot be read: this user lacks the permission.") from None
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except UnidentifiedImageError as error:  # its text holds only Python's name of the open file
        raise _UnidentifiedError(
            f"{path} cannot be read as an image: it is damaged, cut short or of another type."
        ) from error
    except Exception as error:  # the classes are those of Pillow's decoders
        if isinstance(error, OSError) and error.errno is not None:  # of the system; Pillow's own have no number
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
        require_whole_tiff(path)
        why = printable(first_line(error)[:200])
        raise DataError(
            f"{path} cannot be read as an image: it is damaged, cut short or of another type ({why})."
        ) from error


def read_header(path: str | Path, *, paged: bool = False) -> Header:
    """Returns the size (after the EXIF orientation) and mode of an image without decoding it.

    `paged`: the pages of a TIFF file may be the channels of one image, see `pages.takes_pages`.

    Raises:
        DataError: if the file does not exist or is not an image.
    """
    if measured.is_array(path):
        return Header(*measured.array_size(path), "array")
    try:
        return _read_header(path, paged)
    except _UnidentifiedError:
        if not pages.is_tiff(path):
            raise
        return Header(*bands.tiff_size(path, paged=paged), "")


def _read_header(path: str | Path, paged: bool) -> Header:
    with opened(path, paged=paged) as image:
        width, height = image.size
        exif = image.getexif()
        orientation = exif[_ORIENTATION] if _ORIENTATION in exif else 1
        # For TIFF files Pillow already reports the upright size.
        if image.format != "TIFF" and orientation in (5, 6, 7, 8):
            width, height = height, width
        return Header(height, width, image.mode, masks.lossy(image), orientation)


def read_image(path: str | Path, channels: int = 3, limits: Sequence[float] = ()) -> np.ndarray:
    """Returns the image u8[h,w,c], or u16[h,w,c] for a file of 16-bit channels, turned upright by its EXIF tag.

    With `limits` it is f32[h,w,c] in [0, 1], in which the first of the two numbers is 0 and the second 1. Files of
    NumPy, and TIFF files with other channels or with `limits`, must have exactly the channels that are asked for.
    Others are converted.

    Palette indices are replaced by their colours. One channel is repeated to make colour, and colour becomes one
    channel by its luma; alpha is dropped, or added as opaque if `channels` is 4. 16-bit colour, and TIFF files with
    bands that are neither colour nor alpha, need the packages of `jaxseg[images]`.

    Args:
        path: any file that Pillow reads, or .npy, or .npz.
        channels: 1, 3 or 4 for pictures.
        limits: `data.range`; (): values of 8 or 16 bits as they are.

    Raises:
        DataError: if the file is missing or damaged, its values are not 8- or 16-bit intensities and there are no
            `limits`, or it holds several pages (other than one for each channel of those files), or bands or bits that
            would be dropped.
    """
    if measured.is_array(path):
        return measured.fitted(path, measured.read_array(path), channels, limits)
    if not pages.takes_pages(channels, limits):
        return _read_picture(path, channels)
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        return measured.fitted(path, measured.read_bands(path, channels), channels, limits)
    image = _read_picture(path, channels if channels in PICTURES else 0)
    return measured.fitted(path, image, channels, limits)


def _read_picture(path: str | Path, channels: int) -> np.ndarray:
    """Returns u8|u16[h,w,c] of a file without arrays of NumPy; `channels` as of `to_channels`."""
    try:
        with opened(path) as image:
            form = bands.beyond_mode(image)
            if form is None:
                return from_pillow(image, channels, path)
            if image.format == "PNG":
                exif = image.getexif()
                orientation = exif[_ORIENTATION] if _ORIENTATION in exif else 1
                return to_channels(bands.read_png(path, form, orientation), channels)
            if image.format != "TIFF":
                raise DataError(
                    f"{path} holds {form}, of which Pillow keeps 8 bits; save it as a PNG or TIFF file, or with 8 bits."
                )
    except _UnidentifiedError:
        if not pages.is_tiff(path):
            raise
        form = None
    return to_channels(bands.read_tiff(path, form, channels or 4), channels)


def from_pillow(image: Image.Image, channels: int = 3, name: str | Path = "The image") -> np.ndarray:
    """Returns the image u8|u16[h,w,c] of an open Pillow image, see `read_image`; `name` is used in error messages.

    Raises:
        DataError: if its values are not 8- or 16-bit intensities, or Pillow has dropped a part of them.
    """
    form = bands.beyond_mode(image)
    if form is not None:
        raise DataError(f"{name} holds {form}, of which Pillow drops a part; give the file itself, as a path.")
    inverted, signed = bands.counts_from_white(image), bands.has_signed_bytes(image)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = _whole_numbers(name, np.array(image), f"mode {image.mode}", _RANGE)
        if inverted and not image.mode.startswith("I;16"):
            raise DataError(f"{name} holds {image.mode} numbers that count from white; save it with 0 for black.")
        return to_channels((65535 - values if inverted else values)[..., None], channels)
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        transparent = image.mode in ("PA", "La", "RGBa") or "transparency" in image.info
        image = image.convert("L" if image.mode == "1" else "RGBA" if transparent else "RGB")
    array = np.array(image)
    if signed:
        _whole_numbers(name, array.view(np.int8), "int8")
    return to_channels(array[..., None] if array.ndim == 2 else array, channels)


def from_array(array: np.ndarray, channels: int = 3, limits: Sequence[float] = ()) -> np.ndarray:
    """Returns the image u8|u16|f32[h,w,c] of an array [h,w] or [h,w,1|3|4], with channels converted as by `read_image`.

    Two channels are refused: in an array, they may be grey and alpha or anything else. With `limits`, or where
    `channels` is not 1, 3 or 4, the array holds what files hold, and has as many channels as are asked for.

    Args:
        array: uint8, uint16, or any float in [0, 1]; with `limits`, any numbers.
        channels: 1, 3 or 4 where they are converted.
        limits: as of `read_image`.

    Raises:
        DataError: for any other shape or type, or floats outside [0, 1].
    """
    image = array[..., None] if array.ndim == 2 else array
    if len(limits) and image.ndim == 3 and image.size:
        return measured.fitted("The array", image, channels, limits)
    if channels not in PICTURES and image.ndim == 3 and image.size and image.shape[-1] == channels:
        image = _as_image(image)
        return np.ascontiguousarray(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or not image.size:
        first = array.ndim == 3 and len(array) in (1, 3, 4, channels)
        hint = "; the channels come last: use transpose(1, 2, 0)" if first else ""
        hint = "; give a list of images for several" if array.ndim == 4 else hint
        if array.ndim == 3 and array.shape[-1] == 2:
            hint = "; of grey and alpha give the grey, image[..., 0], or a Pillow image of mode LA"
        known = "1, 3 or 4" if channels in PICTURES else f"{channels}"
        raise DataError(f"An image has the shape [h,w] or [h,w,c] with {known} channels, got {array.shape}{hint}.")
    return to_channels(_as_image(image), channels)


def _as_image(image: np.ndarray) -> np.ndarray:
    """Returns u8|u16|f32[h,w,c] of an array of one of these types, or of other floats, in [0, 1]."""
    if np.issubdtype(image.dtype, np.floating):
        low, high = float(image.min()), float(image.max())
        if not -_MARGIN <= low <= high <= 1 + _MARGIN:
            raise DataError(
                f"An image of floats lies in [0, 1] and is not normalised yet, got values from {low:g} to {high:g}."
            )
        image = image.astype(np.float32)
    elif image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"An image is uint8, uint16 or floats in [0, 1], got {image.dtype}.")
    return image


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns [h,w,channels] of an image u8|u16|f32[h,w,1..4]: grey, grey and alpha, colour, or colour and alpha.

    `channels` 0: those that it has.
    """
    given, exact = image.shape[-1], image.dtype.kind == "f"
    if channels in (0, given):
        return np.ascontiguousarray(image)
    opaque = 1.0 if exact else np.iinfo(image.dtype).max
    color, alpha = (image[..., :-1], image[..., -1:]) if given in (2, 4) else (image, None)
    if channels == 1:
        if color.shape[-1] == 3:
            color = (color.astype(np.float32) @ _LUMA + (0.0 if exact else 0.5)).astype(image.dtype)[..., None]
        return np.ascontiguousarray(color)
    if color.shape[-1] == 1:
        color = np.repeat(color, 3, axis=-1)
    if channels == 4:
        color = np.concatenate([color, np.full_like(color[..., :1], opaque) if alpha is None else alpha], axis=-1)
    return np.ascontiguousarray(color)


class Mask(NamedTuple):
    """values: u8[h,w] or u16[h,w]. colors: those of the palette by index, or () if the file has none of its own."""

    values: np.ndarray
    colors: tuple[Color, ...]


def read_mask(path: str | Path, palette: Palette | None = None, *, keep_indices: bool = False) -> np.ndarray:
    """Returns the values stored in a mask, u8[h,w] or u16[h,w]; see `read_mask_and_colors`."""
    return read_mask_and_colors(path, palette, keep_indices=keep_indices).values


def read_mask_and_colors(path: str | Path, palette: Palette | None = None, *, keep_indices: bool = False) -> Mask:
    """Returns the values stored in a mask, and the colours in which its own palette shows them.

    For a mask of colours, a value is what `palette` gives for the colour. For a palette file (mode P) the values are
    its own indices if there is no `palette` or with `keep_indices`; otherwise it is read as a mask of colours.

    Raises:
        DataError: if the file is missing or damaged; if it holds colours and there is no palette, or a colour that is
            not in the palette; if its values are not whole numbers from 0 to 65535.
    """
    try:
        return _read_mask(path, palette, keep_indices)
    except _UnidentifiedError:
        if not pages.is_tiff(path):
            raise
        values = bands.read_tiff_values(path)
        return Mask(_whole_numbers(path, values, str(values.dtype)), ())


def _read_mask(path: str | Path, palette: Palette | None, keep_indices: bool) -> Mask:
    with opened(path) as image:
        more = bands.beyond_mode(image)
        if more is not None:
            raise DataError(f"The mask {path} holds {more}, of which Pillow drops a part; save it with one band.")
        form, compression, signed = masks.stored_form(image), masks.lossy(image), bands.has_signed_bytes(image)
        if bands.counts_from_white(image):
            raise bands.mask_from_white(path)
        image = ImageOps.exif_transpose(image)
        if image.mode == "P" and palette is not None and not keep_indices:
            image = image.convert("RGB")
        if image.mode in ("1", "L", "P"):
            values = np.array(image).astype(np.uint8)
            if signed:
                _whole_numbers(path, values.view(np.int8), "int8")
            return Mask(masks.narrow(values, form), masks.palette_colors(image))
        if image.mode in ("LA", "PA"):
            return Mask(np.array(image)[..., 0], ())
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            return Mask(_whole_numbers(path, np.array(image), f"mode {image.mode}"), ())
        colors = np.array(image.convert("RGB"))
    return Mask(masks.decode_colors(path, colors, palette, compression), ())


_RANGE = ", or data.range=(LOW, HIGH), the numbers that become 0 and 1"


def _whole_numbers(path: str | Path, values: np.ndarray, form: str, other: str = "") -> np.ndarray:
    """Returns u16[h,w] of the values of a file with 16 or more bits per pixel; `form` and `other` are for the error."""
    if values.dtype == np.float16:  # which does not hold 65535
        values = values.astype(np.float32)
    if values.dtype != np.uint16 and not np.all((values >= 0) & (values <= 65535) & (values == np.floor(values))):
        raise DataError(
            f"{path} holds numbers from {values.min()} to {values.max()} ({form}); "
            f"whole numbers of 8 or 16 bits were expected{other}."
        )
    return values.astype(np.uint16)
