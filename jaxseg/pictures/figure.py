"""Shared parts of the matplotlib figures: resolution, short names, and writing PNG files atomically."""

import contextlib
import functools
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jaxseg.errors import first_line, printable
from jaxseg.files import write_atomically
from jaxseg.pictures import marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = marks.DPI
_LOG = logging.getLogger(__name__)


def shorten(text: str, length: int) -> str:
    """Returns the text as `printable` gives it, cut to `length` characters with an ellipsis at the end."""
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


@contextlib.contextmanager
def plain_text() -> Iterator[None]:
    """Makes matplotlib draw every text as it is, a name with two `$` too, which it would read as a formula."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}):
        yield


@contextlib.contextmanager
def noting_errors(path: str | Path) -> Iterator[None]:
    """Logs an error in drawing the picture `path`, so that it ends no command; an OSError, in writing it, is raised."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # whatever a drawing library raises
        _LOG.warning("the picture %s cannot be drawn: %s.", path, first_line(error))


def save_figure(figure: "Figure", path: str | Path, **options: Any) -> None:
    """Writes a figure as a PNG file, atomically, with the mark of jaxseg."""
    write_atomically(path, lambda file: draw(figure, file, **options))


def draw(figure: "Figure", file: BinaryIO, **options: Any) -> None:
    """Draws a figure into an open file as PNG, with the mark of jaxseg; logs which letters its font does not have."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(file, format="png", metadata={"Software": marks.FIGURE}, **options)
    lacking = set()
    for warning in caught:
        glyph = re.match(r"Glyph (\d+) .*missing from", str(warning.message))
        if glyph:
            lacking.add(chr(int(glyph[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if lacking:
        _note_letters("".join(sorted(lacking)))


@functools.cache
def _note_letters(letters: str) -> None:
    """Says once for the same letters that pictures show boxes in their place."""
    _LOG.warning(
        "the font of the pictures lacks the letters %s, and boxes stand for them; font.family in the file matplotlibrc "
        "names a font that has them.",
        shorten(letters, 20),
    )
