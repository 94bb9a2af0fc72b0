"""Sums and maxima over axes and over windows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.export.to_onnx.graph import Graph, Unsupported, Value, onnx_type

_Params = Mapping[str, Any]


def _left(x: Value, axes: Sequence[int]) -> tuple[int, ...]:
    """Returns the order of what is left of a stored array without some axes."""
    left = [axis for axis in x.order if axis not in axes]
    ranked = sorted(left)
    return tuple(ranked.index(axis) for axis in left)


def _reduce(op: str) -> Callable[..., Value]:
    def rule(graph: Graph, params: _Params, avals: Sequence[Any], x: Value) -> Value:
        axes, name = params["axes"], graph.full(x, x.order)
        logical = x.dtype == np.bool_
        if logical:
            name = graph.node("Cast", name, to=onnx_type(np.int32))
        places = graph.put(np.array(sorted(x.order.index(axis) for axis in axes), np.int64))
        name = graph.node(op, name, places, keepdims=0)
        if logical:
            name = graph.node("Cast", name, to=onnx_type(bool))
        return graph.made(name, avals[0].shape, avals[0].dtype, _left(x, axes))

    return rule


def _place_of(op: str) -> Callable[..., Value]:
    def rule(graph: Graph, params: _Params, avals: Sequence[Any], x: Value) -> Value:
        [axis] = params["axes"]
        name = graph.node(op, graph.full(x, x.order), axis=x.order.index(axis), keepdims=0, select_last_index=0)
        name = graph.node("Cast", name, to=onnx_type(avals[0].dtype))
        return graph.made(name, avals[0].shape, avals[0].dtype, _left(x, [axis]))

    return rule


def _largest(graph: Graph, params: _Params, avals: Sequence[Any], x: Value) -> list[Value]:
    """`lax.top_k` of any axis: values and places, of equal values that of the lower place first."""
    number = graph.put(np.array([params["k"]], np.int64))
    values, places = graph.several("TopK", 2, graph.full(x), number, axis=params["axis"])
    places = graph.node("Cast", places, to=onnx_type(avals[1].dtype))
    return [graph.made(name, aval.shape, aval.dtype) for name, aval in zip((values, places), avals, strict=True)]


def _windows(op: str) -> Callable[..., Value]:
    def rule(graph: Graph, params: _Params, avals: Sequence[Any], x: Value) -> Value:
        window, strides, pads = params["window_dimensions"], params["window_strides"], params["padding"]
        dilated = {*params["base_dilation"], *params["window_dilation"]} != {1}
        space = [axis for axis in range(x.rank) if (window[axis], strides[axis], tuple(pads[axis])) != (1, 1, (0, 0))]
        if dilated or x.rank != 4 or len(space) > 2:
            raise Unsupported("a reduction over windows that are not of rows and columns")
        others = [axis for axis in range(4) if axis not in space]
        while len(space) < 2:
            space.insert(0, others.pop())
        order = (*others, *space)
        more: dict[str, Any] = {"count_include_pad": 1} if op == "AveragePool" else {}
        stored, lows, highs = graph.full(x, order), [pads[i][0] for i in space], [pads[i][1] for i in space]
        if not all(isinstance(side, int) for side in (*lows, *highs)):
            lowest = np.array(0 if op == "AveragePool" else -np.inf, x.dtype)
            stored = graph.node("Pad", stored, graph.shape([0, 0, *lows, 0, 0, *highs]), graph.put(lowest))
            lows = highs = [0, 0]
        shape = {"kernel_shape": [window[i] for i in space], "strides": [strides[i] for i in space]}
        name = graph.node(op, stored, pads=[*lows, *highs], **shape, **more)
        if op == "AveragePool":
            name = graph.node("Mul", name, graph.put(np.array(np.prod(shape["kernel_shape"]), x.dtype)))
        return graph.made(name, avals[0].shape, avals[0].dtype, order)

    return rule


RULES: dict[str, Callable[..., Any]] = {
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_or": _reduce("ReduceMax"),
    "reduce_and": _reduce("ReduceMin"),
    "argmax": _place_of("ArgMax"),
    "argmin": _place_of("ArgMin"),
    "top_k": _largest,
    "reduce_window_max": _windows("MaxPool"),
    "reduce_window_sum": _windows("AveragePool"),
}
