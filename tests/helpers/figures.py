"""Blank figures: drawing the pictures takes a quarter of the time of a tiny run, and few tests are about them."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest
from PIL import Image, PngImagePlugin

from jaxseg.pictures import figure, marks

_DRAW = figure.draw


def _blank(_: Any, file: BinaryIO, **options: Any) -> None:
    content = io.BytesIO()
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", marks.FIGURE)
    Image.new("L", (1, 1)).save(content, format="PNG", pnginfo=mark)
    file.write(content.getvalue())


@contextlib.contextmanager
def blank_figures() -> Iterator[None]:
    """Makes every figure a picture of one pixel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure, "draw", _blank)
        yield


@contextlib.contextmanager
def drawn_figures() -> Iterator[None]:
    """Draws figures, inside `blank_figures` too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure, "draw", _DRAW)
        yield
