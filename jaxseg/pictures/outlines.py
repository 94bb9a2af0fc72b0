"""Regions outlined on an image."""

from collections.abc import Sequence

import numpy as np

from jaxseg.pictures.colors import Colors
from jaxseg.pictures.images import to_rgb

OUTLINES: Colors = ((255, 225, 25), (60, 220, 255), (255, 80, 200), (120, 255, 90), (255, 140, 30), (170, 130, 255))
"""Bright colours of which neighbouring regions have different ones as a rule."""


def outlines(
    image: np.ndarray, labels: np.ndarray, colors: Colors = OUTLINES, of: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Returns u8[h,w,3]: the image with the border pixels of each region in a colour.

    A border pixel has a pixel of another region, or of none, above, below, left or right of it, inside the image.

    Args:
        image: u8, u16 or f32 in [0, 1], [h,w,c].
        labels: i[h,w], the number of the region of each pixel; 0 where there is none.
        colors: region i has colour (i - 1) mod n of these n.
        of: the place in `colors` of each region, such as its class, in place of that.

    Raises:
        ValueError: if the image and the regions differ in size.
    """
    rgb, labels = to_rgb(image).copy(), np.asarray(labels)
    if rgb.shape[:2] != labels.shape:
        raise ValueError(f"The image is {rgb.shape[:2]}, but the regions are {labels.shape}.")
    padded = np.pad(labels, 1, mode="edge")
    sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    border = (labels > 0) & np.any([side != labels for side in sides], axis=0)
    numbers = labels[border].astype(np.int64) - 1
    palette = np.asarray(colors, np.uint8)
    rgb[border] = palette[numbers % len(palette) if of is None else np.asarray(of)[numbers]]
    return rgb
