"""Gaussian filtering in a space of several dimensions, in time that grows with the number of points.

The permutohedral lattice (Adams, Baek and Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral
Lattice") has d + 1 vertices around each point of a space of d dimensions. A filter gives the value of each point to its
vertices (splat), blurs the values of the vertices along the d + 1 directions of the lattice, and reads them back at the
points (slice). Only vertices that have a point near them are kept, in a hash table that is filled by all points at
once, so that every shape is known to XLA.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_MULTIPLIERS = np.random.default_rng(0).integers(0, 2**31, (2, 16), np.int64) | 1
_MOST_PROBES = 64
_FREE = np.int32(2**31 - 1)  # an empty slot of the table: greater than the number of any entry


class Lattice(NamedTuple):
    """The vertices around the points of each image, for `lattice_filter`.

    Attributes:
        vertex: i32[b,n,d+1], the rows of the vertices of each point among those of all images; each image has
            capacity + 1 rows, and the last one stays empty.
        weight: f[b,n,d+1], the barycentric coordinates of each point; 0 for a vertex that found no row.
        neighbour: i32[d+1,2,b*(capacity+1)], the rows of the two neighbours of a vertex in each direction.
        count: i32[b], the number of vertices of each image; above the capacity, the last of them are left out.
    """

    vertex: jax.Array
    weight: jax.Array
    neighbour: jax.Array
    count: jax.Array


def lattice(features: jax.Array, capacity: int) -> Lattice:
    """Returns the lattice of points f[b,n,d] in units of the standard deviation of the Gaussian.

    Args:
        features: coordinates; the gradient does not flow through them.
        capacity: vertices that an image may have; n (d + 1) always suffices, and pictures need far fewer.
    """
    b, _, d = features.shape
    features = lax.stop_gradient(features)
    key, weight = _simplex(jnp.moveaxis(features, -1, 1))  # i32[b,2,d+1,n], f[b,d+1,n]
    vertex, neighbour, count = jax.vmap(lambda key: _number(key, d, capacity))(key)
    weight = jnp.where(vertex < capacity, weight, 0)
    rows = (jnp.arange(b, dtype=jnp.int32) * (capacity + 1)).reshape(b, 1, 1)
    vertex = jnp.moveaxis(vertex + rows, 1, -1)
    neighbour = jnp.moveaxis(neighbour + rows[..., None], 0, 2).reshape(d + 1, 2, b * (capacity + 1))
    return Lattice(vertex, jnp.moveaxis(weight, 1, -1), neighbour, count)


def count_vertices(features: jax.Array) -> jax.Array:
    """Returns the number of vertices i32[b] of the lattice of points f[b,n,d]: the capacity that loses none."""
    key, _ = _simplex(jnp.moveaxis(features, -1, 1))
    return jax.vmap(lambda key: _insert(key.reshape(2, -1), _table_size(key[0].size))[2])(key)


def lattice_filter(lattice: Lattice, x: jax.Array) -> jax.Array:
    """Filters f[b,n,k] -> f[b,n,k]: y_i = Σ_j exp(-|f_i - f_j|² / 2) x_j, approximately; j = i is part of the sum.

    The gradient is the same filter with the directions in reverse order.
    """
    return _filter(lattice.vertex, lattice.weight, lattice.neighbour, x)


@jax.custom_vjp
def _filter(vertex: jax.Array, weight: jax.Array, neighbour: jax.Array, x: jax.Array) -> jax.Array:
    return _splat_blur_slice(vertex, weight, neighbour, x)


def _forward(vertex: jax.Array, weight: jax.Array, neighbour: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
    return _splat_blur_slice(vertex, weight, neighbour, x), (vertex, weight, neighbour)


def _backward(saved: tuple[jax.Array, ...], dy: jax.Array) -> tuple[None, None, None, jax.Array]:
    vertex, weight, neighbour = saved
    return None, None, None, _splat_blur_slice(vertex, weight, neighbour[::-1], dy)


_filter.defvjp(_forward, _backward)


def _splat_blur_slice(vertex: jax.Array, weight: jax.Array, neighbour: jax.Array, x: jax.Array) -> jax.Array:
    b, n, corners = vertex.shape
    k = x.shape[-1]
    flat, shares = vertex.reshape(-1, corners), weight.reshape(-1, corners, 1)
    rows = _splat(flat, shares, x.reshape(-1, k), neighbour.shape[-1])

    # A loop: XLA on CPUs would compute the first directions again for each row of the later ones.
    def blur(rows: jax.Array, sides: jax.Array) -> tuple[jax.Array, None]:
        before, after = (_read(rows, side) for side in sides)
        return 0.5 * rows + 0.25 * (before + after), None

    rows, _ = lax.scan(blur, rows, neighbour)
    y = sum(shares[:, i] * _read(rows, flat[:, i]) for i in range(corners))
    return (_gain(corners - 1) * jnp.asarray(y)).reshape(b, n, k)


def _read(table: jax.Array, index: jax.Array) -> jax.Array:
    """The rows i32[m] of f[r,k] -> f[m,k], all of which are there."""
    return table.at[index].get(mode="promise_in_bounds")


def _splat(vertex: jax.Array, weight: jax.Array, x: jax.Array, rows: int) -> jax.Array:
    """Adds each row of f[n,k] to the rows i32[n,d+1] of a table, by its weights f[n,d+1,1] -> f[rows,k].

    XLA on CPUs adds one row after the other. The corners of a point are therefore in two parts, each with a table of
    its own, which two cores fill at the same time.
    """
    corners, k = vertex.shape[1], x.shape[-1]
    table = jnp.zeros((rows, k), x.dtype)
    halves = []
    for part in (slice(0, corners // 2), slice(corners // 2, corners)):
        shares = (weight[:, part] * x[:, None]).reshape(-1, k)
        halves.append(table.at[vertex[:, part].reshape(-1)].add(shares, mode="promise_in_bounds"))
    return halves[0] + halves[1]


def _gain(d: int) -> float:
    """The height of the Gaussian (1) over that of the filter: (2π)^(d/2) / volume of the lattice for one vertex."""
    return float((4 * np.pi / 3) ** (d / 2) * np.sqrt(d + 1))


def _simplex(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """f[b,d,n] -> two hash values of each of the d + 1 vertices i32[b,2,d+1,n], and their weights f[b,d+1,n]."""
    d = features.shape[1]
    elevated = jnp.einsum("ed,bdn->ben", _elevation(d).astype(features.dtype), features, precision="highest")
    nearest = jnp.round(elevated / (d + 1))
    excess = elevated - nearest * (d + 1)
    nearest = nearest.astype(jnp.int32)
    # The rank of each coordinate by its excess, the greatest first; equal ones in their order.
    ranks = []
    for i in range(d + 1):
        above = [
            (excess[:, j] > excess[:, i]) if j > i else (excess[:, j] >= excess[:, i]) for j in range(d + 1) if j != i
        ]
        ranks.append(sum(each.astype(jnp.int32) for each in above))
    total = jnp.sum(nearest, 1, dtype=jnp.int32)
    rank = jnp.stack(ranks, 1) + total[:, None]
    # The point of the lattice that `nearest` is may lie outside the plane of coordinates whose sum is 0: correct those
    # coordinates that were rounded furthest.
    low, high = rank < 0, rank > d
    nearest = nearest + low.astype(jnp.int32) - high.astype(jnp.int32)
    rank = rank + (d + 1) * (low.astype(jnp.int32) - high.astype(jnp.int32))
    share = elevated / (d + 1) - nearest
    ordered = [sum(jnp.where(rank[:, i] == r, share[:, i], 0) for i in range(d + 1)) for r in range(d + 1)]
    weight = [1 + ordered[d] - ordered[0]] + [ordered[d - r] - ordered[d + 1 - r] for r in range(1, d + 1)]
    keys = []
    for multiplier in _MULTIPLIERS.astype(np.int32):
        keys.append([])
        for r in range(d + 1):
            moved = [
                (nearest[:, i] * (d + 1) + r - jnp.where(rank[:, i] > d - r, d + 1, 0)) * multiplier[i]
                for i in range(d)
            ]
            keys[-1].append(sum(moved))
    return jnp.stack([jnp.stack(each, 1) for each in keys], 1), jnp.stack(weight, 1)


def _elevation(d: int) -> np.ndarray:
    """The matrix f64[d+1,d] into the plane of coordinates whose sum is 0, scaled so that the blur has variance 1."""
    matrix = np.zeros((d + 1, d))
    for i in range(d):
        matrix[: i + 1, i] = 1
        matrix[i + 1, i] = -(i + 1)
        matrix[:, i] /= np.sqrt((i + 1) * (i + 2))
    return matrix * np.sqrt(2 / 3) * (d + 1)


def _table_size(entries: int) -> int:
    return 1 << max(4, int(np.ceil(np.log2(2 * entries))) - 1)


def _slot(key: jax.Array, probe: jax.Array, size: int) -> jax.Array:
    """The place of hash values i32[2,...] in a table of `size`, a power of 2, at the given probe."""
    mixed = (key[0] ^ lax.shift_right_logical(key[0], np.int32(15))) * np.int32(0x2C1B3C6D)
    mixed = mixed ^ lax.shift_right_logical(mixed, np.int32(13))
    return (mixed + probe * (key[1] | 1)) & (size - 1)


def _insert(key: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Fills a table with keys i32[2,m]; returns the table, for each key the first entry with that key, and the count.

    All keys look for a place at the same time: at an empty slot the entry with the lowest number wins, which is the
    first of its key, and the entries of other keys try their next slot.
    """
    entries = jnp.arange(key.shape[1], dtype=jnp.int32)

    def unfinished(carry: tuple[jax.Array, ...]) -> jax.Array:
        probe, _, first = carry
        return jnp.any(first < 0) & (probe < _MOST_PROBES)

    def probe_once(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        probe, table, first = carry
        slot = _slot(key, probe, size)
        bids = jnp.full(size, _FREE).at[slot].min(jnp.where(first < 0, entries, _FREE))
        table = jnp.where(table == _FREE, bids, table)
        owner = table[slot]
        same = (owner != _FREE) & (key[0, owner] == key[0]) & (key[1, owner] == key[1])
        first = jnp.where((first < 0) & same, owner, first)
        return probe + 1, table, first

    start = (jnp.int32(0), jnp.full(size, _FREE), jnp.full(key.shape[1], -1, jnp.int32))
    _, table, first = lax.while_loop(unfinished, probe_once, start)
    return table, first, jnp.sum(first == entries, dtype=jnp.int32)


def _number(key: jax.Array, d: int, capacity: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """i32[2,d+1,n] -> (rows of the vertices i32[d+1,n], rows of the neighbours i32[d+1,2,capacity+1], count i32[])."""
    flat = jnp.swapaxes(key, 1, 2).reshape(2, -1)  # in the order of the points
    table, first, count = _insert(flat, _table_size(flat.shape[1]))
    entries = jnp.arange(flat.shape[1], dtype=jnp.int32)
    is_first = first == entries
    number = jnp.cumsum(is_first, dtype=jnp.int32) - 1
    number = jnp.minimum(jnp.where(is_first, number, capacity), capacity)
    row = jnp.where(first < 0, capacity, number[first])
    # The keys of the vertices in the order of their rows.
    vertex_key = jnp.zeros((2, capacity + 1), jnp.int32).at[:, row].set(flat, mode="promise_in_bounds")
    exists = jnp.arange(capacity + 1, dtype=jnp.int32) < jnp.minimum(count, capacity)
    steps = [[-m[:d].sum() + ((d + 1) * m[j] if j < d else 0) for j in range(d + 1)] for m in _MULTIPLIERS]
    steps = (np.array(steps) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    after = _find(vertex_key[:, None] + steps[:, :, None], exists, flat, table, number, capacity)
    # The vertex after v has v before it. The row `capacity` collects what has no neighbour.
    rows = jnp.broadcast_to(jnp.arange(capacity + 1, dtype=jnp.int32), after.shape)
    directions = jnp.arange(d + 1)[:, None]
    before = jnp.full(after.shape, capacity, jnp.int32).at[directions, after].set(rows).at[:, capacity].set(capacity)
    return jnp.swapaxes(row.reshape(-1, d + 1), 0, 1), jnp.stack([before, after], 1), count


def _find(
    key: jax.Array,
    exists: jax.Array,
    flat: jax.Array,
    table: jax.Array,
    number: jax.Array,
    capacity: int,
) -> jax.Array:
    """The rows i32[e,m] of the vertices with the keys i32[2,e,m], or `capacity`; only where `exists` bool[m]."""

    def unfinished(carry: tuple[jax.Array, ...]) -> jax.Array:
        probe, _, done = carry
        return ~jnp.all(done) & (probe < _MOST_PROBES)

    def probe_once(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        probe, found, done = carry
        owner = table[_slot(key, probe, table.size)]
        empty = owner == _FREE
        same = ~empty & (flat[0, owner] == key[0]) & (flat[1, owner] == key[1])
        found = jnp.where(same & ~done, number[owner], found)
        return probe + 1, found, done | same | empty

    nothing = jnp.full(key.shape[1:], capacity, jnp.int32)
    start = (jnp.int32(0), nothing, jnp.broadcast_to(~exists, nothing.shape))
    return lax.while_loop(unfinished, probe_once, start)[1]
