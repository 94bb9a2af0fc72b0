"""Folds batch norms into the convolutions before them, for inference.

At inference a batch norm is x ↦ m x + s, with constants m and s for each channel. After a convolution with the kernel K
the two are one convolution with the kernel m K, and s is its bias.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.ad_checkpoint import checkpoint_name

from jaxseg.nn.conv import Conv, ConvTranspose
from jaxseg.nn.norm import BatchNorm
from jaxseg.types import PyTree

Path: TypeAlias = tuple[str, ...]


class Pair(NamedTuple):
    """A convolution whose output is read by nothing but one batch norm.

    Attributes:
        conv, norm: their paths in the parameters.
        epsilon: what the batch norm adds to the variance.
    """

    conv: Path
    norm: Path
    epsilon: float


def find_pairs(apply: Callable[..., Any], *args: Any) -> tuple[Pair, ...]:
    """Returns the batch norms of a network that can be folded. It traces the network and computes nothing.

    A layer that is called several times or in a loop, such as one with shared weights, is in no pair.

    Args:
        apply: the forward pass in inference, such as `lambda variables, image: model.apply(variables, image)`.
        args: its arguments: arrays, or their shapes as `jax.ShapeDtypeStruct`. The pairs hold for images of any size.
    """
    paths: dict[str, Path] = {}
    epsilons: dict[Path, float] = {}

    def named(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, Conv | ConvTranspose | BatchNorm):
            name = f"{type(layer).__name__} {layer.path}"
            paths[name] = layer.path
            if not isinstance(layer, BatchNorm):
                return checkpoint_name(call(*args, **kwargs), name)
            epsilons[layer.path] = layer.epsilon
            args = (checkpoint_name(args[0], name), *args[1:])
        return call(*args, **kwargs)

    def forward(*args: Any) -> Any:
        with nn.intercept_methods(named):
            return apply(*args)

    calls: Counter[str] = Counter()
    found: list[tuple[str, str]] = []
    for jaxpr, times in _with_inner(jax.make_jaxpr(forward)(*args).jaxpr):
        readers = Counter(map(id, jaxpr.outvars))
        makers: dict[int, str] = {}
        for equation in jaxpr.eqns:
            readers.update(map(id, equation.invars))
        for equation in jaxpr.eqns:
            name = equation.params["name"] if equation.primitive.name == "name" else None
            if name not in paths:
                continue
            calls[name] += times
            source = id(equation.invars[0])
            if paths[name] not in epsilons:
                makers[id(equation.outvars[0])] = name
            elif source in makers and readers[source] == 1:
                found.append((makers[source], name))
    once = [(paths[conv], paths[norm]) for conv, norm in found if calls[conv] == calls[norm] == 1]
    return tuple(Pair(conv, norm, epsilons[norm]) for conv, norm in once)


def fold(variables: PyTree, pairs: Sequence[Pair]) -> PyTree:
    """Returns the variables with which `folded(apply, pairs)` computes what `apply` computes with `variables`.

    The kernels (and biases) of the convolutions are multiplied by m, and the biases of the batch norms become s. This
    is computed in NumPy: compiling a program for it would take longer.
    """
    params = _by_path(variables["params"])
    stats = _by_path(variables["batch_stats"]) if pairs else {}
    for conv, norm, epsilon in pairs:
        mean, var, scale, bias = (
            np.asarray(values[*norm, name])
            for values, name in ((stats, "mean"), (stats, "var"), (params, "scale"), (params, "bias"))
        )
        multiplier = scale / np.sqrt(var + np.float32(epsilon))
        params[*norm, "bias"] = bias - mean * multiplier
        for name in ("kernel", "bias"):
            if (*conv, name) in params:
                params[*conv, name] = np.asarray(params[*conv, name]) * multiplier  # the last axis: the features
    return {**variables, "params": unflatten_dict(params)}


def folded(apply: Callable[..., Any], pairs: Sequence[Pair]) -> Callable[..., Any]:
    """Returns `apply` for the variables of `fold`: the batch norms of `pairs` add their bias and do nothing else."""
    norms = {pair.norm for pair in pairs}

    @functools.wraps(apply)
    def applied(*args: Any, **kwargs: Any) -> Any:
        def shifted(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            layer = context.module
            if layer.path not in norms or context.method_name != "__call__" or not isinstance(layer, BatchNorm):
                return call(*args, **kwargs)
            x = args[0]
            y = x.astype(jnp.float32) + layer.get_variable("params", "bias").reshape((1,) * (x.ndim - 1) + (-1,))
            return y.astype(layer.dtype or x.dtype)

        with nn.intercept_methods(shifted):
            return apply(*args, **kwargs)

    return applied


def _by_path(tree: PyTree) -> dict[Path, Any]:
    return cast(dict[Path, Any], flatten_dict(tree))


def _with_inner(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Yields a jaxpr and all that its equations call, each with how often it runs: 2 stands for a loop."""
    yield jaxpr, times
    for equation in jaxpr.eqns:
        inside = 2 if equation.primitive.name in ("scan", "while") else times
        for value in equation.params.values():
            for each in value if isinstance(value, tuple | list) else (value,):
                inner = each.jaxpr if hasattr(each, "jaxpr") else each
                if hasattr(inner, "eqns"):
                    yield from _with_inner(inner, inside)
