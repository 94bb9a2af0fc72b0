"""Convolutions and products of matrices."""

import itertools
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.export.to_onnx.graph import Graph, Unsupported, Value

_Params = Mapping[str, Any]


def _convolution(graph: Graph, params: _Params, avals: Sequence[Any], x: Value, kernel: Value) -> Value:
    numbers, strides, dilations = params["dimension_numbers"], params["window_strides"], params["rhs_dilation"]
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise Unsupported("a transposed convolution written as a dilated one")
    pads = params["padding"]
    if not all(isinstance(side, int) and side >= 0 for pair in pads for side in pair):
        raise Unsupported("a convolution whose padding is negative or not known")
    name = graph.node(
        "Conv",
        graph.full(x, tuple(numbers.lhs_spec)),
        graph.full(kernel, tuple(numbers.rhs_spec)),
        strides=list(strides),
        dilations=list(dilations),
        group=params["feature_group_count"],
        pads=[low for low, _ in pads] + [high for _, high in pads],
        kernel_shape=[kernel.shape[axis] for axis in numbers.rhs_spec[2:]],
    )
    return graph.made(name, avals[0].shape, avals[0].dtype, tuple(numbers.out_spec))


def _product(graph: Graph, params: _Params, avals: Sequence[Any], a: Value, b: Value) -> Value:
    (of_a, of_b), (batch_a, batch_b) = params["dimension_numbers"]
    if not np.issubdtype(a.dtype, np.floating):
        raise Unsupported("a product of matrices of whole numbers")
    shape, dtype = avals[0].shape, avals[0].dtype
    if not batch_a and len(of_a) == 1 and not (a.stretched or b.stretched):
        if b.rank == 2 and a.rank > 1:
            return _by_matrix(graph, a, b, of_a[0], of_b[0], shape, dtype, first=True)
        if a.rank == 2 and b.rank > 2:
            return _by_matrix(graph, b, a, of_b[0], of_a[0], shape, dtype, first=False)
    letters = iter(string.ascii_letters)
    names_a = {axis: next(letters) for axis in range(a.rank)}
    names_b = {there: names_a[here] for here, there in itertools.chain(zip(of_a, of_b), zip(batch_a, batch_b))}
    names_b |= {axis: next(letters) for axis in range(b.rank) if axis not in names_b}
    free_a = [axis for axis in range(a.rank) if axis not in (*of_a, *batch_a)]
    free_b = [axis for axis in range(b.rank) if axis not in (*of_b, *batch_b)]
    result = "".join([*(names_a[i] for i in (*batch_a, *free_a)), *(names_b[i] for i in free_b)])
    left, right = ("".join(names[axis] for axis in v.order) for names, v in ((names_a, a), (names_b, b)))
    operands = (graph.full(a, a.order), graph.full(b, b.order))
    return graph.made(graph.node("Einsum", *operands, equation=f"{left},{right}->{result}"), shape, dtype)


def _by_matrix(
    graph: Graph, x: Value, matrix: Value, axis: int, side: int, shape: Any, dtype: Any, *, first: bool
) -> Value:
    """The product along one axis of x with a matrix, whose axis `side` is summed over; `first`: x is on the left.

    Where the axis is the last but one of the stored array, as the rows of an image whose channels are first, the
    matrix is multiplied from the left and nothing is transposed.
    """
    order = x.order
    if axis not in order[-2:] or x.array is not None:
        order = (*(i for i in range(x.rank) if i != axis), axis)
    stored, place = graph.stored(x, order), order.index(axis)
    if place == x.rank - 1:
        name = graph.node("MatMul", stored, graph.stored(matrix, (side, 1 - side)))
    else:
        name = graph.node("MatMul", graph.stored(matrix, (1 - side, side)), stored)
    # In the result of JAX the axes of x come in their order, with the new one behind them (`first`) or before.
    left = [i for i in range(x.rank) if i != axis]
    new = len(left) if first else 0
    places = {i: place + (not first) for place, i in enumerate(left)} | {axis: new}
    return graph.made(name, shape, dtype, tuple(places[i] for i in order))


RULES = {"conv_general_dilated": _convolution, "dot_general": _product}
