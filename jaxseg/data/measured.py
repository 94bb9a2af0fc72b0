"""Images of measurements: files of NumPy (.npy, .npz), TIFF files of any bands, and the range of values that is seen.

`data.range` = (low, high) says which value of a file becomes 0 and which 1; values beyond them are cut. One function
does it for training, evaluation and prediction.
"""

import functools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data import bands, pages
from jaxseg.data.listing import ARRAYS
from jaxseg.errors import DataError, OutOfMemoryError, counted, first_line, printable
from jaxseg.files import names_in_npz
from jaxseg.pictures.opening import require_pixels

_NAME = "image"  # of the array in an .npz file of several
_PALETTE = 3  # a value of TIFF's PhotometricInterpretation


def is_array(path: str | Path) -> bool:
    """Returns whether a file is one of NumPy, by its name."""
    return Path(path).suffix.lower() in ARRAYS


def is_image(path: Path) -> bool:
    """Returns whether a file of NumPy holds an array that may be an image, and no results of a prediction."""
    if path.suffix.lower() == ".npy":
        return True
    names = names_in_npz(path)
    return _NAME in names or len(names) == 1


def array_size(path: str | Path) -> tuple[int, int]:
    """Returns the (height, width) of the image in a file of NumPy, of which only the header is read.

    Raises:
        DataError: if it is damaged, or holds no array [h,w] or [h,w,c].
    """
    return _read(path, functools.partial(_shape, path))[:2]


def array_channels(path: str | Path) -> int:
    """Returns the channels of the image in a file of NumPy, by its header; raises as `array_size`."""
    return _read(path, functools.partial(_shape, path))[2]


def read_array(path: str | Path) -> np.ndarray:
    """Returns the array [h,w,c] in a file of NumPy: of an .npz file that with the name "image", or its only one.

    Nothing in the file is executed, and its size is checked before it is read.

    Raises:
        DataError: as `array_size`, and if it has more pixels than the limit; four channels count as one pixel.
    """
    height, width, channels = _read(path, functools.partial(_shape, path))
    require_pixels(path, height, width * -(-channels // 4))

    def load(file: Any) -> np.ndarray:
        return np.lib.format.read_array(file, allow_pickle=False)

    return np.ascontiguousarray(_read(path, load).reshape(height, width, channels))


def _read(path: str | Path, read: Callable[[Any], Any]) -> Any:
    """Returns what `read` returns of the open array in a file."""
    try:
        if Path(path).suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return read(file)
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            chosen = [name for name in names if name == f"{_NAME}.npy"] or (names if len(names) == 1 else [])
            if not chosen:
                raise DataError(
                    f"{path} holds the arrays {', '.join(map(printable, names))[:200] or 'none'}; expected one with "
                    f"the name {_NAME!r}, or one alone."
                )
            with archive.open(chosen[0]) as file:
                return read(file)
    except DataError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"{path} does not fit into the memory of this machine.") from error
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except Exception as error:  # NumPy and zipfile raise many classes for a file that is cut off or forged
        why = (error.strerror if isinstance(error, OSError) else None) or printable(first_line(error)[:200])
        raise DataError(f"{path} cannot be read as an array of NumPy: it is damaged or cut short ({why}).") from error


def _shape(path: str | Path, file: Any) -> tuple[int, int, int]:
    """Returns (height, width, channels) by the header of an array."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.kind not in "uif":
        raise DataError(f"{path} holds an array of the type {dtype}, where numbers were expected.")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise DataError(f"{path} holds an array of the shape {shape}, where [h,w] or [h,w,c] was expected.")
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


def read_bands(path: str | Path, channels: int = 0) -> np.ndarray:
    """Returns the numbers [h,w,c], upright, of a TIFF file with any number of bands of any type.

    Args:
        path: a file of one page, or of one page for each channel.
        channels: those that are asked for.

    Raises:
        DataError: if it is damaged, too large, has a palette or counts from white, or the reader is not installed; if
            it has another number of pages, or they differ in size or type.
    """
    with pages.open_pages(path) as opened:
        forms = checked_pages(path, opened, channels)
        require_pixels(path, forms[0].height, forms[0].width * -(-(forms[0].bands * len(opened)) // 4))
        parts = [bands.decoded(page, path) for page in opened]
    return np.concatenate([bands.upright(with_bands(p, f.axes), f.orientation) for p, f in zip(parts, forms)], axis=-1)


def with_bands(values: np.ndarray, axes: str) -> np.ndarray:
    """Returns [h,w,c] of the array of a page with these axes."""
    return np.moveaxis(values, 0, -1) if axes == "SYX" else values if values.ndim == 3 else values[..., None]


def checked_pages(path: str | Path, opened: Sequence[Any], channels: int) -> list[bands.TiffForm]:
    """Returns the forms of the open pages of one image; errors as of `read_bands`."""
    if len(opened) not in (1, channels):
        if not pages.takes_pages(channels, ()):
            raise pages.too_many(path, len(opened))
        raise DataError(
            f"{path} holds {counted(len(opened), 'page')}, where one page, or one for each of "
            f"data.channels={channels}, was expected."
        )
    forms = [_page_form(path, page) for page in opened]
    first = forms[0]
    if len(opened) > 1 and any(form.bands != 1 for form in forms):
        raise DataError(f"{path} holds pages of several bands; pages that are channels have one band each.")
    for number, form in enumerate(forms, 1):
        if (form.height, form.width) != (first.height, first.width):
            raise DataError(
                f"{path} has pages of different sizes, {first.height} x {first.width} (height x width) and in page "
                f"{number} {form.height} x {form.width}, which are not the channels of one image."
            )
        if form.dtype != first.dtype:
            raise DataError(f"{path} has pages of different types, {first.dtype} and in page {number} {form.dtype}.")
    return forms


def _page_form(path: str | Path, page: Any) -> bands.TiffForm:
    if page.axes not in ("YX", "YXS", "SYX"):
        raise DataError(f"{path} holds an array with the axes {page.axes}, where an image [h,w,c] was expected.")
    if int(page.photometric) in (0, _PALETTE):
        raise DataError(f"{path} holds indices of a palette, or counts from white; save its values as they are.")
    dtype, orientation = np.dtype(page.dtype), int(page.tags.valueof(274, 1))
    if dtype.kind not in "uif":
        raise DataError(f"{path} holds {dtype} numbers; whole or floating-point numbers were expected.")
    size = page.imagelength, page.imagewidth, int(page.samplesperpixel)
    return bands.TiffForm(*size, dtype, page.axes, False, False, orientation)


def require_channels(path: str | Path, given: int, channels: int, hint: str = "") -> None:
    """Raises DataError if a file holds another number of channels than was asked for."""
    if given != channels:
        raise DataError(
            f"{path} holds {counted(given, 'channel')}, where data.channels={channels} were expected.{hint}"
        )


def fitted(path: str | Path, values: np.ndarray, channels: int, limits: Sequence[float]) -> np.ndarray:
    """Returns u8|u16[h,w,c] as it is, or f32[h,w,c] in [0, 1] of values [h,w,c] of any type with `limits`.

    Args:
        path: the file, for messages.
        values: what it holds.
        channels: those that were asked for.
        limits: `data.range`, or ().

    Raises:
        DataError: if it has another number of channels, or numbers other than of 8 or 16 bits without `limits`, or
            numbers that are not finite.
    """
    first = values.shape[0] == channels and values.shape[-1] != channels
    hint = " The channels come last: use array.transpose(1, 2, 0)." if first else ""
    require_channels(path, values.shape[-1], channels, hint)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{path} holds numbers that are not finite; give the pixels without a value one of their own.")
    if len(limits):
        return scaled(values, limits)
    if values.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} holds {values.dtype} numbers from {values.min():g} to {values.max():g}, and nothing says which of "
            "them are black and white; data.range=(LOW, HIGH) gives the numbers that become 0 and 1, for all files "
            f"alike, such as --config.data.range='({values.min():g},{values.max():g})'."
        )
    return np.ascontiguousarray(values)


def scaled(values: np.ndarray, limits: Sequence[float]) -> np.ndarray:
    """Returns f32 in [0, 1] of values of any shape: 0 up to the first of the limits, 1 from the second on."""
    low, high = limits
    share = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.ascontiguousarray(share.clip(0, 1))
