"""The values that an open mask stores: indices, colours that stand for values, and the colours of a palette."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from jaxseg.errors import DataError, counted

Color = tuple[int, int, int]

# Pillow spreads grey values of 2 and 4 bits over 0 to 255: by the name of the stored form, one step of the values.
_STEPS = {"L;2": 85, "L;4": 17}
_JPEG_FORMATS = {"JPEG": "JPEG", "MPO": "JPEG", "AVIF": "AVIF", "HEIF": "HEIF"}
_TIFF_COMPRESSION = 259  # the tag of TIFF; 6 and 7 are JPEG, 50001 is WebP
_CODES = np.array([65536, 256, 1], np.int32)


class Palette(NamedTuple):
    """Colours that stand for values in masks of colours.

    Attributes:
        colors: different colours (red, green, blue) from 0 to 255.
        values: the value that each colour stands for, from 0 to 65535.
        origin: the key or the file that gives them, for messages.
        remedy: what to do about a colour that is not among them.
    """

    colors: tuple[Color, ...]
    values: tuple[int, ...]
    origin: str = "data.palette"
    remedy: str = " If it is the colour of a class, a class is missing there."


def lossy(image: Image.Image) -> str:
    """Returns the name of the lossy compression of an open image, by its content; "" if there is none."""
    if image.format in _JPEG_FORMATS:
        return _JPEG_FORMATS[image.format]
    file = getattr(image, "fp", None)
    if image.format in _LOSSY_OR_NOT and file is not None:
        name, is_lossy = _LOSSY_OR_NOT[image.format]
        place = file.tell()
        try:
            return name if is_lossy(file) else ""
        finally:
            file.seek(place)
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        compression = tags[_TIFF_COMPRESSION] if _TIFF_COMPRESSION in tags else 1
        return "JPEG" if compression in (6, 7) else "lossy WebP" if compression == 50001 else ""
    return ""


def _is_lossy_webp(file: IO[bytes]) -> bool:
    """Returns whether the first picture in a file of the form RIFF is of the lossy kind (chunk "VP8 ")."""
    place = 12  # after "RIFF", the size and "WEBP"
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8 "
        size = int.from_bytes(head[4:], "little")
        place += 24 if head[:4] == b"ANMF" else 8 + size + size % 2  # a frame holds chunks of its own


def _is_lossy_jpeg_2000(file: IO[bytes]) -> bool:
    """Returns whether the wavelet of a JPEG 2000 file, in its segment COD, cannot be reversed (the 9-7 wavelet)."""
    file.seek(0)
    start = file.read(65536)
    place = start.find(b"\xff\x52")
    return start[place + 13 : place + 14] == b"\0" if place >= 0 else True


_LOSSY_OR_NOT = {"WEBP": ("lossy WebP", _is_lossy_webp), "JPEG2000": ("lossy JPEG 2000", _is_lossy_jpeg_2000)}


def what_it_changes(compression: str, changed: str = "values") -> str:
    """Returns the sentence about a compression that `lossy` has named."""
    return f"{compression[0].upper()}{compression[1:]} changes {changed}: masks must be PNG."


def stored_form(image: Image.Image) -> str:
    """Returns Pillow's name of the form in which an open image is stored, such as "L;2" for grey of 2 bits."""
    for tile in getattr(image, "tile", ()):
        form = tile[3]
        return str(form[0] if isinstance(form, tuple) and form else form)
    return image.mode


def narrow(values: np.ndarray, form: str) -> np.ndarray:
    """Returns the values u8[h,w] as stored, of grey values of 2 or 4 bits that Pillow has spread over 0 to 255."""
    return values // np.uint8(_STEPS[form]) if form in _STEPS else values


def palette_colors(image: Image.Image) -> tuple[Color, ...]:
    """Returns the colours of a palette file (mode P); () for the greys (i, i, i), which say nothing about classes."""
    flat = image.getpalette("RGB") if image.mode == "P" else None
    colors = tuple(zip(flat[::3], flat[1::3], flat[2::3])) if flat else ()
    return () if all(c == (i, i, i) for i, c in enumerate(colors)) else colors


def decode_colors(path: str | Path, colors: np.ndarray, palette: Palette | None, compression: str) -> np.ndarray:
    """Returns the value u8|u16[h,w] of each colour of u8[h,w,3].

    Raises:
        DataError: if there is no palette, or it lacks a colour.
    """
    codes = colors.astype(np.int32) @ _CODES
    if palette is None:
        shown = _show_codes(np.unique(codes))
        raise DataError(
            f"{path} holds colours, where a mask of class indices was expected; if each colour is a class, say so with "
            f"data.palette, in the order of the classes (this file has {shown}): "
            "--config.data.palette='((r,g,b),(r,g,b),...)', or give each class its colour in classes.json."
        )
    known = np.asarray(palette.colors or ((-1, -1, -1),), np.int32) @ _CODES  # without colours, none is equal
    order = np.argsort(known)
    found = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
    strange, counts = np.unique(codes[known[found] != codes], return_counts=True)
    if strange.size:
        order = np.argsort(-counts, kind="stable")  # the most frequent first
        shares = [_share(count / codes.size) for count in counts[order][:_SHOWN]]
        held = f"{_show_codes(strange[order])}, {', '.join(shares)} of its pixels"
        why = f" {what_it_changes(compression, 'colours')}" if compression else palette.remedy
        raise DataError(f"{path} holds colours that {palette.origin} lacks: {held}.{why}")
    values = np.array(palette.values)
    return values.astype(np.uint8 if values.max() < 256 else np.uint16)[found]


def check_palette(palette: Sequence[Sequence[int]]) -> Palette | None:
    """Returns `data.palette`, whose colours stand for 0, 1, 2, ...; None if it is empty.

    Raises:
        DataError: if an entry is no colour, a colour occurs twice, or there are more than 65536.
    """
    for color in palette:
        check_color(color, "data.palette")
    colors = tuple((int(r), int(g), int(b)) for r, g, b in palette)
    if len(set(colors)) < len(colors):
        raise DataError("data.palette has the same colour twice; each class needs its own.")
    if len(colors) > 65536:
        raise DataError(
            f"data.palette has {counted(len(colors), 'colour')}; the limit is 65535 classes and one ignored colour."
        )
    return Palette(colors, tuple(range(len(colors)))) if colors else None


def check_color(color: object, where: str) -> Color:
    """Returns a colour as a tuple; raises DataError if it is not three whole numbers from 0 to 255."""
    if (
        isinstance(color, list | tuple) and len(color) == 3 and all(type(v) is int and 0 <= v < 256 for v in color)
    ):  # `type` and not isinstance: True is no number
        return color[0], color[1], color[2]
    raise DataError(f"{where} has {color!r}, where a colour (red, green, blue) of numbers from 0 to 255 was expected.")


_SHOWN = 8  # colours in a message


def _share(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "less than 0.1 %"


def _show_codes(codes: np.ndarray, most: int = _SHOWN) -> str:
    shown = [f"({c >> 16},{c >> 8 & 255},{c & 255})" for c in codes[:most].tolist()]
    return f"({','.join(shown)}{',...' if len(codes) > most else ',' if len(shown) == 1 else ''})"
