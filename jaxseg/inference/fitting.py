"""What a prediction takes of the memory, known before it runs; whether an image fits whole, and how large tiles may be.

It is what is really run: the compiled network, its logits and what they are resized to, probabilities and classes, and
of tiles also the sums that they are added to. `--tiles auto` and the refusal of an image ask the same functions.
"""

import functools
import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.transforms import Size
from jaxseg.errors import OutOfMemoryError, counted
from jaxseg.inference import placement
from jaxseg.inference.networks import Member, Networks, Scores
from jaxseg.memory import NOT_CHECKED, Room, free_memory, parse_amount, program_memory, room_of, shown
from jaxseg.types import PyTree

_SMALLEST, _USUAL = 64, 512  # sides of the tiles that are chosen: no smaller, and no larger unless trained so
_MOST_SUMS = 2**28  # bytes for the sums of a strip: wider strips save little time
_checked: weakref.WeakKeyDictionary[Networks, set[Any]] = weakref.WeakKeyDictionary()  # what memory holds


class Images(NamedTuple):
    """What networks see at once: `count` images of a size (y, x) and type, and whether they are whole ones or tiles."""

    count: int
    size: Size
    dtype: Any
    whole: bool = True


class Sums(NamedTuple):
    """What the scores of tiles are added to.

    Attributes:
        dtype: of the sums, "float32" or "float16".
        probabilities: whether these are made of the sums.
        kept: bytes of what is kept of a whole image until all its tiles are done.
    """

    dtype: str = "float32"
    probabilities: bool = False
    kept: int = 0


def planned_memory(networks: Networks, memory: int | None) -> int:
    """Returns the bytes that a prediction may plan with: `memory`, or what `compile.memory` gives, or what is free."""
    setting = networks.members[0].parts.config.compile.memory
    if memory is not None:
        return memory
    return parse_amount(setting) if setting and setting != NOT_CHECKED else free_memory()


def images_memory(
    networks: Networks, variables: Sequence[PyTree], images: Images, probabilities: bool, enough: float = math.inf
) -> int:
    """Returns the bytes on a device that the prediction of whole images takes beside the variables.

    With CPU devices they are those of all, which share the memory. Nothing is computed.

    Args:
        networks: the networks and the views.
        variables: of each network.
        images: whole ones.
        probabilities: whether these are made too.
        enough: bytes above which the exact number is of no use, so that no network is compiled for it.
    """
    canvas = networks.canvas([images.size], whole=True)
    pixels = images.count * math.prod(canvas)
    scores = _scores(networks, images.count, canvas)
    after = scores + _outcome(networks, images.count, pixels, probabilities)
    return after if after > enough else max(after, _scoring(networks, variables, images))


def tiles_memory(networks: Networks, variables: Sequence[PyTree], tiles: Images, sums: Sums) -> int:
    """Returns the bytes on a device that a prediction in tiles takes at least beside the variables.

    These are what the networks take of one batch of tiles while the scores of the last are added, and the sums of a
    strip as wide as a tile.
    """
    scoring = _scoring(networks, variables, tiles) + _scores(networks, tiles.count, tiles.size)
    return scoring + tiles.size[1] * _column(networks, tiles.size[0], sums) + sums.kept


def fits_whole(networks: Networks, variables: Sequence[PyTree], image: Images, probabilities: bool, free: int) -> bool:
    """Returns whether `free` bytes hold the prediction of a whole image, see `images_memory`."""
    return images_memory(networks, variables, image, probabilities, free) <= free


def largest_tile(
    networks: Networks, variables: Sequence[PyTree], dtype: Any, sums: Sums, multiple: int, free: int
) -> Size | None:
    """Returns the (y, x) of the largest tiles that `free` bytes hold: the size in training, at least 512, or a half, a
    quarter, ... of it, at least 64. None: not even the smallest fit.

    Args:
        networks, variables: see `images_memory`.
        dtype: of the image.
        sums: see `tiles_memory`.
        multiple: of which the sides of tiles are made a multiple, see `tiles.make_grid`.
        free: the bytes that there are.
    """
    sides = [max(_USUAL, *(m.parts.config.data.size[axis] for m in networks.members)) for axis in (0, 1)]
    count = placement.batch_devices(networks.mesh)
    while True:
        y, x = (-(-side // multiple) * multiple for side in sides)
        tiles = Images(count, (y, x), dtype, whole=False)
        least = tiles.size[1] * _column(networks, y, sums) + sums.kept + _scores(networks, count, tiles.size)
        if least <= free and tiles_memory(networks, variables, tiles, sums) <= free:  # the first compiles nothing
            return y, x
        if max(sides) <= _SMALLEST:
            return None
        sides = [max(_SMALLEST, side // 2) for side in sides]


def auto_tile(*arguments: Any) -> Size:
    """Returns `largest_tile` of the arguments, or where none fits the smallest, which is refused before it runs."""
    return largest_tile(*arguments) or (_SMALLEST, _SMALLEST)


def strip_columns(networks: Networks, variables: Sequence[PyTree], tiles: Images, sums: Sums, free: int) -> int:
    """Returns the columns of a strip (`tiles.strips`) that `free` bytes hold beside what the networks take."""
    spare = free - tiles_memory(networks, variables, tiles, sums)
    more = min(spare // 2, _MOST_SUMS) // _column(networks, tiles.size[0], sums)
    return tiles.size[1] + max(0, more)


def tiles_at_once(
    networks: Networks, variables: Sequence[PyTree], tile: Images, sums: Sums, most: int, free: int
) -> Images:
    """Returns the tiles that the networks take at once: on CPUs one a device, else `eval.batch_size`, or fewer where
    memory is short.

    Args:
        networks, variables, sums, free: see `largest_tile`.
        tile: one for each device.
        most: as many as are worth it.
    """
    devices = placement.batch_devices(networks.mesh)
    wanted = devices
    if jax.default_backend() != "cpu":
        wanted = max(devices, networks.members[0].parts.config.eval.batch_size)
    count = min(-(-wanted // devices), -(-most // devices)) * devices
    while count > devices and tiles_memory(networks, variables, tile._replace(count=count), sums) > free:
        count = max(1, count // devices // 2) * devices
    return tile._replace(count=count)


def scored(
    networks: Networks,
    variables: Sequence[PyTree],
    images: Sequence[np.ndarray],
    *,
    probabilities: bool = True,
    memory: int | None = None,
) -> Scores:
    """Returns `Networks.scores` of whole images, after checking that memory holds what runs for the first time.

    Args:
        networks, variables, images: see `Networks.scores`.
        probabilities: whether these are made of the scores too.
        memory: the bytes that there are; None: `compile.memory` of the first network says it.

    Raises:
        OutOfMemoryError: if memory does not hold it; nothing is computed then.
    """
    h, w = (max(image.shape[axis] for image in images) for axis in (0, 1))
    seen = Images(len(images), (h, w), images[0].dtype)
    form = (seen, probabilities, memory)
    if form not in _checked.setdefault(networks, set()):
        room = _room(networks, memory)
        if room is not None:
            needed = images_memory(networks, variables, seen, probabilities, room.free)
            if needed > room.free:
                raise OutOfMemoryError(
                    _too_large(networks, variables, seen, Sums("float32", probabilities), needed, room)
                )
        _checked[networks].add(form)
    return networks.scores(variables, images, True)


def require_tiles(
    networks: Networks,
    variables: Sequence[PyTree],
    tiles: Images,
    sums: Sums,
    memory: int | None,
    option: str = "--tiles ",
    agreed: bool = False,
) -> None:
    """Raises OutOfMemoryError unless memory holds the prediction of tiles, at the first time; see `scored`.

    `option` begins the words with which the error names tiles that fit. With `agreed` all processes decide alike, and
    all must call this function for the same tiles; without it each decides for itself.
    """
    form = (tiles, sums, memory)
    if form in _checked.setdefault(networks, set()):
        return
    room = _room(networks, memory, agreed)
    if room is not None and (needed := tiles_memory(networks, variables, tiles, sums)) > room.free:
        raise OutOfMemoryError(_too_large(networks, variables, tiles, sums, needed, room, option))
    _checked[networks].add(form)


def _room(networks: Networks, memory: int | None, agreed: bool = False) -> Room | None:
    """Returns the memory that there is: unless `agreed` that of this process, since each may have other images."""
    if memory is not None:
        return Room(memory, memory, "are what there may be")
    return room_of(networks.members[0].parts.config.compile.memory, agreed=agreed)


def _scores(networks: Networks, count: int, size: Size) -> int:
    """Returns the bytes on a device of scores f32[count,*size,k]."""
    return 4 * networks.num_classes * count * math.prod(size) // placement.shares(networks.mesh, count)


def _outcome(networks: Networks, count: int, pixels: int, probabilities: bool) -> int:
    """Returns the bytes on a device of what is made of the scores of pixels: classes i32, twice, and probabilities."""
    made = 8
    if probabilities:
        made += 4 * networks.num_classes + 11 * networks.top_k  # of the likeliest: values and indices, and f16 and u8
    return made * pixels // placement.shares(networks.mesh, count)


def _scoring(networks: Networks, variables: Sequence[PyTree], images: Images) -> int:
    """Returns the bytes on a device of the networks' programs, and of what their logits become in each view."""
    canvas = networks.canvas([images.size], images.whole)
    scores, views = _scores(networks, images.count, canvas), networks.views
    devices = 1 if networks.mesh is None or jax.default_backend() != "cpu" else networks.mesh.size
    most = 0
    for member, values in zip(networks.members, variables):
        for scale in views.scales:
            seen = member.size_of(images.size, scale, images.whole)
            shape = (images.count, *seen, networks.channels)
            program = networks.program(member, shape, images.dtype, values)
            picture = math.prod(shape) * np.dtype(images.dtype).itemsize  # stacked on the host, and on the devices
            picture = picture // placement.shares(networks.mesh, images.count)
            running = devices * program_memory(program, with_arguments=False) + 2 * picture
            logits = _scores(networks, images.count, seen)
            upright = logits if any(map(any, views.flips)) else 0
            moved = logits + upright + (0 if seen == canvas == images.size else scores)
            held = 0 if networks.single else scores  # the mean of the views so far
            most = max(most, held + max(running, moved))
    return most


def _column(networks: Networks, rows: int, sums: Sums) -> int:
    """Returns the bytes on a device of a column of a strip: its sums, twice while they move, and of two rows of tiles
    the scores and what is made of them."""
    done = 4 * networks.num_classes + _outcome(networks, 1, 1, sums.probabilities)
    return rows * (2 * np.dtype(sums.dtype).itemsize * networks.num_classes + 2 * done)


def _too_large(
    networks: Networks,
    variables: Sequence[PyTree],
    images: Images,
    sums: Sums,
    needed: int,
    room: Room,
    option: str = "--tiles ",
) -> str:
    """Returns what images take and what would fit, as a sentence without its stop."""
    (h, w), kind = images.size, "image" if images.whole else "tile"
    what = counted(images.count, kind) if images.count > 1 else f"an {kind}" if images.whole else f"a {kind}"
    if images.whole:  # tiles are shared by all devices
        networks = replace(networks, mesh=placement.predictor_mesh(True, 1), _programs={})
        variables = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), each) for each in variables]
    multiple = stride_of_all(networks, variables)
    tile = largest_tile(networks, variables, images.dtype, sums, multiple, room.planned)
    way = "not even the smallest tiles fit"
    if tile is not None and math.prod(tile) < h * w:
        way = f"{option}{tile[0]}x{tile[1]} fits"
    return f"{what} of {h}x{w} pixels would take {shown(needed)} of memory, and {room.words}; {way}"


def stride_of_all(networks: Networks, variables: Sequence[PyTree]) -> int:
    """Returns the least common multiple of `stride_of` each network."""
    return max(1, math.lcm(*(stride_of(member, values) for member, values in zip(networks.members, variables))))


def stride_of(member: Member, variables: PyTree) -> int:
    """Returns the least number of pixels that the sides of an image are divided by, over the stages of a network."""
    side = 1024
    config = member.parts.config
    image = jax.ShapeDtypeStruct((1, side, side, config.data.channels), jnp.float32)
    shapes = jax.eval_shape(functools.partial(member.model.apply, train=False), variables, image)[1]
    maps = [leaf for leaf in jax.tree.leaves(shapes) if len(leaf.shape) == 4 and leaf.shape[1] == leaf.shape[2]]
    smallest = min((leaf.shape[1] for leaf in maps if leaf.shape[1] > 8), default=side)
    return max(1, side // smallest)
