"""The cost of a network, module by module, without running or compiling it: shapes, parameters, operations, memory."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend.core import Var

from jaxseg.errors import ArgumentError


class Row(NamedTuple):
    """One module, together with the modules inside it.

    Attributes:
        path: names from the network down, with "/" between; empty for the network itself.
        kind: name of its class.
        shape: of its first output, without the batch; None if it returns no array.
        parameters: the number of its parameters.
        flops: of its convolutions and matrix products for one image: 2 for a multiply-add, also for zeros of padding.
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    flops: int


class Totals(NamedTuple):
    """The whole network.

    Attributes:
        parameters: the number of parameters.
        statistics: the number of running statistics of the norms.
        flops: of one image in evaluation, as XLA estimates them for the lowered program: every operation counts
            (norms, activations and resizing too), except those on zeros of padding.
        inference_bytes: of the parameters, and of the intermediate results of a batch in evaluation at their peak.
        training_bytes: of the parameters, gradients and two moments, and of the results of a batch that are kept for
            the backward pass; NaN where batch norm refuses to train, on a single value a channel.
    """

    parameters: int
    statistics: int
    flops: int
    inference_bytes: int
    training_bytes: float


def modules(model: nn.Module, size: tuple[int, ...], channels: int = 3) -> list[Row]:
    """Returns a row for each module that evaluation calls, the network first, in the order of the calls.

    Args:
        model: a network, or an encoder.
        size: height and width of the image.
        channels: of the image.
    """
    variables, image = shapes(model, size, channels)
    seen: dict[tuple[str, ...], tuple[str, tuple[int, ...] | None]] = {}

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        path = context.module.path
        seen.setdefault(path, (type(context.module).__name__, None))  # before the modules inside it
        result = call(*args, **kwargs)
        outputs = [leaf for leaf in jax.tree.leaves(result) if hasattr(leaf, "shape") and leaf.ndim]
        seen[path] = (type(context.module).__name__, tuple(outputs[0].shape[1:]) if outputs else None)
        return result

    def forward(variables: Any, image: Any) -> Any:
        with nn.intercept_methods(record):
            return model.apply(variables, image, train=False)

    program = jax.make_jaxpr(forward)(variables, image)
    flops = _by_prefix(matrix_flops(program.jaxpr), skip=1)  # the first name is that of the network's class
    parameters = _by_prefix(
        (tuple(part.key for part in path[:-1]), math.prod(leaf.shape))
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    )
    return [Row("/".join(path), kind, shape, parameters[path], flops[path]) for path, (kind, shape) in seen.items()]


def totals(model: nn.Module, size: tuple[int, ...], channels: int = 3, batch: int = 1) -> Totals:
    """Returns the costs of the whole network for batches of `batch` images of `size`."""
    variables, image = shapes(model, size, channels)
    images = jax.ShapeDtypeStruct((batch, *image.shape[1:]), image.dtype)

    def evaluate(variables: Any, image: jax.Array) -> Any:
        result = model.apply(variables, image, train=False)
        return result[0] if isinstance(result, tuple) and not hasattr(model, "strides") else result

    def backward(params: Any, rest: Any, images: jax.Array) -> Any:
        def train(params: Any) -> Any:
            draws = {"dropout": jax.random.key(0)}
            result, _ = model.apply({"params": params, **rest}, images, train=True, mutable=list(rest), rngs=draws)
            return result

        return jax.vjp(train, params)[1]

    rest = {name: tree for name, tree in variables.items() if name != "params"}
    learned, fixed = _bytes(variables["params"]), _bytes(rest)
    try:
        kept = jax.make_jaxpr(backward)(variables["params"], rest, images).jaxpr
        residuals = {v for v in kept.outvars if isinstance(v, Var)} - set(kept.invars)
        training_bytes = 4 * learned + fixed + _bytes(images) + sum(_size(v.aval) for v in residuals)
    except ArgumentError:  # evaluation accepts the network; training needs a larger image or batch
        training_bytes = math.nan
    cost = jax.jit(evaluate).lower(variables, image).cost_analysis()
    assert cost is not None
    program = jax.make_jaxpr(evaluate)(variables, images)
    return Totals(
        parameters=_count(variables["params"]),
        statistics=_count(rest),
        flops=int(cost["flops"]),
        inference_bytes=learned + fixed + peak_bytes(program.jaxpr),
        training_bytes=training_bytes,
    )


def shapes(model: nn.Module, size: tuple[int, ...], channels: int) -> tuple[Any, jax.ShapeDtypeStruct]:
    """Returns the shapes of the variables and of one image."""
    image = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), image), image


def matrix_flops(program: Any, scope: tuple[str, ...] = (), times: int = 1) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yields (names of the enclosing modules, operations) for each convolution and matrix product of a jaxpr."""
    for equation in program.eqns:
        names = scope
        for part in filter(None, str(equation.source_info.name_stack).split("/")):
            name, _, method = part.partition(".")
            if not method or names[-1:] != (name,):  # "UNet.decode" directly inside "UNet" is the same module
                names = (*names, name)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            yield names, times * 2 * equation.outvars[0].aval.size * depth
        elif equation.primitive.name == "conv_general_dilated":
            kernel, numbers = equation.invars[1].aval, equation.params["dimension_numbers"]
            depth = kernel.size // kernel.shape[numbers.rhs_spec[0]]
            yield names, times * 2 * _taps(equation) * depth
        inner = times * (equation.params["length"] if equation.primitive.name == "scan" else 1)
        for part in _programs(equation):
            yield from matrix_flops(part, names, inner)


def _taps(equation: Any) -> int:
    """Returns the size of a convolution's output; for a dilated input, the share that is not computed from zeros."""
    return equation.outvars[0].aval.size // math.prod(equation.params["lhs_dilation"])


def _programs(equation: Any) -> list[Any]:
    """Returns the jaxprs inside an equation: one of its branches, and no rule of a derivative.

    Of branches for several platforms it takes the one with the most operations in matrix products: others may express a
    convolution as sums of products.
    """
    if equation.primitive.name == "cond":
        branches = [branch.jaxpr for branch in equation.params["branches"]]
        return [max(branches, key=lambda branch: sum(flops for _, flops in matrix_flops(branch)))]
    found = []
    for name, value in equation.params.items():
        if name in ("jaxpr", "call_jaxpr", "body_jaxpr"):
            found.append(value.jaxpr if hasattr(value, "jaxpr") else value)
    return found


def peak_bytes(program: Any) -> int:
    """Returns the most bytes of intermediate results that are alive at one time, if the program runs line by line.

    It is an upper bound on the memory that XLA needs in addition to the arguments, since XLA fuses operations.
    """
    last = {}
    for place, equation in enumerate(program.eqns):
        for variable in equation.invars:
            if isinstance(variable, Var):
                last[variable] = place
    for variable in program.outvars:
        if isinstance(variable, Var):
            last[variable] = len(program.eqns)
    sizes: dict[Any, int] = {}
    peak = 0
    for place, equation in enumerate(program.eqns):
        for variable in equation.outvars:
            sizes[variable] = _size(variable.aval)
        inside = max((peak_bytes(part) for part in _programs(equation)), default=0)
        peak = max(peak, sum(sizes.values()) + max(inside - sum(_size(v.aval) for v in equation.outvars), 0))
        for variable in itertools.chain(equation.invars, equation.outvars):
            if isinstance(variable, Var) and variable in sizes and (variable not in last or last[variable] <= place):
                del sizes[variable]
    return peak


def _by_prefix(entries: Iterable[tuple[tuple[str, ...], int]], skip: int = 0) -> dict[tuple[str, ...], int]:
    """Returns {path: sum of the entries at or under it}, without the first `skip` names of each path."""
    sums: dict[tuple[str, ...], int] = defaultdict(int)
    for path, value in entries:
        for end in range(len(path) - skip + 1):
            sums[path[skip : skip + end]] += value
    return sums


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _size(aval: Any) -> int:
    return aval.size * aval.dtype.itemsize if hasattr(aval, "size") and hasattr(aval.dtype, "itemsize") else 0


def _bytes(tree: Any) -> int:
    return sum(_size(leaf) for leaf in jax.tree.leaves(tree))
