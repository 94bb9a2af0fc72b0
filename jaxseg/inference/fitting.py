"""Whether an image fits into memory whole, and how large tiles may be, by what compiled programs say that they take."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxseg.data.transforms import Size
from jaxseg.inference.memory import program_memory
from jaxseg.inference.networks import Networks
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
        program = networks.program(member, (1, *seen, networks.channels), dtype, values)
        if needed + program_memory(program) > free:
            return False
    return True


def auto_tile(networks: Networks, variables: Sequence[PyTree], free: int) -> Size:
    """Returns the (y, x) of tiles: the size in training, at least 512, and less where memory is short."""
    sides = [max(_USUAL, *(m.parts.config.data.size[axis] for m in networks.members)) for axis in (0, 1)]
    while max(sides) > _SMALLEST:
        needed = 0
        for member, values in zip(networks.members, variables):
            seen = [round(side * max(networks.views.scales)) for side in sides]
            program = networks.program(member, (1, *seen, networks.channels), np.uint8, values)
            needed = max(needed, program_memory(program))
        if needed <= free:
            break
        sides = [max(_SMALLEST, side // 2) for side in sides]
    return sides[0], sides[1]
