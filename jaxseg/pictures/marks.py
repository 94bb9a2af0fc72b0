"""The text in PNG files by which a command recognises its own outputs, so that it replaces no other file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from jaxseg.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

FIGURE = "jaxseg"
"""The text under "Software" in the figures that jaxseg draws."""

_SOFTWARE = 305  # the tag of TIFF

DPI = 110
"""The resolution of the figures that jaxseg draws."""

# Figures of earlier versions have matplotlib's own text, and only these names were chosen by a command.
_FORMER = re.compile(r"(check|confusion-[\w.-]+|curves|predictions|gradients|plot)\.png")


def software(path: str | Path) -> str:
    """Returns the text under "Software" in an image file; "" if there is none or the file is no image."""
    return _software_and_dpi(path)[0]


def opened(path: str | Path) -> "Image.Image":
    """Returns the PNG or TIFF file that jaxseg may have written, not decoded; a limit of pixels is for decoding alone.

    Raises:
        Exception: whatever Pillow raises for a damaged file, or one of another format.
    """
    from PIL import PngImagePlugin, TiffImagePlugin

    with open(path, "rb") as file:
        is_png = file.read(4) == b"\x89PNG"
    return PngImagePlugin.PngImageFile(path) if is_png else TiffImagePlugin.TiffImageFile(path)


def _software_and_dpi(path: str | Path) -> tuple[str, int]:
    try:
        with opened(path) as image:
            info, tags = image.info, getattr(image, "tag_v2", {})
            text = str(info["Software"]) if "Software" in info else str(tags[_SOFTWARE]) if _SOFTWARE in tags else ""
            return text, round(info["dpi"][0]) if "dpi" in info else 0
    except Exception:  # the classes are those of Pillow's decoders
        return "", 0


def require_own_figure(path: Path, instead: str) -> None:
    """Raises ConfigError if there is a file that is no figure of jaxseg; `instead` says what to do, for the message."""
    if path.is_dir() or not path.exists():
        return
    text, dpi = _software_and_dpi(path)
    of_matplotlib = text.startswith("Matplotlib version")
    if of_matplotlib and not (_FORMER.fullmatch(path.name) and dpi == DPI):
        raise ConfigError(
            f"The output {path} would replace a figure of matplotlib without the mark of jaxseg; {instead}, or delete "
            "it if an earlier version of jaxseg drew it."
        )
    if text != FIGURE and not of_matplotlib:
        raise refusal(path, instead)


def refusal(path: Path, instead: str) -> ConfigError:
    """Returns the error for an output that would replace a file of someone else."""
    return ConfigError(f"The output {path} would replace a file that jaxseg did not write; {instead}.")
