"""Sizes of arrays that are not numbers yet.

While one program is traced for images of any size (`jaxseg.export`), a side is a symbol of `jax.export.symbolic_shape`.
It adds, multiplies and divides like a whole number; whether it is larger than another is not known. The forms for one
size, whose constants and choices depend on it, give way to forms that compute them from the size.
"""

from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import core

Side: TypeAlias = Any  # int, or a symbol


def is_known(*sizes: Side) -> bool:
    """Returns whether all sizes are numbers."""
    return all(isinstance(size, int) for size in sizes)


def array_module(*sizes: Side) -> Any:
    """Returns `numpy`, which computes constants in float64, or `jax.numpy` if a size is not known."""
    return np if is_known(*sizes) else jnp


def at_least_zero(size: Side) -> Side:
    """Returns max(size, 0)."""
    return max(size, 0) if is_known(size) else core.max_dim(size, 0)
