"""Recognises a folder whose images lie under masks/ and whose masks lie under images/."""

from collections.abc import Sequence

import numpy as np

from jaxseg.data.classes_file import FILE
from jaxseg.data.images import read_header, read_image
from jaxseg.data.layout import Folders
from jaxseg.data.masks import Palette
from jaxseg.data.pairs import Pair
from jaxseg.errors import DataError

_LOOKED_AT = 3  # pairs, evenly spaced
_PIXELS = 2**16  # of a file that are counted, evenly spaced
_FEW, _MANY = 32, 128  # different colours in a mask at most, and in one of the photographs at least


def require_not_swapped(folders: Folders, pairs: Sequence[Pair], palette: Palette | None, named: int) -> None:
    """Raises DataError if the images and the masks of a split seem to be in each other's folder."""
    if are_swapped(pairs, palette, named):
        raise DataError(
            f"{folders.masks} holds photographs, such as {pairs[0].mask}, and {folders.images} pictures of a few "
            f"values as masks have, such as {pairs[0].image}: the two folders seem to be swapped. Give each the name "
            f"of the other. If the masks do hold that many classes, name them in a {FILE}."
        )


def are_swapped(pairs: Sequence[Pair], palette: Palette | None, named: int) -> bool:
    """Returns whether the masks hold more colours than masks do, as photographs, and the images as few as masks do.

    A dark grey photograph has few colours too, so each of those looked at must have more than a mask, and one of them
    many. Of most folders one mask is decoded, which has few colours. `named` is the number of classes that the user has
    named; masks of a value for each of these, and of an ignored one, are no photographs.
    """
    known = max(_FEW, len(palette.colors if palette is not None else ()), 1 + named)
    chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(_LOOKED_AT, len(pairs))).round().astype(int)]
    try:
        most = 0
        for pair in chosen:
            if pair.mask is None or not (read_header(pair.mask).lossy or read_header(pair.mask).mode in ("RGB", "L")):
                return False
            colors = _colors(pair.mask)
            if colors <= known or _colors(pair.image) > _FEW:
                return False
            most = max(most, colors)
        return most >= _MANY
    except DataError:
        return False


def _colors(path: object) -> int:
    """Returns the number of different colours in a picture, counted in some of its pixels."""
    pixels = read_image(str(path), 3).reshape(-1, 3)
    return len(np.unique(pixels[:: max(1, len(pixels) // _PIXELS)], axis=0))
