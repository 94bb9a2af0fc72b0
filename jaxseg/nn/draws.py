"""The initial variables of a network, with all parameters drawn at once.

Linen draws each parameter by itself, with a key of its own: `fold_in` of the path and a count. A network of 70 kernels
so becomes a program of 140 random draws, each of which takes a tenth of a second and more to trace and compile. Here
the parameters are noted while the network is traced, then all keys are made by one `vmap` of `fold_in`, and all values
of one distribution as one flat array, which is cut. The values are those of `network.init`: a value of threefry depends
on its key and its place in the array, and not on the array's shape. They have the same bits on a CPU with jax 0.12; the
compiler of older versions rounds some of them otherwise.
"""

import contextlib
import dataclasses
import hashlib
import math
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.extend.random import threefry2x32_p

from jaxseg.nn.initializers import Distribution, Draw
from jaxseg.types import Key, PyTree

# Rows of the flat array: a parameter takes whole ones, so that each row has one key.
_ROW = 1024
# Rows that are drawn at a time, by a loop: on a CPU all steps of the draw then find them in its cache.
_TOGETHER = 32
# Values that are drawn in one array, which exists beside the parameters: 128 MiB.
_MOST = 2**25
# Values that are drawn in less time than the program takes to compile that leaves them out.
_MANY = 2**22
_ROOT = np.float32(math.sqrt(2))
# Initialisers that need no key.
_CONSTANTS = (jax.nn.initializers.zeros, jax.nn.initializers.ones)


@dataclasses.dataclass(frozen=True)
class _Noted:
    """A parameter that is still to be drawn.

    Attributes:
        stand_in: the zeros in its place.
        shape: of the parameter.
        draw: its initialiser.
        number: what is folded into the network's key.
    """

    stand_in: jax.Array
    shape: tuple[int, ...]
    draw: Draw
    number: int

    @property
    def size(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)


@dataclasses.dataclass
class _Notes:
    """What a network asks for while it is traced.

    Attributes:
        key: of the network.
        parameters: those that are still to be drawn.
        foreign: whether a module of the network comes neither from jaxseg nor from Flax.
    """

    key: Key
    parameters: list[_Noted] = dataclasses.field(default_factory=list)
    foreign: bool = False


class _Tracing(threading.local):
    """What holds in this thread.

    Attributes:
        notes: of the network that `initialise` traces.
        singly: whether `initialise` draws each parameter by itself.
    """

    notes: _Notes | None = None
    singly: bool = False


_TRACING = _Tracing()


def initialise(network: Any, rngs: Mapping[str, Key], image: jax.Array, **arguments: Any) -> Mapping[str, PyTree]:
    """Returns `network.init(rngs, image, **arguments)`, traced and compiled more quickly.

    Linen makes what is not drawn by a `Draw`, parameters inside of a lifted transformation such as `nn.scan`, and all
    of a network that has modules from elsewhere: their parameters may depend on the values of others, in whose place
    they would see zeros. Such a network is traced twice. Linen also makes all parameters if the key is not one of
    threefry whose draws are counted one by one, which `jax.random.key` makes by default.

    Args:
        network: a Linen module, or another network with `init`.
        rngs: {"params": key}, and others.
        image: f32[b,h,w,c].
        arguments: of the network.
    """
    key = rngs["params"]
    if not isinstance(network, nn.Module) or _TRACING.singly or not _is_plain(key):
        return network.init(dict(rngs), image, **arguments)
    with _noting(key) as notes:
        variables = network.init(dict(rngs), image, **arguments)
    leaves, structure = jax.tree.flatten(variables)
    places = {id(leaf): i for i, leaf in enumerate(leaves)}
    if notes.foreign or any(id(parameter.stand_in) not in places for parameter in notes.parameters):
        return network.init(dict(rngs), image, **arguments)
    for parameter, value in zip(notes.parameters, _drawn(key, notes.parameters), strict=True):
        leaves[places[id(parameter.stand_in)]] = value
    return jax.tree.unflatten(structure, leaves)


@contextlib.contextmanager
def drawn_alone(paths: Collection[str], shapes: Mapping[str, Any]) -> Iterator[None]:
    """In it, `initialise` draws each parameter by itself if that pays, so that a compiler leaves out what nobody reads.

    It pays where what is read is the smaller part of a large network.

    Args:
        paths: of the parameters that are read.
        shapes: {path: array or its shape} of the whole network.
    """
    sizes = {path: math.prod(leaf.shape) for path, leaf in shapes.items()}
    before = _TRACING.singly
    _TRACING.singly = before or _MANY + 2 * sum(sizes[path] for path in paths) < sum(sizes.values())
    try:
        yield
    finally:
        _TRACING.singly = before


def note(module: nn.Module, name: str, init: Any, shape: tuple[int, ...]) -> jax.Array | None:
    """Returns an array in place of the parameter `name`, which `initialise` draws; None if Linen shall make it."""
    notes, scope = _TRACING.notes, module.scope
    if notes is None or scope is None or "params" not in scope.rngs or not module.is_mutable_collection("params"):
        return None
    rng: Any = scope.rngs["params"]
    if getattr(rng, "rng", None) is not notes.key or scope.root.path or _is_foreign(module):
        return None
    if isinstance(init, Draw) and init.can_draw(shape):
        value = jnp.zeros(shape, jnp.float32)
        number = _number((*rng.suffix, scope.rng_counters["params"] + 1))
        notes.parameters.append(_Noted(value, shape, init, number))
    elif init in _CONSTANTS:
        value = init(notes.key, shape, jnp.float32)
    else:
        return None
    scope.rng_counters["params"] += 1
    module.put_variable("params", name, value)
    return value


@contextlib.contextmanager
def _noting(key: Key) -> Iterator[_Notes]:
    """Yields what `note` notes in its body, and whether a module from elsewhere is called."""
    notes = _Notes(key)

    def look(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        notes.foreign = notes.foreign or _is_foreign(context.module)
        return call(*arguments, **keywords)

    before = _TRACING.notes
    _TRACING.notes = notes
    try:
        with nn.intercept_methods(look):
            yield notes
    finally:
        _TRACING.notes = before


def _is_foreign(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] not in ("jaxseg", "flax")


def _is_plain(key: Key) -> bool:
    """Whether the draws of this key are those of a counter, one for each value."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or str(jax.random.key_impl(key)) != "threefry2x32":
        return False
    return bool(jax.config.jax_threefry_partitionable)  # pyright: ignore[reportAttributeAccessIssue]


def _number(path: tuple[str | int, ...]) -> int:
    """What Linen folds into the key for a path and a count: the first 32 bits of their SHA-1."""
    digest = hashlib.sha1()
    for part in path:
        if flax.config.flax_fix_rng_separator:
            digest.update(b"\x00")
        digest.update(part.encode() if isinstance(part, str) else part.to_bytes((part.bit_length() + 7) // 8, "big"))
    return int.from_bytes(digest.digest()[:4], "big")


def _drawn(key: Key, noted: list[_Noted]) -> list[jax.Array]:
    """Returns the values of the parameters, in their order."""
    if not noted:
        return []
    numbers = jnp.asarray([parameter.number for parameter in noted], jnp.uint32)
    keys = jax.random.key_data(jax.vmap(jax.random.fold_in, (None, 0))(key, numbers))
    values: dict[int, jax.Array] = {}
    for distribution, members in _groups(noted):
        sizes = [noted[i].size for i in members]
        flat = lax.optimization_barrier(_standard(distribution, keys[np.asarray(members)], sizes))
        first = 0
        for i, size in zip(members, sizes, strict=True):
            rows, shape = -(-size // _ROW), noted[i].shape
            value = flat[first : first + rows].reshape(-1)[:size].reshape(shape)
            values[i] = value * (noted[i].draw.factor(shape) * _SCALES[distribution])
            first += rows
    return [values[i] for i in range(len(noted))]


def _groups(noted: list[_Noted]) -> Iterator[tuple[Distribution, list[int]]]:
    """Yields (distribution, places of the parameters), of at most `_MOST` values or of one parameter."""
    groups: dict[Distribution, tuple[list[int], int]] = {}
    for i, parameter in enumerate(noted):
        distribution = parameter.draw.distribution
        members, values = groups[distribution] if distribution in groups else ([], 0)
        if members and values + parameter.size > _MOST:
            yield distribution, members
            members, values = [], 0
        members.append(i)
        groups[distribution] = members, values + parameter.size
    for distribution, (members, _) in groups.items():
        yield distribution, members


def _standard(distribution: Distribution, keys: jax.Array, sizes: list[int]) -> jax.Array:
    """Returns f32[rows,_ROW] of the standard distribution (of σ = 1/√2 if normal): n draws, of u32[n,2], in rows."""
    rows = [-(-size // _ROW) for size in sizes]
    together = min(sum(rows), _TOGETHER)
    blank = -sum(rows) % together
    draw = np.pad(np.repeat(np.arange(len(rows)), rows), (0, blank))
    start = np.pad(np.concatenate([np.arange(r, dtype=np.uint32) for r in rows]) * np.uint32(_ROW), (0, blank))

    def some(places: tuple[jax.Array, jax.Array]) -> jax.Array:
        draw, start = places
        return _VALUES[distribution](_unit(keys[draw], start))

    places = jnp.asarray(draw.reshape(-1, together)), jnp.asarray(start.reshape(-1, together))
    return lax.map(some, places).reshape(-1, _ROW)


def _unit(keys: jax.Array, start: jax.Array) -> jax.Array:
    """Returns f32[n,_ROW] in [0, 1), for u32[n,2] and u32[n]: of each key the values from number `start` on."""
    count = start[:, None] + jnp.arange(_ROW, dtype=jnp.uint32)[None]
    first, second = (jnp.broadcast_to(keys[:, i : i + 1], count.shape) for i in range(2))
    high, low = threefry2x32_p.bind(first, second, jnp.zeros_like(count), count)
    # 23 random bits as the fraction of a number in [1, 2).
    return lax.bitcast_convert_type(((high ^ low) >> 9) | jnp.uint32(0x3F800000), jnp.float32) - 1


def _uniform(unit: jax.Array) -> jax.Array:
    return _between(unit, np.float32(-1), np.float32(1))


def _normal(unit: jax.Array) -> jax.Array:
    lowest = np.nextafter(np.float32(-1), np.float32(0))
    return lax.erf_inv(_between(unit, lowest, np.float32(1)))


def _truncated_normal(unit: jax.Array) -> jax.Array:
    edge, limit = lax.erf(np.float32(2) / _ROOT), np.nextafter(np.float32(2), np.float32(0))
    return jnp.clip(_ROOT * lax.erf_inv(_between(unit, -edge, edge)), -limit, limit)


def _between(unit: jax.Array, low: Any, high: Any) -> jax.Array:
    return jnp.maximum(low, unit * (high - low) + low)


_VALUES = {"uniform": _uniform, "normal": _normal, "truncated_normal": _truncated_normal}
# A normal draw is √2 σ erf⁻¹(u), of which √2 σ is one number.
_SCALES = {"uniform": np.float32(1), "normal": _ROOT, "truncated_normal": np.float32(1)}
