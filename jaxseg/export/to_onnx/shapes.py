"""Operations that move, cut, repeat and pick elements."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxseg.export.to_onnx.graph import Graph, Order, Side, Unsupported, Value, identity, onnx_type

LAZY = ("broadcast_in_dim", "iota", "transpose", "dim_as_value")
"""Primitives whose result is kept smaller than its shape, for constants too."""

_Params = Mapping[str, Any]
_START = -(2**62)  # of a slice that ends before the first element


def _ints(graph: Graph, *numbers: int) -> str:
    return graph.put(np.array(numbers, np.int64))


def _keep(order: Order, axes: Sequence[int]) -> tuple[Order, list[int]]:
    """Returns the order of an array without `axes`, and where these are stored."""
    left = [axis for axis in order if axis not in axes]
    ranked = sorted(left)
    return tuple(ranked.index(axis) for axis in left), [order.index(axis) for axis in axes]


def _broadcast(graph: Graph, params: _Params, avals: Sequence[Any], x: Value, *sizes: Value) -> Value:
    del sizes
    shape, places, dtype = avals[0].shape, params["broadcast_dimensions"], x.dtype
    repeated = {axis for axis in range(len(shape)) if axis not in places}
    repeated |= {place for axis, place in enumerate(places) if axis in x.stretched}
    # A side of 1 may become longer.
    repeated |= {place for axis, place in enumerate(places) if _is_one(x.shape[axis]) and not _is_one(shape[place])}
    stretched = frozenset(axis for axis in repeated if not _is_one(shape[axis]))
    added = [axis for axis in range(len(shape)) if axis not in places]
    if x.array is not None:
        array = np.expand_dims(x.array.transpose(np.argsort(x.order)), added)
        return Value(tuple(shape), dtype, "", array, identity(len(shape)), stretched)
    if not added:
        return Value(tuple(shape), dtype, x.name, None, x.order, stretched)
    name = graph.node("Unsqueeze", graph.stored(x), _ints(graph, *added))
    return Value(tuple(shape), dtype, name, None, identity(len(shape)), stretched)


def _is_one(side: Side) -> bool:
    return isinstance(side, int) and side == 1


def _iota(graph: Graph, params: _Params, avals: Sequence[Any], *sizes: Value) -> Value:
    del sizes
    shape, axis, dtype = params["shape"], params["dimension"], np.dtype(params["dtype"])
    stretched = frozenset(i for i in range(len(shape)) if i != axis and not _is_one(shape[i]))
    sides = [1] * len(shape)
    if isinstance(shape[axis], int):
        sides[axis] = shape[axis]
        array = np.arange(shape[axis]).astype(dtype).reshape(sides)
        return Value(tuple(shape), dtype, "", array, identity(len(shape)), stretched)
    zero, one = (graph.put(np.array(i, np.int64)) for i in (0, 1))
    name = graph.node("Cast", graph.node("Range", zero, graph.side(shape[axis]), one), to=onnx_type(dtype))
    if len(shape) > 1:
        sides[axis] = -1
        name = graph.node("Reshape", name, _ints(graph, *sides))
    return graph.made(name, shape, dtype, stretched=stretched)


def _size(graph: Graph, params: _Params, avals: Sequence[Any]) -> Value:
    name = graph.node("Cast", graph.side(params["dim"]), to=onnx_type(avals[0].dtype))
    return graph.made(name, (), avals[0].dtype)


def _reshape(graph: Graph, params: _Params, avals: Sequence[Any], x: Value, *sizes: Value) -> Value:
    del sizes
    if params["dimensions"] is not None:
        raise Unsupported("a reshape in another order of axes")
    return _to_shape(graph, x, avals[0].shape)


def _to_shape(graph: Graph, x: Value, shape: Sequence[Side]) -> Value:
    unknown = [axis for axis, side in enumerate(shape) if not isinstance(side, int)]
    if len(unknown) <= 1 and 0 not in shape:
        target = _ints(graph, *(-1 if axis in unknown else side for axis, side in enumerate(shape)))
        return graph.made(graph.node("Reshape", graph.full(x), target), shape, x.dtype)
    # Without `allowzero` a side of 0 would be that of x.
    return graph.made(graph.node("Reshape", graph.full(x), graph.shape(shape), allowzero=1), shape, x.dtype)


def _squeeze(graph: Graph, params: _Params, avals: Sequence[Any], x: Value) -> Value:
    order, places = _keep(x.order, params["dimensions"])
    left = [axis for axis in range(x.rank) if axis not in params["dimensions"]]
    stretched = frozenset(i for i, axis in enumerate(left) if axis in x.stretched)
    name = graph.node("Squeeze", graph.stored(x, x.order), _ints(graph, *sorted(places)))
    return Value(tuple(avals[0].shape), x.dtype, name, None, order, stretched)


def _transpose(graph: Graph, params: _Params, avals: Sequence[Any], x: Value) -> Value:
    axes = params["permutation"]
    order = tuple(axes.index(axis) for axis in x.order)
    stretched = frozenset(axes.index(axis) for axis in x.stretched)
    return Value(tuple(avals[0].shape), x.dtype, x.name, x.array, order, stretched)


def _slice(graph: Graph, params: _Params, avals: Sequence[Any], x: Value) -> Value:
    starts, ends = params["start_indices"], params["limit_indices"]
    steps = params["strides"] or (1,) * x.rank
    cut = [
        axis
        for axis in range(x.rank)
        if axis not in x.stretched and (starts[axis], ends[axis], steps[axis]) != (0, x.shape[axis], 1)
    ]
    name = graph.stored(x, x.order)
    if cut:
        axes = [x.order.index(axis) for axis in cut]
        bounds = [graph.shape([bound[axis] for axis in cut]) for bound in (starts, ends)]
        name = graph.node("Slice", name, *bounds, _ints(graph, *axes), _ints(graph, *(steps[axis] for axis in cut)))
    return Value(tuple(avals[0].shape), x.dtype, name, None, x.order, x.stretched)


def _dynamic_slice(graph: Graph, params: _Params, avals: Sequence[Any], x: Value, *starts: Value) -> Value:
    """A slice at computed places, which JAX moves inside where it would reach over the end."""
    name, sizes = graph.stored(x, x.order), params["slice_sizes"]
    for axis in range(x.rank):
        if axis in x.stretched or sizes[axis] == x.shape[axis]:
            continue
        begin, end = _bounds(graph, starts[axis], x.shape[axis], sizes[axis])
        name = graph.node("Slice", name, begin, end, _ints(graph, x.order.index(axis)))
    return Value(tuple(avals[0].shape), x.dtype, name, None, x.order, x.stretched)


def _dynamic_update(
    graph: Graph, params: _Params, avals: Sequence[Any], x: Value, update: Value, *starts: Value
) -> Value:
    """Puts an update between what is before and behind it, along the axes in which it is shorter than the array."""
    del params
    axes = [axis for axis in range(x.rank) if update.shape[axis] != x.shape[axis]]
    ends = [_bounds(graph, starts[axis], x.shape[axis], update.shape[axis]) for axis in axes]

    def put(whole: str, depth: int) -> str:
        if depth == len(axes):
            return graph.full(update)
        axis, (begin, end) = _ints(graph, axes[depth]), ends[depth]
        before = graph.node("Slice", whole, _ints(graph, 0), begin, axis)
        behind = graph.node("Slice", whole, end, graph.shape([x.shape[axes[depth]]]), axis)
        inside = put(graph.node("Slice", whole, begin, end, axis), depth + 1)
        return graph.node("Concat", before, inside, behind, axis=axes[depth])

    return graph.made(put(graph.full(x), 0), avals[0].shape, x.dtype)


def _bounds(graph: Graph, start: Value, length: Side, size: Side) -> tuple[str, str]:
    """Returns where a part of `size` of an axis begins and ends, two tensors i64[1]."""
    zero = _ints(graph, 0)
    place = graph.node("Reshape", graph.node("Cast", graph.full(start), to=onnx_type(np.int64)), _ints(graph, 1))
    place = graph.node("Max", graph.node("Min", place, graph.shape([length - size])), zero)
    return place, graph.node("Add", place, graph.shape([size]))


def _reverse(graph: Graph, params: _Params, avals: Sequence[Any], x: Value) -> Value:
    axes = [x.order.index(axis) for axis in params["dimensions"] if axis not in x.stretched]
    name = graph.stored(x, x.order)
    if axes:
        many = len(axes)
        bounds = (_ints(graph, *[-1] * many), _ints(graph, *[_START] * many))
        name = graph.node("Slice", name, *bounds, _ints(graph, *axes), _ints(graph, *[-1] * many))
    return Value(x.shape, x.dtype, name, None, x.order, x.stretched)


def _pad(graph: Graph, params: _Params, avals: Sequence[Any], x: Value, value: Value) -> Value:
    config = params["padding_config"]
    if any(inner != 0 for _, _, inner in config):
        raise Unsupported("a padding between elements")
    low, high = ([config[axis][end] for axis in x.order] for end in (0, 1))
    if all(side == 0 for side in (*low, *high)):
        return x
    name, pads = graph.full(x, x.order), graph.shape([*low, *high])
    name = graph.node("Pad", name, pads, graph.full(value))
    return graph.made(name, avals[0].shape, x.dtype, x.order)


def _concatenate(graph: Graph, params: _Params, avals: Sequence[Any], *values: Value) -> Value:
    axis, shape = params["dimension"], avals[0].shape
    parts = [value for value in values if value.shape[axis] != 0]
    computed = [value for value in parts if value.array is None]
    order = computed[0].order if computed else identity(len(shape))
    names = [graph.full(value, order) for value in parts]
    name = names[0] if len(names) == 1 else graph.node("Concat", *names, axis=order.index(axis))
    return graph.made(name, shape, avals[0].dtype, order)


def _stack(graph: Graph, params: _Params, avals: Sequence[Any], *values: Value) -> Value:
    [axis] = [params[name] for name in ("axis", "dimension") if name in params]
    names = [graph.node("Unsqueeze", graph.full(value), _ints(graph, axis)) for value in values]
    return graph.made(graph.node("Concat", *names, axis=axis), avals[0].shape, avals[0].dtype)


def _split(graph: Graph, params: _Params, avals: Sequence[Any], x: Value) -> list[Value]:
    axis, start, parts = params["axis"], 0, []
    name, place = graph.full(x, x.order), x.order.index(params["axis"])
    for aval in avals:
        bounds = (graph.shape([start]), graph.shape([start + aval.shape[axis]]))
        part = graph.node("Slice", name, *bounds, _ints(graph, place))
        parts.append(graph.made(part, aval.shape, x.dtype, x.order))
        start = start + aval.shape[axis]
    return parts


def _gather(graph: Graph, params: _Params, avals: Sequence[Any], x: Value, index: Value) -> Value:
    """`jnp.take` and `jnp.take_along_axis`: whole slices along all axes but one, for indices that are inside.

    An index outside is clipped. In JAX, mode "fill" gives NaN for it, which no network has.
    """
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if index.rank == 1 and index.array is not None and not numbers.operand_batching_dims:
        return _fixed_slice(graph, numbers, sizes, avals, x, index.whole())
    shared, of_index = numbers.operand_batching_dims, numbers.start_indices_batching_dims
    if len(numbers.start_index_map) != 1 or numbers.collapsed_slice_dims != numbers.start_index_map:
        raise Unsupported("a gather along several axes")
    [axis] = numbers.start_index_map
    kept = [i for i in range(x.rank) if i != axis and i not in shared]
    if any(sizes[i] != x.shape[i] for i in kept):
        raise Unsupported("a gather of parts of slices")
    places = index.rank - 1
    others = [i for i in range(places) if i not in of_index]
    last = graph.node("Sub", graph.side(x.shape[axis]), graph.put(np.array(1, np.int64)))
    where = graph.node("Cast", graph.full(index, (*of_index, *others, places)), to=onnx_type(np.int64))
    if params["mode"] != jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        where = graph.node("Max", graph.node("Min", where, last), graph.put(np.array(0, np.int64)))
    if shared:
        data = graph.full(x, (*shared, axis, *kept))
        name = graph.node("GatherND", data, where, batch_dims=len(shared))
        batch, offset = [*of_index, *others], kept
        made = [*(("index", i) for i in batch), *(("slice", i) for i in offset)]
    else:
        where = graph.node("Squeeze", where, _ints(graph, places))
        name = graph.node("Gather", graph.full(x), where, axis=axis)
        made = [("slice", i) for i in range(axis)] + [("index", i) for i in others]
        made += [("slice", i) for i in range(axis + 1, x.rank)]
    # Where each of these axes is in the result.
    rank = len(avals[0].shape)
    free = [i for i in range(rank) if i not in numbers.offset_dims]
    wanted = {("slice", i): place for i, place in zip(kept, numbers.offset_dims, strict=True)}
    wanted |= {("index", i): place for i, place in zip(range(places), free, strict=True)}
    return graph.made(name, avals[0].shape, x.dtype, tuple(wanted[axis] for axis in made))


def _scatter(graph: Graph, params: _Params, avals: Sequence[Any], x: Value, index: Value, values: Value) -> Value:
    """`x.at[index].set(values)`: whole slices of the first axis, at indices i[n,1] that are inside."""
    numbers, window = params["dimension_numbers"], tuple(range(1, x.rank))
    found = (numbers.update_window_dims, numbers.inserted_window_dims, numbers.scatter_dims_to_operand_dims)
    if found != (window, (0,), (0,)) or numbers.operand_batching_dims or index.rank != 2:
        raise Unsupported("a scatter of parts of slices")
    where = graph.node("Cast", graph.full(index), to=onnx_type(np.int64))
    return graph.made(graph.node("ScatterND", graph.full(x), where, graph.full(values)), avals[0].shape, x.dtype)


def _fixed_slice(
    graph: Graph, numbers: Any, sizes: Sequence[Side], avals: Sequence[Any], x: Value, at: np.ndarray
) -> Value:
    """What `x[:, 1]` and `x[:, :2]` are where other sides are symbolic: one slice at a place that is known."""
    starts = [0] * x.rank
    for axis, start in zip(numbers.start_index_map, at.tolist(), strict=True):
        starts[axis] = start
    ends = [start + size for start, size in zip(starts, sizes)]
    part = jax.ShapeDtypeStruct(tuple(sizes), x.dtype)
    cut = _slice(graph, {"start_indices": starts, "limit_indices": ends, "strides": None}, [part], x)
    gone = tuple(numbers.collapsed_slice_dims)
    return _squeeze(graph, {"dimensions": gone}, avals, cut) if gone else cut


RULES = {
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "dim_as_value": _size,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "rev": _reverse,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "split": _split,
    "gather": _gather,
    "scatter": _scatter,
}
