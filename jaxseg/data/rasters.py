"""TIFF files of any size, read and written by parts: BigTIFF, tiled, in strips, pyramidal, georeferenced.

tifffile reads and writes them, and zarr finds the tiles of a part; `pip install -e '.[images]'` installs both.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxseg.data.bands import TiffForm, read_tiff_form
from jaxseg.data.cut_files import require_whole
from jaxseg.data.images import to_channels
from jaxseg.data.measured import checked_pages, fitted, require_channels, with_bands
from jaxseg.data.pages import is_tiff, open_pages, own_pages, takes_pages
from jaxseg.errors import DataError, first_line
from jaxseg.pictures.colors import IGNORE_COLOR
from jaxseg.pictures.opening import require_pixels
from jaxseg.types import IGNORE, ignore_in, ignore_label

_INSTALL = "pip install -e '.[images]' installs what reads and writes TIFF files by parts (tifffile and zarr)"
# Tags that say where on the earth an image lies: ModelPixelScale, ModelTiepoint, ModelTransformation, and the three
# directories of keys of GeoTIFF 1.1.
_GEOGRAPHIC = (33550, 33922, 34264, 34735, 34736, 34737)
_ORIENTATION = 274
_TILE = 512  # side of the tiles that are written


@dataclass(frozen=True, eq=False)
class TiffRaster:
    """A TIFF file of one image that is read by parts; make it with `open_raster`.

    Attributes:
        path: the file.
        shape: (h, w, c), with the channels that were asked for.
        dtype: uint8 or uint16; float32 with limits.
        tags: (code, type, count, value) of the tags that say where on the earth the image lies.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    tags: tuple[tuple[int, int, int, Any], ...]
    _pages: Sequence[Any] = field(repr=False)
    _axes: str = "YXS"
    _limits: tuple[float, ...] = ()

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Returns u8|u16|f32[rows,columns,c].

        Raises:
            DataError: if a part of the file is damaged, or holds numbers that are not finite.
        """
        place = np.s_[:, rows, columns] if self._axes == "SYX" else np.s_[rows, columns]
        try:
            parts = [with_bands(np.asarray(page[place]), self._axes) for page in self._pages]
        except MemoryError:
            raise
        except Exception as error:  # the classes are those of its decoders
            raise DataError(
                f"{self.path} cannot be read in rows {rows.start} to {rows.stop}: it is damaged or cut short "
                f"({first_line(error)})."
            ) from error
        if takes_pages(self.shape[-1], self._limits):
            return fitted(self.path, np.concatenate(parts, axis=-1), self.shape[-1], self._limits)
        return to_channels(parts[0], self.shape[-1])


@contextlib.contextmanager
def open_raster(path: Path, channels: int, limits: Sequence[float] = ()) -> Iterator[TiffRaster]:
    """Opens a TIFF file of one image, to read parts of it: of what `images.read_image` takes with the same arguments.

    Args:
        path: the file.
        channels: 1, 3 or 4, to which one to four bands of 8 or 16 bits are converted; or the number of its bands, or of
            its pages, if there are others.
        limits: `data.range`, with which the file has so many bands of any type; ().

    Raises:
        DataError: if the file is damaged, cut short, turned by its orientation tag or of another form, or the reader is
            not installed.
    """
    try:
        import tifffile
        import zarr
    except ImportError as error:
        raise DataError(f"{path} is too large to be read at once; {_INSTALL}.") from error
    form = _form_of_bands(path, channels, limits) if takes_pages(channels, limits) else read_tiff_form(path, channels)
    with contextlib.ExitStack() as stack:
        try:
            pages = own_pages(stack.enter_context(tifffile.TiffFile(path)), path)
            for page in pages:
                require_whole(path, page)
                if page.is_tiled:
                    require_pixels(path, page.tilelength, page.tilewidth)
            tags = _geographic(pages[0])
            pixels = [zarr.open(stack.enter_context(page.aszarr()), mode="r") for page in pages]
        except (DataError, MemoryError):
            raise
        except Exception as error:  # the classes are those of tifffile and zarr
            why = (error.strerror if isinstance(error, OSError) else None) or first_line(error)[:200]
            raise DataError(f"{path} cannot be read: {why}.") from error
        dtype = np.dtype(np.float32) if len(limits) else form.dtype
        yield TiffRaster(path, (form.height, form.width, channels), dtype, tags, pixels, form.axes, tuple(limits))


def _form_of_bands(path: Path, channels: int, limits: Sequence[float]) -> TiffForm:
    """Returns the form of a file whose bands, or pages, are the channels; errors as of `open_raster`."""
    with open_pages(path) as pages:
        forms = checked_pages(path, pages, channels)
    form = forms[0]
    require_channels(path, form.bands * len(forms), channels)
    if any(page.orientation != 1 for page in forms):
        raise DataError(
            f"{path} is turned by its orientation tag, so that it cannot be read by parts; save it upright."
        )
    if not len(limits) and form.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} holds {form.dtype} numbers, and nothing says which of them are black and white; "
            "data.range=(LOW, HIGH) gives the numbers that become 0 and 1, for all files alike."
        )
    return form


def geographic_tags(path: str | Path) -> tuple[tuple[int, int, int, Any], ...]:
    """Returns the tags of a file that say where on the earth its image lies, as of `TiffRaster.tags`.

    There are none in a file that is no TIFF or that its orientation tag turns, of which they would place other pixels.
    """
    try:
        import tifffile

        if not is_tiff(path):
            return ()
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            turned = _ORIENTATION in page.tags and int(page.tags[_ORIENTATION].value) != 1
            return () if turned else _geographic(page)
    except Exception:  # tifffile is absent, or the file is damaged; the classes are those of its decoders
        return ()


def _geographic(page: Any) -> tuple[tuple[int, int, int, Any], ...]:
    return tuple((t.code, int(t.dtype), t.count, t.value) for t in page.tags.values() if t.code in _GEOGRAPHIC)


def stored_values(values: Sequence[int]) -> np.ndarray:
    """Returns u8[256], u16[256] or u16[65536], what a file holds for each label: `values`, or no class.

    No class is the largest number of the file.
    """
    dtype = np.uint8 if max(values) < 256 and len(values) <= IGNORE else np.uint16
    table = np.full(ignore_label(len(values)) + 1, np.iinfo(dtype).max, dtype)
    table[: len(values)] = values
    return table


def write_labels(
    file: BinaryIO,
    labels: np.ndarray,
    colors: Sequence[Sequence[int]] | None = None,
    *,
    values: Sequence[int] = (),
    tags: Sequence[Any] = (),
    software: str = "",
) -> None:
    """Writes u8[h,w], u16[h,w] or u32[h,w] as a TIFF file in compressed tiles, a BigTIFF where it may pass 4 GB.

    Args:
        file: an open binary file.
        labels: the pixels; a memory-mapped array is read a tile at a time.
        colors: the (r, g, b) of each label, for a palette where values have 8 bits; None: grey.
        values: what stands in the file for each label, of which IGNORE has the largest number; empty: the label itself.
        tags: further tags, as of `TiffRaster.tags`.
        software: the value of the tag Software.

    Raises:
        DataError: if the writer is not installed.
        OSError: if the file cannot be written.
    """
    try:
        import tifffile
    except ImportError as error:
        raise DataError(f"A TIFF file cannot be written; {_INSTALL}.") from error
    stored = None if labels.dtype == np.uint32 else stored_values(values or range(ignore_in(labels)))
    dtype = labels.dtype if stored is None else stored.dtype
    options: dict[str, Any] = {"photometric": "minisblack"}
    if colors is not None and stored is not None and stored.dtype == np.uint8:
        table = np.zeros((3, 256), np.uint16)
        table[:, IGNORE] = [257 * level for level in IGNORE_COLOR]
        table[:, stored[: len(colors)]] = 257 * np.asarray(colors, np.uint16).T
        options = {"photometric": "palette", "colormap": table}
    with tifffile.TiffWriter(file, bigtiff=labels.size * dtype.itemsize > 2**31) as writer:
        writer.write(
            _tiles(labels, stored),
            shape=labels.shape,
            dtype=dtype,
            tile=(_TILE, _TILE),
            compression="zlib",
            extratags=[(code, kind, count, value, True) for code, kind, count, value in tags],
            software=software or None,
            metadata=None,
            **options,
        )


def _tiles(labels: np.ndarray, stored: np.ndarray | None) -> Iterator[np.ndarray]:
    h, w = labels.shape
    for top in range(0, h, _TILE):
        for left in range(0, w, _TILE):
            part = labels[top : top + _TILE, left : left + _TILE]
            part = part if stored is None else stored[part]
            yield np.pad(part, ((0, _TILE - part.shape[0]), (0, _TILE - part.shape[1])))
