"""The classes of masks of indices that no file explains: found in their values."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxseg.data.base import DataInfo
from jaxseg.data.classes import Meaning
from jaxseg.errors import DataError
from jaxseg.pictures import default_colors
from jaxseg.types import IGNORE, IGNORE_16

_BINARY = {0, IGNORE}


def meaning_of_values(masks: Iterable[Callable[[], np.ndarray]], names: Sequence[str], where: Path) -> Meaning:
    """Returns the classes: 0 and 255 alone are background and foreground, else the values are indices.

    Args:
        masks: each reads the values of a mask; one that raises DataError is left out, since its image is listed later.
            They are read only as far as they can change the result.
        names: of the classes, in their order; empty: "class 0", "class 1", ... up to the largest value.
        where: the masks are, for the message.

    Raises:
        DataError: if there are not two classes.
    """
    values: set[int] = set()
    for read in masks:
        if names and not (len(names) == 2 and values <= _BINARY):
            break
        try:
            values |= set(np.unique(read()).tolist())
        except DataError:
            continue
    if values == _BINARY and len(names) in (0, 2):
        names, stored = names or ("background", "foreground"), (0, IGNORE)
    else:
        largest = max(values - {IGNORE, IGNORE_16}, default=0)
        names = names or tuple(f"class {value}" for value in range(largest + 1))
        stored = tuple(range(len(names)))
    if len(names) < 2:
        raise DataError(f"The masks in {where} hold no two classes; name the classes with --classes.")
    return Meaning(DataInfo(tuple(names), default_colors(len(names)), None, 3), stored)
