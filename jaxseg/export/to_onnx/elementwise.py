"""Operations that compute each element from the elements at its place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxseg.export.to_onnx.graph import Graph, Order, Unsupported, Value, identity, onnx_type

# Primitive -> node.
_NODES = {
    "add": "Add",
    "add_any": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "pow": "Pow",
    "neg": "Neg",
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "floor": "Floor",
    "ceil": "Ceil",
    "sign": "Sign",
    "sin": "Sin",
    "cos": "Cos",
    "erf": "Erf",
    "not": "Not",
    "and": "And",
    "or": "Or",
    "xor": "Xor",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}


def apply(graph: Graph, primitive: Any, params: Mapping[str, Any], aval: Any, values: Sequence[Value]) -> Value:
    """Returns the result of an elementwise primitive, in the order of axes of its largest operand."""
    if all(value.array is not None for value in values):
        return _constant(primitive, params, aval, values)
    rank = len(aval.shape)
    order = _order(values, rank)
    names = [graph.stored(value, order) if value.rank else graph.stored(value) for value in values]
    everywhere = frozenset(range(rank))
    stretched = everywhere.intersection(*(value.stretched if value.rank else everywhere for value in values))
    name = RULES[primitive.name](graph, params, values[0].dtype, *names)
    if not all(value.rank for value in values) and stretched == everywhere and rank:
        name = graph.node("Reshape", name, graph.put(np.ones(rank, np.int64)))
    return Value(tuple(aval.shape), np.dtype(aval.dtype), name, None, order, stretched)


def _order(values: Sequence[Value], rank: int) -> Order:
    computed = [value for value in values if value.rank and value.array is None]
    if not computed:
        return identity(rank)
    return min(computed, key=lambda value: len(value.stretched)).order


def _constant(primitive: Any, params: Mapping[str, Any], aval: Any, values: Sequence[Value]) -> Value:
    rank = len(aval.shape)
    arrays = [
        value.array.transpose(np.argsort(value.order)) if value.rank else value.array.reshape((1,) * rank)
        for value in values
        if value.array is not None
    ]
    arrays = [jnp.asarray(array) for array in np.broadcast_arrays(*arrays)]
    if "sharding" in params:
        params = {**params, "sharding": None}
    result = np.asarray(primitive.bind(*arrays, **params))
    stretched = frozenset(i for i in range(rank) if result.shape[i] != aval.shape[i])
    return Value(tuple(aval.shape), np.dtype(aval.dtype), "", result, identity(rank), stretched)


def _node(op: str) -> Callable[..., str]:
    return lambda graph, params, dtype, *names: graph.node(op, *names)


def _logical(op: str, of_numbers: str) -> Callable[..., str]:
    def rule(graph: Graph, params: Mapping[str, Any], dtype: Any, *names: str) -> str:
        if dtype != np.bool_:
            raise Unsupported(f"the operation {of_numbers} of whole numbers")
        return graph.node(op, *names)

    return rule


def _convert(graph: Graph, params: Mapping[str, Any], dtype: Any, x: str) -> str:
    return graph.node("Cast", x, to=onnx_type(params["new_dtype"]))


def _different(graph: Graph, params: Mapping[str, Any], dtype: Any, x: str, y: str) -> str:
    return graph.node("Not", graph.node("Equal", x, y))


def _remainder(graph: Graph, params: Mapping[str, Any], dtype: Any, x: str, y: str) -> str:
    return graph.node("Mod", x, y, fmod=1)  # of the sign of x


def _select(graph: Graph, params: Mapping[str, Any], dtype: Any, which: str, *cases: str) -> str:
    if dtype != np.bool_ or len(cases) != 2:
        raise Unsupported("a choice between more than two values")
    return graph.node("Where", which, cases[1], cases[0])


def _clamp(graph: Graph, params: Mapping[str, Any], dtype: Any, low: str, x: str, high: str) -> str:
    return graph.node("Min", graph.node("Max", x, low), high)


def _integer_power(graph: Graph, params: Mapping[str, Any], dtype: Any, x: str) -> str:
    if params["y"] == 2:
        return graph.node("Mul", x, x)
    return graph.node("Pow", x, graph.put(np.array(params["y"], dtype)))


def _composed(*ops: str) -> Callable[..., str]:
    """Returns the rule that applies nodes of one operand one after another."""

    def rule(graph: Graph, params: Mapping[str, Any], dtype: Any, x: str) -> str:
        for op in ops:
            x = graph.node(op, x)
        return x

    return rule


def _of_one(function: Callable[[Graph, str, str], str]) -> Callable[..., str]:
    """Returns the rule of a function(graph, x, the number 1)."""
    return lambda graph, params, dtype, x: function(graph, x, graph.put(np.array(1, dtype)))


RULES: dict[str, Callable[..., str]] = {
    **{primitive: _node(op) for primitive, op in _NODES.items()},
    **{name: _logical(_NODES[name], name) for name in ("not", "and", "or", "xor")},
    "ne": _different,
    "rem": _remainder,
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _convert,
    "integer_pow": _integer_power,
    "square": lambda graph, params, dtype, x: graph.node("Mul", x, x),
    "rsqrt": _composed("Sqrt", "Reciprocal"),
    "erfc": _of_one(lambda graph, x, one: graph.node("Sub", one, graph.node("Erf", x))),
    "log1p": _of_one(lambda graph, x, one: graph.node("Log", graph.node("Add", x, one))),
    "expm1": _of_one(lambda graph, x, one: graph.node("Sub", graph.node("Exp", x), one)),
    "is_finite": lambda graph, params, dtype, x: graph.node("Not", graph.node("IsInf", x)),
    "round": lambda graph, params, dtype, x: graph.node("Round", x),
}
"""{primitive: function(graph, parameters, dtype of the first operand, *names of tensors) -> name of a tensor}."""
