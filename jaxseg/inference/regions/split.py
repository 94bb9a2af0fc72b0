"""Objects that touch, split by the watershed of their distance to the border (scikit-image)."""

from typing import Any

import numpy as np
from scipy import ndimage

from jaxseg.errors import ConfigError
from jaxseg.inference.regions.components import borders, components_of


def require_scikit_image() -> tuple[Any, Any]:
    """Returns (skimage.morphology, skimage.segmentation.watershed).

    Raises:
        ConfigError: if scikit-image is not installed.
    """
    try:
        from skimage import morphology
        from skimage.segmentation import watershed
    except ImportError as error:
        raise ConfigError(
            "Splitting objects that touch needs scikit-image: pip install -e '.[regions]' installs it."
        ) from error
    return morphology, watershed


def split_touching(labels: np.ndarray, depth: float = 1.0, min_area: int = 0) -> np.ndarray:
    """Splits regions at their waists, i32[h,w] -> i32[h,w], numbered from 1 in the order of the given regions.

    Each pixel has its distance to the nearest pixel outside its region. Objects that touch are hills of that map, with
    a saddle between them. A hill counts as an object of its own if its top is higher by at least `depth` than the
    saddle towards a higher hill (an extended maximum: Soille, Morphological Image Analysis, 2004, section 6.3.4). The
    watershed of the negative distance then divides the region among its objects, without a gap. A region with one hill
    stays as it is.

    Args:
        labels: the number of the region of each pixel, 0 where there is none.
        depth: in pixels, above 0; larger values split less. The steps of the outline make false hills below about 0.5.
        min_area: a part of fewer pixels joins the part of its region with which it shares the longest border.

    Raises:
        ValueError: if an argument is invalid.
        ConfigError: if scikit-image is not installed.
    """
    labels = np.asarray(labels, np.int32)
    if labels.ndim != 2 or not depth > 0:
        raise ValueError(f"The split needs an array [h,w] and a depth above 0, got {list(labels.shape)} and {depth!r}.")
    morphology, watershed = require_scikit_image()
    result, count = np.zeros_like(labels), 0
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        here = labels[box] == number
        parts = _parts(here, depth, morphology, watershed)
        if min_area > 1:
            parts = _without_small(parts, min_area)
        result[box][here] = parts[here] + count
        count += int(parts.max())
    return result


def _parts(here: np.ndarray, depth: float, morphology: Any, watershed: Any) -> np.ndarray:
    """bool[h,w] -> i32[h,w]: the parts of one region, from 1; 0 outside."""
    here = np.pad(here, 1)
    distance = np.asarray(ndimage.distance_transform_edt(here))
    if distance.max() > depth:
        lowered = morphology.reconstruction(distance - depth, distance)
        tops, count = components_of(morphology.local_maxima(lowered) & here, np.ones((3, 3), bool))
        if count > 1:
            return watershed(-distance, tops, connectivity=2, mask=here)[1:-1, 1:-1].astype(np.int32)
    return here[1:-1, 1:-1].astype(np.int32)


def _without_small(parts: np.ndarray, min_area: int) -> np.ndarray:
    """Joins parts of fewer than `min_area` pixels to their neighbours, smallest first; numbers stay without a gap."""
    while True:
        area = np.bincount(parts.ravel())
        area[0] = 0
        small = min((i for i in range(1, len(area)) if 0 < area[i] < min_area), key=lambda i: area[i], default=0)
        beside = borders(parts, connectivity=8)[small] if small and np.count_nonzero(area) > 1 else {}
        if not beside:
            return np.concatenate([[0], np.cumsum(area[1:] > 0) * (area[1:] > 0)])[parts].astype(np.int32)
        parts = np.where(parts == small, max(beside, key=lambda i: (beside[i], area[i], -i)), parts)
