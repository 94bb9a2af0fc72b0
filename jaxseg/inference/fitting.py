"""Whether an image fits into memory whole, and how large tiles may be, by what compiled programs say that they take."""

import functools
import math
import weakref
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.transforms import Size
from jaxseg.errors import OutOfMemoryError, counted
from jaxseg.inference.networks import Member, Networks, Scores
from jaxseg.memory import Room, program_memory, room_of, shown
from jaxseg.types import PyTree

_SMALLEST, _USUAL = 64, 512  # sides of the tiles that are chosen: no smaller, and no larger unless trained so
_checked: weakref.WeakSet[Any] = weakref.WeakSet()  # programs that memory holds


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


def scored(
    networks: Networks,
    variables: Sequence[PyTree],
    images: Sequence[np.ndarray] | np.ndarray,
    *,
    whole: bool,
    memory: int | None = None,
) -> Scores:
    """Returns `Networks.scores`, after checking that memory holds each program that runs for the first time.

    Args:
        networks, variables, images, whole: see `Networks.scores`.
        memory: the bytes that there are; None: `compile.memory` of the first network says it.

    Raises:
        OutOfMemoryError: if memory does not hold a program; nothing is computed then.
    """
    setting = networks.members[0].parts.config.compile.memory
    for member, values in zip(networks.members, variables):
        for scale in networks.views.scales:
            h, w, channels = images[0].shape
            seen = member.network_size((h, w), scale) if whole else (round(h * scale), round(w * scale))
            program = networks.program(member, (len(images), *seen, channels), images[0].dtype, values)
            if program in _checked:
                continue
            room = room_of(setting) if memory is None else Room(memory, memory, "are what there may be")
            if room is not None and (needed := program_memory(program, with_arguments=False)) > room.free:
                raise OutOfMemoryError(_too_large(networks, variables, images, whole, needed, room))
            _checked.add(program)
    return networks.scores(variables, images, whole)


def _too_large(
    networks: Networks, variables: Sequence[PyTree], images: Any, whole: bool, needed: int, room: Room
) -> str:
    """Returns what images take and what would fit, as a sentence without its stop."""
    h, w = images[0].shape[:2]
    kind = "image" if whole else "tile"
    what = counted(len(images), kind) if len(images) > 1 else f"an {kind}" if whole else f"a {kind}"
    y, x = auto_tile(networks, variables, room.planned // 2)
    smaller = y * x < h * w
    way = f"--tiles {y}x{x} fits" if smaller else "not even the smallest tiles fit"
    return f"{what} of {h}x{w} pixels would take {shown(needed)} of memory, and {room.words}; {way}"


def stride_of(member: Member, variables: PyTree) -> int:
    """Returns the least number of pixels that the sides of an image are divided by, over the stages of a network."""
    side = 1024
    config = member.parts.config
    image = jax.ShapeDtypeStruct((1, side, side, config.data.channels), jnp.float32)
    shapes = jax.eval_shape(functools.partial(member.model.apply, train=False), variables, image)[1]
    maps = [leaf for leaf in jax.tree.leaves(shapes) if len(leaf.shape) == 4 and leaf.shape[1] == leaf.shape[2]]
    smallest = min((leaf.shape[1] for leaf in maps if leaf.shape[1] > 8), default=side)
    return max(1, side // smallest)
