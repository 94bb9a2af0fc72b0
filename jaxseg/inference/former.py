"""Recognises the outputs of earlier versions of prediction, which had no mark."""

from pathlib import Path

import numpy as np

from jaxseg import pictures
from jaxseg.data.images import read_image
from jaxseg.pictures.opening import open_image


def are_outputs_of(image: Path, classes: Path, overlay: Path) -> bool:
    """Returns whether `overlay` is the image with the classes laid over it, in the colours of their palette."""
    try:
        with open_image(classes) as indices, open_image(overlay) as picture:
            colors = indices.getpalette() if indices.mode == "P" else None
            if colors is None or picture.mode != "RGB" or picture.size != indices.size:
                return False
            labels, drawn = np.array(indices), np.array(picture).astype(int)
        values, places = np.unique(labels, return_inverse=True)  # a class may have the value 255, which is not ignored
        table = [tuple(colors[3 * value : 3 * value + 3]) or (0, 0, 0) for value in values.tolist()]
        labels = places.reshape(labels.shape).astype(np.uint8)
        laid = (pictures.overlay(read_image(image, channels), labels, table) for channels in (3, 1))
        return any(np.abs(each - drawn).max() <= 1 for each in laid)  # earlier versions rounded otherwise
    except Exception:  # the classes are those of Pillow's decoders
        return False
