"""Shared parts of the matplotlib figures: resolution, short names, and writing PNG files atomically."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxseg.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110


def shorten(text: str, length: int) -> str:
    """Returns the text, cut to `length` characters with an ellipsis at the end."""
    return text if len(text) <= length else text[: length - 1] + "…"


def save_figure(figure: "Figure", path: str | Path, **options: Any) -> None:
    """Writes a figure as a PNG file, atomically."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", **options))
