"""TIFF files that are cut short, of which the decoders say little or nothing."""

import os
from pathlib import Path
from typing import Any

from jaxseg.data.pages import is_tiff
from jaxseg.errors import DataError, counted


def require_whole(path: str | Path, page: Any) -> None:
    """Raises DataError if a part of the image lies beyond the end of the file; `page` is its open page of tifffile."""
    size = os.path.getsize(path)
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts)]
    missing = sum(end > size for end in ends)
    if missing:
        raise DataError(
            f"{path} is cut short: of {counted(len(ends), 'part')} of its image {missing} "
            f"{'lies' if missing == 1 else 'lie'} beyond its end; copy it again."
        )


def require_whole_tiff(path: str | Path) -> None:
    """Raises DataError if a file is TIFF and cut short; passes other files, and all without tifffile."""
    try:
        import tifffile

        if is_tiff(path):
            with tifffile.TiffFile(path) as file:
                require_whole(path, file.pages.first)
    except DataError:
        raise
    except Exception:  # tifffile is absent, or the header is damaged too; the classes are those of its decoders
        return
