"""Data: sources (index -> image and mask), host transforms, the Grain pipeline, and augmentation on the device.

Names are imported at their first use, so that `import jaxseg.data` does not load Grain, TFDS or Pillow.
"""

import importlib
from typing import Any

from jaxseg.errors import DataError

_WHERE = {
    "DataInfo": "base",
    "Example": "base",
    "Source": "base",
    "make_source": "sources",
    "ShapesSource": "shapes",
    "FolderSource": "folder",
    "TFDSSource": "tfds",
    "make_eval_loader": "pipeline",
    "make_train_loader": "pipeline",
    "pixel_counts": "class_counts",
    "make_augment": "augment",
}

__all__ = ["DataError", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
