"""Lets the builders of TFDS prepare from an unpacked download on disk, without TensorFlow and without the network.

The builders of oxford_iiit_pet, cityscapes and scene_parse150 store files unchanged; they use TensorFlow only to list
folders and to repair about a dozen unusual JPEGs, and TFDS's download manager uses it to unpack archives. During the
preparation, `reading_from` replaces these functions by functions that use the standard library and Pillow.
"""

import inspect
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from jaxseg.pictures.opening import open_image


@contextmanager
def reading_from(folder: str, builder: Any) -> Iterator[None]:
    """Within this context, `builder` finds its downloads unpacked in `folder` and does not need TensorFlow."""
    # TFDS looks up its own source with importlib_resources, which it does not always install.
    type(builder).code_path = epath.Path(inspect.getfile(type(builder)))
    builder._make_download_manager = lambda **arguments: _Unpacked(folder)
    module = sys.modules[type(builder).__module__]
    if not hasattr(module, "tf"):
        yield
        return
    theirs = vars(module)["tf"]
    vars(module)["tf"] = _TOOLS
    try:
        yield
    finally:
        vars(module)["tf"] = theirs


class _Unpacked:
    """The part of TFDS's download manager that builders use, for downloads that are unpacked in one folder."""

    downloaded_size = 0

    def __init__(self, folder: str):
        self.manual_dir = folder

    def download_and_extract(self, urls: dict[str, str]) -> dict[str, str]:
        return {key: self.manual_dir for key in urls}

    def extract(self, path: str) -> str:
        return self.manual_dir


def _decode_image(data: bytes) -> np.ndarray:
    """Decodes a file to u8[h,w,c]; for an animation, the first frame."""
    with open_image(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA" if image.mode in ("P", "RGBA", "LA") else "RGB"))


def _encode_jpeg(image: np.ndarray) -> SimpleNamespace:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return SimpleNamespace(numpy=buffer.getvalue)


_TOOLS = SimpleNamespace(
    io=SimpleNamespace(
        # Cityscapes checks that its archives exist; here they are unpacked, and the folders are checked already.
        gfile=SimpleNamespace(listdir=lambda path: sorted(os.listdir(path)), exists=lambda path: True),
        encode_jpeg=_encode_jpeg,
    ),
    image=SimpleNamespace(decode_image=_decode_image),
    shape=np.shape,
)
