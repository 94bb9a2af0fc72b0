"""The theoretical receptive field: which pixels of the image a logit depends on at all, whatever the parameters are.

The program of the network is traced, and what depends on the image is followed backwards from the logits of one pixel.
Each equation passes the set of its outputs that matter on to its inputs: element by element, through the nonzero taps
of a convolution, through the nonzero weights of an interpolation, through all of a window of pooling. Parameters are
replaced by positive random numbers, so that no kernel of zeros and no cancelling sum hides a path. An equation that is
not listed here, and one whose places depend on the image (deformable attention), passes everything on; the result is
then too large rather than too small.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.compiler import options_for_once
from jaxseg.explain import tape
from jaxseg.types import PyTree

SIDES = (256, 1024)
"""The sides of the images on which `field_size` looks for the border of a receptive field."""
_THIN = 32  # their other side


class Box(NamedTuple):
    """A rectangle of pixels: rows top to bottom - 1, columns left to right - 1."""

    top: int
    left: int
    bottom: int
    right: int


def receptive_field(model: nn.Module, variables: PyTree, size: tuple[int, int, int], pixel: tuple[int, int]) -> Any:
    """Returns bool[h,w]: the pixels of an image that the logits f32[k] of one pixel depend on.

    Args:
        model: a network.
        variables: its variables, or their shapes; the values are not read.
        size: (height, width, channels) of the image.
        pixel: (row, column) of the logits.
    """
    shapes = jax.eval_shape(lambda: variables) if not _are_shapes(variables) else variables
    image = jax.ShapeDtypeStruct((1, *size), jnp.float32)

    def forward(variables: PyTree, image: jax.Array) -> jax.Array:
        return model.apply(variables, image, train=False)[0]

    closed = jax.make_jaxpr(forward)(shapes, image)

    def supported(variables: PyTree, row: jax.Array, column: jax.Array) -> jax.Array:
        given = jax.tree.leaves(variables)
        recorded = tape.record(closed, [*given, tape.Tracked(image.shape)])
        seed = jnp.zeros(closed.out_avals[0].shape, jnp.float32).at[:, row, column].set(1.0)
        return tape.backwards(recorded, seed)[0].max(-1) > 0

    compiled = jax.jit(supported, compiler_options=options_for_once())
    return np.asarray(compiled(_positive(shapes), *map(jnp.asarray, pixel)))


def field_size(model: nn.Module, variables: PyTree, channels: int, sides: tuple[int, ...] = SIDES) -> tuple[int, int]:
    """Returns the (height, width) of the receptive field of a pixel amid a large image; 0 where it has no border.

    It looks at thin images of the given sides, each a multiple of 32, and stops at the first in which the field ends
    before the image does. A field that covers the longest is that of the whole image, as with global pooling, with
    attention, or with a norm over places, or larger than that image.
    """
    return _extent(model, variables, channels, sides, 0), _extent(model, variables, channels, sides, 1)


def _extent(model: nn.Module, variables: PyTree, channels: int, sides: tuple[int, ...], axis: int) -> int:
    for side in sides:
        height, width = (side, _THIN) if axis == 0 else (_THIN, side)
        field = receptive_field(model, variables, (height, width, channels), (height // 2, width // 2))
        reached = np.flatnonzero(field.any(1 - axis))
        if len(reached) and reached[0] > 0 and reached[-1] < side - 1:
            return int(reached[-1] - reached[0] + 1)
    return 0


def box_of(field: np.ndarray) -> Box:
    """Returns the smallest rectangle around the pixels of bool[h,w]; an empty one at the top left if there are none."""
    rows, columns = np.flatnonzero(field.any(1)), np.flatnonzero(field.any(0))
    if not len(rows):
        return Box(0, 0, 0, 0)
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _are_shapes(tree: PyTree) -> bool:
    return all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))


def _positive(shapes: PyTree) -> PyTree:
    """Returns arrays of these shapes with numbers in [0.5, 1.5], all different in general."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype), shapes)
