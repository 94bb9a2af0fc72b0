"""Writes arrays as picture files in folders that need not exist."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def save_picture(path: Path, values: Any, **options: Any) -> Path:
    """Writes [h,w] or [h,w,3], from 0 to 255, in the form of the suffix; `options` are those of Pillow's `save`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path, **options)
    return path
