"""A tape of the equations of a program that depend on one input, and the way back through them by dependence alone.

`record` evaluates a traced program (jaxpr). What does not depend on a `Tracked` input is computed; the rest is written
to the tape. `backwards` goes through the tape from the last equation to the first, with arrays of 0 and 1 in place of
gradients: 1 where a value matters to the output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as core
import jax.numpy as jnp
from jax import lax


class Tracked:
    """A value of the program that depends on the input: its shape, without the value."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = tuple(shape)


class Tape:
    """Entries (rule, inputs, outputs) in the order of the program; inputs are arrays or `Tracked`, outputs `Tracked`.

    A rule takes the inputs and the arrays of its outputs, and returns the array of each tracked input.
    """

    def __init__(self, inputs: Sequence[Tracked]):
        self.inputs = inputs
        self.entries: list[tuple[Callable[..., Any], list[Any], list[Tracked]]] = []
        self.results: list[Any] = []


def record(closed: Any, arguments: Sequence[Any]) -> Tape:
    """Returns the tape of a closed jaxpr; `arguments` are arrays and `Tracked`, one for each input of the program."""
    tape = Tape([value for value in arguments if isinstance(value, Tracked)])
    tape.results = _run(tape, closed.jaxpr, closed.consts, list(arguments))
    return tape


def backwards(tape: Tape, seed: jax.Array) -> jax.Array:
    """Returns f32 of the shape of the first tracked input, 1 where it matters to the first result where `seed` is 1."""
    matters: dict[int, jax.Array] = {id(tape.results[0]): seed}
    for rule, inputs, outputs in reversed(tape.entries):
        if not any(id(out) in matters for out in outputs):
            continue
        arriving = [matters[id(out)] if id(out) in matters else jnp.zeros(out.shape, jnp.float32) for out in outputs]
        tracked = [value for value in inputs if isinstance(value, Tracked)]
        for value, leaving in zip(tracked, rule(inputs, arriving)):
            leaving = (leaving > 0).astype(jnp.float32)
            before = matters[id(value)] if id(value) in matters else jnp.zeros(value.shape, jnp.float32)
            matters[id(value)] = jnp.maximum(before, leaving)
    first = tape.inputs[0]
    return matters[id(first)] if id(first) in matters else jnp.zeros(first.shape, jnp.float32)


def _run(tape: Tape, jaxpr: Any, consts: Sequence[Any], arguments: list[Any]) -> list[Any]:
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    values.update(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments]))
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if any(isinstance(value, Tracked) for value in inputs):
            results = _follow(tape, equation, inputs)
        else:
            alone = jaxpr.replace(constvars=[], invars=_variables(equation), outvars=equation.outvars, eqns=[equation])
            results = core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*(values[v] for v in alone.invars))
        values.update(zip(equation.outvars, results))
    return [read(atom) for atom in jaxpr.outvars]


def _variables(equation: Any) -> list[Any]:
    return list(dict.fromkeys(atom for atom in equation.invars if not isinstance(atom, core.Literal)))


def _follow(tape: Tape, equation: Any, inputs: list[Any]) -> list[Any]:
    """Writes an equation with a tracked input to the tape; returns its results."""
    name, params = equation.primitive.name, equation.params
    if name == "cond" and not isinstance(inputs[0], Tracked):
        branches = [_run(tape, branch.jaxpr, branch.consts, inputs[1:]) for branch in params["branches"]]
        return [_either(tape, results) for results in zip(*branches)]
    if name == "scan" and not any(isinstance(value, Tracked) for value in _scanned(params, inputs)):
        return _unrolled(tape, params, inputs)
    inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
    if inner is not None and name not in ("scan", "while"):
        jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
        return _run(tape, jaxpr, consts, inputs)
    outputs = [Tracked(variable.aval.shape) for variable in equation.outvars]
    tape.entries.append((_rule(equation), inputs, outputs))
    return outputs


def _either(tape: Tape, values: Sequence[Any]) -> Any:
    """Returns a value that is one of several, which one is not known here."""
    if not any(isinstance(value, Tracked) for value in values):
        return values[0]
    output = Tracked(values[0].shape)
    tape.entries.append((_elementwise, list(values), [output]))
    return output


def _scanned(params: dict[str, Any], inputs: list[Any]) -> list[Any]:
    return inputs[params["num_consts"] + params["num_carry"] :]


def _unrolled(tape: Tape, params: dict[str, Any], inputs: list[Any]) -> list[Any]:
    """Follows a loop over arrays that do not depend on the input, step by step; its stacked results are not tracked."""
    consts, many = params["num_consts"], params["num_carry"]
    carried, scanned = inputs[consts : consts + many], _scanned(params, inputs)
    order = range(params["length"])
    stacked: list[list[Any]] = []
    for i in reversed(order) if params["reverse"] else order:
        body = params["jaxpr"]
        results = _run(tape, body.jaxpr, body.consts, [*inputs[:consts], *carried, *(x[i] for x in scanned)])
        carried = results[:many]
        stacked.append(results[many:])
    if any(isinstance(value, Tracked) for results in stacked for value in results):
        raise NotImplementedError("a loop that stacks values of the image")
    if params["reverse"]:
        stacked.reverse()
    return [*carried, *(jnp.stack(values) for values in zip(*stacked))]


# One value of each input matters to one value of the output, at the same place.
_ELEMENTWISE = (
    *("abs", "add", "add_any", "and", "atan2", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p"),
    *("cos", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow"),
    *("is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter"),
    *("not", "optimization_barrier", "or", "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n"),
    *("sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor"),
)
# These move values or add them up: the gradient is 1 where a value is read, and 0 elsewhere.
_LINEAR = (
    *("broadcast_in_dim", "concatenate", "cumsum", "dynamic_slice", "expand_dims", "gather", "pad", "reduce_sum"),
    *("reduce_window_sum", "reshape", "rev", "slice", "split", "squeeze", "stack", "transpose", "unstack"),
)
_REDUCTIONS = (
    *("argmax", "argmin", "reduce_and", "reduce_max", "reduce_min"),
    *("reduce_or", "reduce_prod", "reduce_xor"),
)
_POOLING = ("reduce_window_max", "reduce_window_min", "cummax", "cummin", "cumprod", "cumlogsumexp")
_PRODUCTS = ("conv_general_dilated", "dot_general")


def _rule(equation: Any) -> Callable[..., Any]:
    name, params = equation.primitive.name, dict(equation.params)
    if name in _ELEMENTWISE:
        return _masked if name in ("mul", "and") else _elementwise
    if name in _REDUCTIONS:
        return _of_function(lambda x: jnp.sum(x, axis=tuple(params["axes"])))
    if name in _POOLING:
        return _of_function(lambda x: _pooled(x, name, params))
    if name in _PRODUCTS:
        params["preferred_element_type"] = None
    if name in (*_LINEAR, *_PRODUCTS):
        return lambda inputs, arriving: _linear(equation.primitive, params, inputs, arriving)
    return _everything


def _elementwise(inputs: list[Any], arriving: list[jax.Array]) -> list[jax.Array]:
    if len(arriving) > 1:  # a barrier: output i is input i
        return [there for value, there in zip(inputs, arriving) if isinstance(value, Tracked)]
    return [_shaped(arriving[0], value.shape) for value in inputs if isinstance(value, Tracked)]


def _masked(inputs: list[Any], arriving: list[jax.Array]) -> list[jax.Array]:
    """A product, whose other factor may be a mask of zeros."""
    for value in inputs:
        if not isinstance(value, Tracked):
            arriving = [arriving[0] * (jnp.asarray(value) != 0)]
    return _elementwise(inputs, arriving)


def _shaped(there: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return there if there.shape == shape else jnp.broadcast_to(there.max(), shape)


def _everything(inputs: list[Any], arriving: list[jax.Array]) -> list[jax.Array]:
    """All of each input matters if anything of an output does."""
    one = jnp.max(jnp.stack([there.max() for there in arriving if there.size]))
    return [jnp.broadcast_to(one, value.shape) for value in inputs if isinstance(value, Tracked)]


def _of_function(function: Callable[[jax.Array], jax.Array]) -> Callable[..., Any]:
    def rule(inputs: list[Any], arriving: list[jax.Array]) -> list[jax.Array]:
        (value,) = inputs
        _, vjp = jax.vjp(function, jnp.zeros(value.shape, jnp.float32))
        return list(vjp(arriving[0]))

    return rule


def _pooled(x: jax.Array, name: str, params: dict[str, Any]) -> jax.Array:
    if name.startswith("cum"):
        return lax.cumsum(x, params["axis"], reverse=params["reverse"])
    return lax.reduce_window(
        x,
        0.0,
        lax.add,
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["base_dilation"],
        params["window_dilation"],
    )


def _linear(primitive: Any, params: dict[str, Any], inputs: list[Any], arriving: list[jax.Array]) -> list[jax.Array]:
    """Pulls back through a primitive that is linear in each tracked input, with the zeros of the others in place."""
    places = [i for i, value in enumerate(inputs) if isinstance(value, Tracked)]
    moving = primitive.name in ("gather", "dynamic_slice")
    if moving and places != [0]:  # where it reads depends on the input
        return _everything(inputs, arriving)

    def other(i: int) -> jax.Array:
        value = inputs[i]
        if isinstance(value, Tracked):
            return jnp.ones(value.shape, jnp.float32)
        return value if moving and i else (jnp.asarray(value) != 0).astype(jnp.float32)

    leaving = []
    # In turn, since a product of two tracked inputs is linear in each, but not in both.
    for place in places if primitive.name in _PRODUCTS else [places]:
        those = [place] if isinstance(place, int) else place

        def function(*tracked: jax.Array, those: list[int] = those) -> Any:
            values = [tracked[those.index(i)] if i in those else other(i) for i in range(len(inputs))]
            return primitive.bind(*values, **params)

        outputs, vjp = jax.vjp(function, *(jnp.zeros(inputs[i].shape, jnp.float32) for i in those))
        leaving += vjp(list(arriving) if isinstance(outputs, list | tuple) else arriving[0])
    return leaving
