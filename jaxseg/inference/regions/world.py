"""Where the pixels of an image lie in the world: the geotransform of a TIFF file, or a world file beside an image."""

import contextlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg.errors import ArgumentError, DataError
from jaxseg.pictures.opening import open_image

_SCALE, _TIEPOINT, _MATRIX, _KEYS = 33550, 33922, 34264, 34735  # tags of GeoTIFF
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1025, 2048, 3072  # keys of GeoTIFF
_AT_POINTS, _USER_DEFINED = 2, 32767  # values of keys


class World(NamedTuple):
    """An affine map from places in an image to coordinates in the world: X = a x + b y + c, Y = d x + e y + f.

    (x, y) = (0, 0) is the outer corner of the first pixel, (1, 1) its inner corner, and (.5, .5) its middle.

    Attributes:
        a, b, c, d, e, f: the six numbers, in the order of `affine.Affine` and rasterio.
        epsg: the number of the coordinate system in the register of EPSG; None where the file has none.
    """

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float
    epsg: int | None = None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Places f64[n,2] (x, y) of the image -> coordinates f64[n,2] (X, Y) of the world."""
        x, y = np.asarray(points, np.float64).T
        return np.stack([self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f], -1)

    @property
    def pixel_area(self) -> float:
        """The area of a pixel, in the square of the unit of the coordinates."""
        return abs(self.a * self.e - self.b * self.d)

    @property
    def mirrors(self) -> bool:
        """Whether a turn to the right in the image is one to the left in the world, as where the north is up."""
        return self.a * self.e - self.b * self.d < 0


def make_world(numbers: Sequence[float], epsg: int | None = None) -> World:
    """Returns the map of six numbers a, b, c, d, e, f.

    Raises:
        ArgumentError: if they are not six finite numbers, or map all pixels to a line.
    """
    values = tuple(float(number) for number in numbers)
    if len(values) != 6 or not all(map(math.isfinite, values)):
        raise ArgumentError(f"An affine map has six finite numbers a, b, c, d, e, f, got {list(numbers)}.")
    world = World(*values, epsg)
    if world.pixel_area == 0:
        raise ArgumentError(f"The affine map {list(values)} gives pixels no area; its order is a, b, c, d, e, f.")
    return world


def read_world(path: str | Path) -> World | None:
    """Returns where the pixels of an image file lie; None if the file does not say it.

    A GeoTIFF says it by ModelTransformation, or by ModelPixelScale and ModelTiepoint (GeoTIFF 1.1, section 7.6). Beside
    any image a world file may lie, with the ending .tfw, .pgw, .jgw, ... (the first and last letter of the ending and
    a w) or .wld, whose six lines are a, d, b, e and the coordinates of the middle of the first pixel.

    Raises:
        DataError: if a world file does not hold six numbers.
    """
    path = Path(path)
    tags = _tags(path)
    return (_of_tags(tags) if tags else None) or _of_world_file(path)


def _tags(path: Path) -> dict[int, Any]:
    """Returns the tags of GeoTIFF in a file; none for a file of another type, or one that is damaged."""
    # The classes of errors are those of Pillow's decoders, and below those of tifffile's.
    with contextlib.suppress(Exception), open_image(path) as image:
        stored = getattr(image, "tag_v2", {})
        return {tag: stored[tag] for tag in (_SCALE, _TIEPOINT, _MATRIX, _KEYS) if tag in stored}
    with contextlib.suppress(Exception):
        import tifffile

        with tifffile.TiffFile(path) as file:
            stored = file.pages[0].tags  # pyright: ignore
            return {tag: stored[tag].value for tag in (_SCALE, _TIEPOINT, _MATRIX, _KEYS) if tag in stored}
    return {}


def _of_tags(tags: dict[int, Any]) -> World | None:
    if _MATRIX in tags and len(tags[_MATRIX]) >= 8:
        a, b, _, c, d, e, _, f = map(float, tags[_MATRIX][:8])
    elif _SCALE in tags and _TIEPOINT in tags and len(tags[_SCALE]) >= 2 and len(tags[_TIEPOINT]) >= 6:
        (a, e), (x, y, _, east, north, _) = map(float, tags[_SCALE][:2]), map(float, tags[_TIEPOINT][:6])
        a, b, c, d, e, f = a, 0.0, east - a * x, 0.0, -e, north + e * y
    else:
        return None
    keys = _geo_keys(tags)
    if _RASTER_TYPE in keys and keys[_RASTER_TYPE] == _AT_POINTS:  # the coordinates are those of middles
        c, f = c - (a + b) / 2, f - (d + e) / 2
    codes = [keys[key] for key in (_PROJECTED, _GEOGRAPHIC) if key in keys and 0 < keys[key] < _USER_DEFINED]
    world = World(a, b, c, d, e, f, codes[0] if codes else None)
    return world if world.pixel_area > 0 and all(map(math.isfinite, world[:6])) else None


def _geo_keys(tags: dict[int, Any]) -> dict[int, int]:
    """The keys of a GeoTIFF whose value stands in the directory itself."""
    directory = [int(v) for v in tags[_KEYS]] if _KEYS in tags else []
    rows = [directory[i : i + 4] for i in range(4, len(directory) - 3, 4)]
    return {key: value for key, place, _, value in rows if place == 0}


def is_world_file(path: Path) -> bool:
    """Returns whether a file has the ending of a world file: .tfw, .pgw, .jgw, .pngw, ..., .wld."""
    return re.fullmatch(r"\.(\w{1,4}w|wld)", path.suffix.lower()) is not None


def _of_world_file(path: Path) -> World | None:
    ending = path.suffix[1:]
    candidates = [path.with_suffix(f".{ending[0]}{ending[-1]}w")] if ending else []
    for candidate in (*candidates, path.with_name(f"{path.name}w"), path.with_suffix(".wld")):
        if candidate == path or not candidate.is_file():
            continue
        try:
            a, d, b, e, c, f = (float(word) for word in candidate.read_text(encoding="utf-8").split())
            return make_world((a, b, c - (a + b) / 2, d, e, f - (d + e) / 2))
        except OSError as error:
            raise DataError(f"The world file {candidate} cannot be read: {error.strerror or error}.") from error
        except ValueError as error:
            raise DataError(
                f"The world file {candidate} of {path.name} must hold six numbers, one a line, with pixels of some "
                "area; correct or remove it."
            ) from error
    return None
