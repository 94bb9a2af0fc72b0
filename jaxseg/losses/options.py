"""What the arguments of a loss may be, checked before anything is computed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxseg.errors import nearest
from jaxseg.types import Array

_TRUE_OR_FALSE = ("squared", "per_image", "log", "include_background", "one_vs_rest")
_WHOLE = ("samples", "max_distance", "width", "tolerance")
_SHARES = ("focal.alpha", "ohem.thresh", "ohem.min_kept")


def checked_option(name: str, key: str, value: Any, known: Sequence[str], classes: int) -> Any:
    """Returns the argument `key` of the loss `name` in its right type.

    Raises:
        ValueError: if the loss has no such argument (naming the nearest), or it cannot be this.
    """
    if key not in known:
        raise ValueError(f"The loss {name} has no argument {key!r}.{nearest(key, known)}")
    if key == "class_weights":
        return checked_weights(value, classes)
    if key in _TRUE_OR_FALSE:
        if not isinstance(value, bool):
            raise ValueError(f"{name}.{key} must be True or False, got {value!r}.")
        return value
    if key in _WHOLE:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}.{key} must be a whole number of at least 1, got {value!r}.")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise ValueError(f"{name}.{key} must be a number of at least 0, got {value!r}.")
    if key == "label_smoothing" and value >= 1.0:
        raise ValueError(f"{name}.label_smoothing must lie in [0, 1), got {value}.")
    if f"{name}.{key}" in _SHARES and value > 1.0:
        raise ValueError(f"{name}.{key} must lie in [0, 1], got {value}.")
    return float(value)


def checked_weights(weights: Sequence[float] | Array, classes: int) -> tuple[float, ...]:
    """Returns class weights as numbers.

    Raises:
        ValueError: if they are not one a class, or negative, infinite or all 0.
    """
    values = np.asarray(weights, np.float64)
    if values.shape != (classes,):
        raise ValueError(f"class_weights must be {classes} numbers, one per class, got shape {values.shape}.")
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ValueError(f"class_weights must be at least 0, finite and not all 0, got {values.tolist()}.")
    return tuple(values.tolist())
