"""Choices and loops, whose bodies are graphs inside a node."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import helper

from jaxseg.export.to_onnx.graph import Graph, Unsupported, Value, onnx_type

# The function `walk.translate`, which the bodies need and which needs the functions here.
Translate: TypeAlias = Callable[..., list[Value]]


def conditional(
    translate: Translate,
    graph: Graph,
    params: Mapping[str, Any],
    avals: Sequence[Any],
    arguments: list[Value],
    layer: str,
) -> list[Value]:
    """`lax.platform_dependent` takes its default branch; any other condition becomes the node If."""
    branches, (index, *operands) = params["branches"], arguments
    by_platform = params["branches_platforms"] if "branches_platforms" in params else None
    if by_platform is not None:
        [default] = [branch for branch, platforms in zip(branches, by_platform) if platforms is None]
        return translate(graph, default.jaxpr, default.consts, operands, layer)
    if index.array is not None:
        branch = branches[int(np.clip(index.whole(), 0, len(branches) - 1))]
        return translate(graph, branch.jaxpr, branch.consts, operands, layer)
    if len(branches) != 2:
        raise Unsupported("a choice between more than two branches")
    # What both branches read is computed before them.
    operands = [graph.made(graph.full(value), value.shape, value.dtype) for value in operands]
    bodies = []
    for branch in branches:
        body = Graph(graph.sizes, graph)
        outputs = []
        for value in translate(body, branch.jaxpr, branch.consts, operands, layer):
            name = body.node("Identity", body.full(value))
            outputs.append(helper.make_tensor_value_info(name, onnx_type(value.dtype), [None] * value.rank))
        bodies.append(helper.make_graph(body.nodes, graph.new_name("branch"), [], outputs, body.initializers))
    names = [graph.new_name("if") for _ in avals]
    condition = graph.node("Cast", graph.full(index), to=onnx_type(bool))
    graph.nodes.append(
        helper.make_node("If", [condition], names, name=names[0], then_branch=bodies[1], else_branch=bodies[0])
    )
    return [graph.made(name, aval.shape, aval.dtype) for name, aval in zip(names, avals)]


def loop(
    translate: Translate,
    graph: Graph,
    params: Mapping[str, Any],
    avals: Sequence[Any],
    arguments: list[Value],
    layer: str,
) -> list[Value]:
    """`lax.while_loop` and `lax.fori_loop` become the node Loop: the state goes through its body while a test holds."""
    tested, read = params["cond_nconsts"], params["body_nconsts"]
    of_test, of_body, state = arguments[:tested], arguments[tested : tested + read], arguments[tested + read :]
    test, step = params["cond_jaxpr"], params["body_jaxpr"]

    def holds(at: Graph, values: list[Value]) -> str:
        [value] = translate(at, test.jaxpr, test.consts, [*of_test, *values], layer)
        return at.node("Cast", at.full(value), to=onnx_type(bool))

    start, first = [graph.full(value) for value in state], holds(graph, state)
    body = Graph(graph.sizes, graph)
    inputs = [helper.make_tensor_value_info(graph.new_name("turn"), onnx_type(np.int64), [])]
    inputs.append(helper.make_tensor_value_info(graph.new_name("goes_on"), onnx_type(bool), []))
    carried = [body.made(graph.new_name("state"), aval.shape, aval.dtype) for aval in avals]
    inputs += [_described(value.name, value) for value in carried]
    changed = translate(body, step.jaxpr, step.consts, [*of_body, *carried], layer)
    changed = [body.made(body.node("Identity", body.full(value)), value.shape, value.dtype) for value in changed]
    test_name = holds(body, changed)
    outputs = [helper.make_tensor_value_info(test_name, onnx_type(bool), [])]
    outputs += [_described(value.name, value) for value in changed]
    inner = helper.make_graph(body.nodes, graph.new_name("body"), inputs, outputs, body.initializers)
    names = [graph.new_name("loop") for _ in avals]
    graph.nodes.append(helper.make_node("Loop", ["", first, *start], names, name=names[0], body=inner))
    return [graph.made(name, aval.shape, aval.dtype) for name, aval in zip(names, avals)]


def _described(name: str, value: Value) -> Any:
    return helper.make_tensor_value_info(name, onnx_type(value.dtype), [None] * value.rank)
