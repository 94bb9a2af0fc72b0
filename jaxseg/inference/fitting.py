"""Whether an image fits into memory whole, and how large tiles may be, by what compiled programs say that they take."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.transforms import Size
from jaxseg.inference.networks import Member, Networks
from jaxseg.types import PyTree

_SMALLEST, _USUAL = 64, 512  # sides of the tiles that are chosen: no smaller, and no larger unless trained so


def fits_whole(networks: Networks, variables: Sequence[PyTree], size: Size, dtype: Any, free: int) -> bool:
    """Returns whether memory holds the prediction of a whole image; nothing is computed.

    Args:
        networks: the networks and the views.
        variables: of each network.
        size: (h, w) of the image.
        dtype: of the image.
        free: the bytes that there are.
    """
    k = networks.num_classes
    needed = 3 * 4 * k * math.prod(size)  # logits at the image's size, as probabilities, and in one copy
    for member, values in zip(networks.members, variables):
        seen = member.network_size(size, max(networks.views.scales))
        if needed + 4 * k * math.prod(seen) > free:  # not worth compiling
            return False
        if needed + networks.memory(member, (1, *seen, networks.channels), dtype, values) > free:
            return False
    return True


def auto_tile(networks: Networks, variables: Sequence[PyTree], free: int) -> Size:
    """Returns the (y, x) of tiles: the size in training, at least 512, and less where memory is short."""
    sides = [max(_USUAL, *(m.parts.config.data.size[axis] for m in networks.members)) for axis in (0, 1)]
    while max(sides) > _SMALLEST:
        needed = 0
        for member, values in zip(networks.members, variables):
            seen = [round(side * max(networks.views.scales)) for side in sides]
            needed = max(needed, networks.memory(member, (1, *seen, networks.channels), np.uint8, values))
        if needed <= free:
            break
        sides = [max(_SMALLEST, side // 2) for side in sides]
    return sides[0], sides[1]


def stride_of(member: Member, variables: PyTree) -> int:
    """Returns the least number of pixels that the sides of an image are divided by, over the stages of a network."""
    side = 1024
    config = member.parts.config
    image = jax.ShapeDtypeStruct((1, side, side, config.data.channels), jnp.float32)
    shapes = jax.eval_shape(functools.partial(member.model.apply, train=False), variables, image)[1]
    maps = [leaf for leaf in jax.tree.leaves(shapes) if len(leaf.shape) == 4 and leaf.shape[1] == leaf.shape[2]]
    smallest = min((leaf.shape[1] for leaf in maps if leaf.shape[1] > 8), default=side)
    return max(1, side // smallest)
