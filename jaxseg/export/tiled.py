"""The tiles of `jaxseg.inference.tiles` inside one program, for images of any size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.arguments import check_value
from jaxseg.errors import ArgumentError
from jaxseg.export.image import extend
from jaxseg.inference.tiles import Overlap, gaussian, step_of
from jaxseg.nn.ops.sizes import Side


@dataclass(frozen=True)
class Tiles:
    """How a program cuts every image into tiles.

    Attributes:
        size: (y, x) of a tile.
        step: the distance between the beginnings of two tiles, in rows and columns.
        multiple: tiles begin at multiples of this, the largest stride of the network.
    """

    size: tuple[int, int]
    step: tuple[int, int]
    multiple: int


def make_tiles(size: tuple[int, int], overlap: float, multiple: int) -> Tiles:
    """Returns the tiles of a program.

    Args:
        size: (y, x) of a tile, which is extended to a multiple of `multiple`.
        overlap: the share of a tile's side that it has in common with the next, in [0, 1).
        multiple: the largest stride of the network.

    Raises:
        ArgumentError: for an invalid overlap, or tiles smaller than the stride of the network.
    """
    check_value("overlap", overlap, Overlap)
    if min(size) < multiple:
        raise ArgumentError(
            f"A tile of {size[0]}x{size[1]} is smaller than the stride of the network, {multiple} pixels; give larger "
            "tiles."
        )
    y, x = (-(-side // multiple) * multiple for side in (size[0], size[1]))
    return Tiles((y, x), (step_of(y, overlap, multiple), step_of(x, overlap, multiple)), multiple)


def blend_tiles(image: jax.Array, score: Callable[[jax.Array], jax.Array], tiles: Tiles) -> jax.Array:
    """u8[b,h,w,c] -> f32[b,h,w,k], the scores of the tiles of an image, averaged as `inference.tiles.blend` does.

    Args:
        image: h and w may be symbolic; an image smaller than a tile is extended to one by its last row and column.
        score: u8[b,y,x,c] -> f32[b,y,x,k], for images of the size of a tile.
        tiles: from `make_tiles`.
    """
    height, width = image.shape[1:3]
    image = extend(image, tiles.multiple, tiles.size)
    rows, columns = (
        _axis(length, side, step) for length, side, step in zip(image.shape[1:3], tiles.size, tiles.step, strict=True)
    )
    (y, x), b = tiles.size, image.shape[0]
    k = jax.eval_shape(score, jax.ShapeDtypeStruct((b, y, x, image.shape[3]), image.dtype)).shape[-1]

    def add_row(i: jax.Array, sums: jax.Array) -> jax.Array:
        top, row = rows.start(i), rows.weights(i)
        band = lax.dynamic_slice_in_dim(image, top, y, 1)

        def add_tile(j: jax.Array, strip: jax.Array) -> jax.Array:
            left = columns.start(j)
            scores = score(lax.dynamic_slice_in_dim(band, left, x, 2))
            weight = row[:, None] * columns.weights(j)[None]
            added = lax.dynamic_slice_in_dim(strip, left, x, 2) + scores * weight[None, :, :, None]
            return lax.dynamic_update_slice_in_dim(strip, added, left, 2)

        strip = lax.fori_loop(0, columns.count, add_tile, jnp.zeros((b, y, image.shape[2], k), jnp.float32))
        return lax.dynamic_update_slice_in_dim(sums, lax.dynamic_slice_in_dim(sums, top, y, 1) + strip, top, 1)

    sums = lax.fori_loop(0, rows.count, add_row, jnp.zeros((b, *image.shape[1:3], k), jnp.float32))
    return sums[:, :height, :width]


class _Axis(NamedTuple):
    """The tiles along one axis: their number i32[], the last one's beginning i32[], and the sum of weights f32[n]."""

    side: int
    step: int
    count: jax.Array
    last: jax.Array
    total: jax.Array

    def start(self, i: jax.Array) -> jax.Array:
        return jnp.minimum(i * self.step, self.last)

    def weights(self, i: jax.Array) -> jax.Array:
        """Returns f32[side], the weights of the pixels of tile i; those of all tiles at a pixel add to 1."""
        values = jnp.asarray(gaussian(self.side), jnp.float32)
        return values / lax.dynamic_slice_in_dim(self.total, self.start(i), self.side)


def _axis(length: Side, side: int, step: int) -> _Axis:
    count, last = -(-(length - side) // step) + 1, jnp.asarray(length - side, jnp.int32)
    starts = jnp.minimum(jnp.arange(count, dtype=jnp.int32) * step, last)
    offsets = jnp.arange(length, dtype=jnp.int32)[None] - starts[:, None]  # of each place in each tile
    values = jnp.take(jnp.asarray(gaussian(side), jnp.float32), jnp.clip(offsets, 0, side - 1), mode="clip")
    total = jnp.where((offsets >= 0) & (offsets < side), values, 0.0).sum(0)
    return _Axis(side, step, jnp.asarray(count, jnp.int32), last, total)
