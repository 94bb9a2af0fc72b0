"""Cuts an image into overlapping tiles, and blends what a network says of them, in bounded memory.

    for block in blend(raster, score, grid):
        block.scores  # f32[rows,columns,k] of the pixels from (block.top, block.left) on, each pixel once

The network sees a tile at a time. Where tiles overlap, its scores are averaged with weights that fall from the centre
of a tile to its border as a Gaussian, because a network knows least about pixels near the border of what it sees. The
weights of all tiles at a pixel add to 1. One row of tiles is held at a time, and a row too wide for memory is cut into
strips of columns.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.arguments import Where, check_value
from jaxseg.data.transforms import Size, fill_up
from jaxseg.errors import ArgumentError
from jaxseg.types import Array

Blending: TypeAlias = Literal["gaussian", "nearest"]
Overlap: TypeAlias = Annotated[float, Where(lambda v: 0 <= v < 1, instead="at least 0 and below 1")]
TilesLike: TypeAlias = Literal["auto"] | str | tuple[int, int] | int | None
_SIGMAS = 8  # a tile's side in standard deviations of its Gaussian


class Raster(Protocol):
    """An image that is read by parts."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The type of its values."""
        ...

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Returns u8|u16|f32[rows,columns,c]."""
        ...


@dataclass(frozen=True)
class ArrayRaster:
    """An image in memory, u8|u16|f32[h,w,c]."""

    image: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        h, w, c = self.image.shape
        return h, w, c

    @property
    def dtype(self) -> np.dtype:
        return self.image.dtype

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        return self.image[rows, columns]


class Block(NamedTuple):
    """Finished pixels: scores f32[rows,columns,k] on the device, and where they lie; `number` counts them from 0."""

    number: int
    top: int
    left: int
    scores: jax.Array


@dataclass(frozen=True)
class Grid:
    """Where the tiles of an image lie.

    Attributes:
        size: (h, w) of the image, before it is extended.
        tile: (y, x) of a tile.
        tops, lefts: the first row and column of the tiles, ascending; the last tile ends at the extended image's end.
        blending: see `make_grid`.
    """

    size: Size
    tile: Size
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    blending: Blending = "gaussian"

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    @property
    def extended(self) -> Size:
        """(y, x) of the image once it is extended so that tiles fill it."""
        return self.tops[-1] + self.tile[0], self.lefts[-1] + self.tile[1]


def make_grid(size: Size, tile: Size, overlap: float = 0.5, multiple: int = 1, blending: Blending = "gaussian") -> Grid:
    """Returns the tiles of an image: a tile every (1 - overlap) of its side, and the last aligned with the end.

    Args:
        size: (h, w) of the image.
        tile: (y, x) of a tile; both are extended to a multiple of `multiple`, and cut down to the image.
        overlap: the share of a tile's side that it has in common with the next, in [0, 1).
        multiple: each tile begins at a multiple of this, the network's largest stride, so that its pooling windows lie
            as in the whole image, which is extended to a multiple too.
        blending: "gaussian" weighs a tile's pixels by a Gaussian of a standard deviation of an eighth of the tile's
            side; "nearest" takes each pixel from the tile whose centre is nearest.

    Raises:
        ArgumentError: for an invalid overlap, blending or size, or a tile smaller than `multiple`.
    """
    overlap = check_value("overlap", overlap, Overlap)
    check_value("blending", blending, Blending)
    if min(tile) < max(1, multiple):
        raise ArgumentError(
            f"A tile of {tile[0]}x{tile[1]} is smaller than the stride of the network, {multiple} pixels; give larger "
            "tiles."
        )
    axes = [_starts(length, side, overlap, multiple) for length, side in zip(size, tile)]
    (tops, y), (lefts, x) = axes
    return Grid((size[0], size[1]), (y, x), tops, lefts, blending)


def _starts(length: int, side: int, overlap: float, multiple: int) -> tuple[tuple[int, ...], int]:
    """Returns where the tiles of one axis begin, and their length."""
    length = -(-length // multiple) * multiple
    side = min(-(-side // multiple) * multiple, length)
    step = step_of(side, overlap, multiple)
    starts = [*range(0, length - side, step), length - side]
    return tuple(starts), side


def step_of(side: int, overlap: float, multiple: int) -> int:
    """Returns the distance between the beginnings of two tiles of length `side`, a multiple of `multiple`."""
    return max(multiple, math.floor(side * (1 - overlap)) // multiple * multiple)


def gaussian(side: int) -> np.ndarray:
    """Returns f64[side], the weights of a tile's pixels before those of all tiles at a pixel are made to add to 1."""
    distance = np.arange(side, dtype=np.float64) - (side - 1) / 2
    return np.exp(-0.5 * (distance * _SIGMAS / side) ** 2)


def weights(starts: tuple[int, ...], side: int, blending: Blending) -> np.ndarray:
    """Returns f32[n,side], the weight of each pixel of the n tiles of one axis; those of all tiles at a pixel add to 1.

    A pixel's weight in an image is the product of those of its row and its column.
    """
    centre = (side - 1) / 2
    places = np.arange(starts[-1] + side)
    offsets = places[None] - np.array(starts)[:, None]  # of each place in each tile
    covered = (offsets >= 0) & (offsets < side)
    if blending == "gaussian":
        every = np.where(covered, gaussian(side)[np.clip(offsets, 0, side - 1)], 0.0)
        every /= every.sum(axis=0)
    else:
        away = np.where(covered, np.abs(offsets - centre), np.inf)
        every = (np.arange(len(starts))[:, None] == away.argmin(axis=0)).astype(np.float64)
    return np.stack([row[start : start + side] for row, start in zip(every, starts)]).astype(np.float32)


def strips(grid: Grid, most_columns: int) -> list[tuple[int, int]]:
    """Returns (first, end) columns of the strips that an image is blended in, each at most `most_columns` wide.

    A strip needs the tiles that reach into it, so that tiles at its sides are computed twice.
    """
    width = grid.size[1]
    count = max(1, -(-width // max(1, most_columns)))
    edges = [width * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def blend(
    raster: Raster,
    score: Callable[[np.ndarray], jax.Array],
    grid: Grid,
    *,
    batch: int = 1,
    most_columns: int | None = None,
    dtype: str = "float32",
    done: int = 0,
    progress: Callable[[int], object] = lambda tiles: None,
) -> Iterator[Block]:
    """Yields the blended scores of an image, each pixel once: in strips of columns, and from top to bottom in each.

    The image is read a row of tiles ahead of the device, and the device is given a batch before the last is finished.

    Args:
        raster: the image.
        score: tiles u8|u16|f32[b,y,x,c] -> f32[b,y,x,k].
        grid: from `make_grid`, for the raster's size.
        batch: tiles that `score` takes at a time; missing ones are filled up with a copy of the last.
        most_columns: see `strips`; None: one strip.
        dtype: what the scores are added in, "float32" or "float16", which takes half of the memory.
        done: the number of blocks that are left out, because an earlier call has yielded them; the tiles that only
            they need are not computed.
        progress: called with the number of tiles that were finished.
    """
    rows, columns = (weights(starts, side, grid.blending) for starts, side in zip((grid.tops, grid.lefts), grid.tile))
    number = 0
    for first, end in strips(grid, grid.size[1] if most_columns is None else most_columns):
        inside = [i for i, left in enumerate(grid.lefts) if left < end and left + grid.tile[1] > first]
        skipped = min(max(done - number, 0), len(grid.tops))
        strip = _Strip(raster, score, grid, tuple(inside), rows, columns, batch, dtype)
        for block in strip.blocks(skipped, progress):
            left = grid.lefts[inside[0]]
            yield Block(number + block.number, block.top, first, block.scores[:, first - left : end - left])
        number += len(grid.tops)


@dataclass(frozen=True, eq=False)
class _Strip:
    """The tiles in the columns `inside` of a grid, from top to bottom."""

    raster: Raster
    score: Callable[[np.ndarray], jax.Array]
    grid: Grid
    inside: tuple[int, ...]
    rows: np.ndarray
    columns: np.ndarray
    batch: int
    dtype: str

    def blocks(self, skipped: int, progress: Callable[[int], object]) -> Iterator[Block]:
        """Yields the block of each row of tiles after the first `skipped`, over all columns of the strip's tiles."""
        grid, (y, x) = self.grid, self.grid.tile
        left, right = grid.lefts[self.inside[0]], grid.lefts[self.inside[-1]] + x
        ends = [*grid.tops[1:], grid.extended[0]]  # the row up to which each row of tiles finishes the image
        # A block needs every row of tiles that reaches into it, also those above it.
        begin = 0 if not skipped else grid.tops[skipped] if skipped < len(grid.tops) else grid.extended[0]
        needed = [i for i, top in enumerate(grid.tops) if top + y > begin]
        progress(len(self.inside) * (len(grid.tops) - len(needed)))
        sums: jax.Array | None = None
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, needed[0], left, right) if needed else None
            for place, i in enumerate(needed):
                assert ahead is not None
                image = ahead.result()
                if place + 1 < len(needed):
                    ahead = reader.submit(self._read, needed[place + 1], left, right)
                for scores, lefts, factors in self._scored(image, left, self.rows[i]):
                    if sums is None:
                        sums = jnp.zeros((y, right - left, scores.shape[-1]), self.dtype)
                    sums = _add(sums, scores, lefts, factors)
                    progress(int(np.sum(factors.any(axis=(1, 2)))))
                assert sums is not None
                count = ends[i] - grid.tops[i]
                if i >= skipped:
                    finished = max(0, min(ends[i], grid.size[0]) - grid.tops[i])
                    yield Block(i, grid.tops[i], left, sums[:finished].astype(jnp.float32))
                sums = _shift(sums, count)

    def _read(self, i: int, left: int, right: int) -> np.ndarray:
        """Returns the image of row i of tiles, extended at the bottom and right by its last row and column."""
        (h, w), top, y = self.grid.size, self.grid.tops[i], self.grid.tile[0]
        image = self.raster.read(slice(top, min(top + y, h)), slice(left, min(right, w)))
        return fill_up(image, (y, right - left))

    def _scored(
        self, image: np.ndarray, left: int, row: np.ndarray
    ) -> Iterator[tuple[jax.Array, np.ndarray, np.ndarray]]:
        """Yields (scores, columns, weights) of each batch of the tiles of a row; the device works ahead by a batch."""
        x = self.grid.tile[1]
        for first in range(0, len(self.inside), self.batch):
            chosen = self.inside[first : first + self.batch]
            lefts = [self.grid.lefts[j] - left for j in chosen]
            factors = np.stack([row[:, None] * self.columns[j][None] for j in chosen])
            missing = self.batch - len(chosen)
            lefts += lefts[-1:] * missing
            factors = np.concatenate([factors, np.zeros((missing, *factors.shape[1:]), np.float32)])
            tiles = np.stack([image[:, start : start + x] for start in lefts])
            yield self.score(tiles), np.array(lefts, np.int32), factors


@functools.partial(jax.jit, donate_argnums=0)
def _add(sums: jax.Array, scores: jax.Array, lefts: Array, factors: Array) -> jax.Array:
    """Adds scores f32[b,y,x,k] times their weights f32[b,y,x] to sums [y,w,k], tile i from column lefts[i] on."""

    def one(i: jax.Array, sums: jax.Array) -> jax.Array:
        place = (0, lefts[i], 0)
        held = jax.lax.dynamic_slice(sums, place, scores.shape[1:])
        added = held.astype(jnp.float32) + scores[i].astype(jnp.float32) * factors[i][..., None]
        return jax.lax.dynamic_update_slice(sums, added.astype(sums.dtype), place)

    return jax.lax.fori_loop(0, scores.shape[0], one, sums)


@functools.partial(jax.jit, static_argnums=1)
def _shift(sums: jax.Array, count: int) -> jax.Array:
    """Moves sums [y,w,k] up by `count` rows; the rows that come free are zero."""
    return jnp.concatenate([sums[count:], jnp.zeros((count, *sums.shape[1:]), sums.dtype)])


def parse_tiles(value: TilesLike) -> Literal["auto"] | Size | None:
    """Returns the size (y, x) of tiles, "auto", or None for the whole image.

    Args:
        value: "auto", "256x512", 256, (256, 512), or None, "", "none".

    Raises:
        ArgumentError: for anything else.
    """
    if value is None or value in ("", "none"):
        return None
    if value == "auto":
        return "auto"
    sides: tuple[int, ...] = ()
    if isinstance(value, str):
        parts = value.lower().split("x")
        if len(parts) in (1, 2) and all(part.strip().isdecimal() for part in parts):
            sides = tuple(int(part) for part in parts)
    elif isinstance(value, int) and not isinstance(value, bool):
        sides = (value,)
    elif isinstance(value, tuple | list):
        sides = tuple(value)
    if len(sides) == 1:
        sides = (*sides, *sides)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ArgumentError(
            f"tiles must be auto, or the height and width of a tile in pixels such as 256x512, got {value!r}."
        )
    return sides
