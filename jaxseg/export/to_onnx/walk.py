"""Goes through a jaxpr and translates each of its operations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.extend import core

from jaxseg.export.to_onnx import control, elementwise, products, reductions, shapes
from jaxseg.export.to_onnx.graph import Graph, Unsupported, Value, constant

Rule: TypeAlias = Callable[..., Any]
RULES: dict[str, Rule] = {**elementwise.RULES, **shapes.RULES, **products.RULES, **reductions.RULES}
"""{primitive of JAX: function(graph, parameters, avals of the results, *values) -> value or values}."""

_SAME = ("stop_gradient", "copy", "copy_p", "optimization_barrier", "name", "sharding_constraint", "reduce_precision")
_LARGEST_CONSTANT = 1 << 24  # elements; what is larger is computed in the program


def translate(graph: Graph, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value], layer: str = "") -> list[Value]:
    """Adds the nodes of a jaxpr, which `layer` of the network calls, to a graph and returns its results.

    Raises:
        Unsupported: for an operation without a translation; the text names it and the layer where it stands.
    """
    values: dict[Any, Value] = {}

    def read(variable: Any) -> Value:
        return _known(variable, variable.val) if isinstance(variable, core.Literal) else values[variable]

    values.update(zip(jaxpr.constvars, map(_known, jaxpr.constvars, consts)))
    values.update(zip(jaxpr.invars, inputs, strict=True))
    for equation in jaxpr.eqns:
        arguments = [read(variable) for variable in equation.invars]
        results = _equation(graph, equation, arguments, layer)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _equation(graph: Graph, equation: Any, arguments: list[Value], layer: str) -> list[Value]:
    layer = "/".join(filter(None, (layer, str(equation.source_info.name_stack))))
    name, params = equation.primitive.name, equation.params
    avals = [variable.aval for variable in equation.outvars]
    if name in _SAME:
        return arguments
    if name == "platform_index":
        return [constant(np.int32(0))]
    if name == "cond":
        return control.conditional(translate, graph, params, avals, arguments, layer)
    if name == "while":
        return control.loop(translate, graph, params, avals, arguments, layer)
    inner = _inner(params) if name not in ("scan", "while") else None
    if inner is not None:
        return translate(graph, inner.jaxpr, inner.consts, arguments, layer)
    try:
        if name in elementwise.RULES:  # which compute constants themselves
            return [elementwise.apply(graph, equation.primitive, params, avals[0], arguments)]
        if all(value.array is not None for value in arguments) and _is_small(avals) and name not in shapes.LAZY:
            arrays = [jax.numpy.asarray(value.whole()) for value in arguments]
            results = equation.primitive.bind(*arrays, **params)
            return [constant(x) for x in (results if equation.primitive.multiple_results else [results])]
        if name not in RULES:
            raise Unsupported(f"the operation {name}")
        results = RULES[name](graph, params, avals, *arguments)
    except Unsupported as error:
        place = f"in the layer {layer}" if layer else "outside of the network"
        raise Unsupported(f"{error}, {place}") from error
    return results if isinstance(results, list) else [results]


def _known(variable: Any, value: Any) -> Value:
    return constant(np.asarray(value, variable.aval.dtype))


def _inner(params: Mapping[str, Any]) -> core.ClosedJaxpr | None:
    """Returns the jaxpr that an operation calls, such as that of `jit`."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in params:
            inner = params[name]
            return inner if hasattr(inner, "consts") else core.ClosedJaxpr(inner, ())
    return None


def _is_small(avals: Sequence[Any]) -> bool:
    sides = [side for aval in avals for side in aval.shape]
    if not all(isinstance(side, int) for side in sides):
        return False
    return all(np.prod(aval.shape, dtype=np.int64) <= _LARGEST_CONSTANT for aval in avals)
