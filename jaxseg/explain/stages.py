"""Splits the program of a network at one of its layers, without a change to the network.

A network is traced once, with what all its modules return. In the program the activations of a layer are one variable;
the equations after it are the rest of the network, a function of these activations. Every path from the layer to the
logits is in it, through skips and deeper stages too, and the gradient of the rest needs no backward pass through what
lies before the layer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend.core as core
from flax import linen as nn

from jaxseg.errors import ArgumentError, nearest
from jaxseg.types import PyTree


class _Program(NamedTuple):
    """The traced network: its closed jaxpr, the variable of the logits, and the variable of each layer."""

    closed: Any
    logits: Any
    layers: dict[str, Any]


def layer_shapes(model: nn.Module, variables: PyTree, image: Any) -> dict[str, tuple[int, ...]]:
    """Returns {layer: (height, width, channels)} of all maps that lead to the logits, in the order of the network.

    These are the stages of the network's `out`, such as "encoder/stage2", and what its modules return, such as
    "encoder/stage2/conv1". It computes nothing.

    Args:
        model: a network.
        variables: its variables, or their shapes.
        image: f32[b,h,w,c], or its shape as `jax.ShapeDtypeStruct`.
    """
    program = _trace(model, variables, image)
    return {name: tuple(variable.aval.shape[1:]) for name, variable in program.layers.items()}


def default_layer(shapes: dict[str, tuple[int, ...]]) -> str:
    """Returns the layer that Seg-Grad-CAM looks at by default: the coarsest stage of the encoder, the last of equals.

    Vinogradova et al. (2020, section 2) find the bottleneck of a U-Net the most informative. A network without stages
    of an encoder has the coarsest layer of all.
    """
    stages = [name for name in shapes if name.startswith("encoder/stage") and name.count("/") == 1] or list(shapes)
    return min(reversed(stages), key=lambda name: shapes[name][0] * shapes[name][1])


def split_at(
    model: nn.Module, variables: PyTree, image: jax.Array, layer: str
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Returns the activations f[b,y,x,c] of a layer and `rest`, with rest(activations) = the logits f32[b,h,w,k].

    Args:
        model: a network.
        variables: its variables.
        image: f32[b,h,w,c].
        layer: a name of `layer_shapes`.

    Raises:
        ArgumentError: for an unknown layer, with the nearest right one.
    """
    program = _trace(model, variables, image)
    require_layer(layer, program.layers)
    jaxpr, target = program.closed.jaxpr, program.layers[layer]
    place = next(i for i, e in enumerate(jaxpr.eqns) if any(out is target for out in e.outvars))
    before, after = jaxpr.eqns[: place + 1], jaxpr.eqns[place + 1 :]
    made = {id(out) for equation in before for out in equation.outvars}
    read = {id(v): v for equation in after for v in equation.invars if id(v) in made and v is not target}
    others = list(read.values())
    first = jaxpr.replace(eqns=before, outvars=[target, *others])
    second = jaxpr.replace(eqns=after, invars=[target, *others, *jaxpr.invars], outvars=[program.logits])
    given = jax.tree.leaves((variables, image))
    activations, *values = core.jaxpr_as_fun(core.ClosedJaxpr(first, program.closed.consts))(*given)
    resumed = core.jaxpr_as_fun(core.ClosedJaxpr(second, program.closed.consts))

    def rest(activations: jax.Array) -> jax.Array:
        return resumed(activations, *values, *given)[0]

    return activations, rest


def require_layer(layer: str, known: Any) -> None:
    """Raises ArgumentError unless `layer` is one of `known`; the message names the nearest, or the stages."""
    if layer not in known:
        stages = [name for name in known if name.count("/") <= 1]
        near = nearest(layer, known, listing=False) or nearest(layer, stages)
        raise ArgumentError(f"The network has no layer {layer!r} that leads to its logits.{near}")


def _trace(model: nn.Module, variables: PyTree, image: Any) -> _Program:
    def forward(variables: PyTree, image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        (logits, out), state = model.apply(
            variables, image, train=False, capture_intermediates=True, mutable=["intermediates"]
        )
        inside = state["intermediates"] if "intermediates" in state else {}
        # What Linen keeps of a module is a tuple with the result of each call.
        layers = {**_named(inside, 1), **_named(out, 0)}
        return logits, {name: x for name, x in layers.items() if _is_map(x.shape, image.shape)}

    closed, (_, layers) = jax.make_jaxpr(forward, return_shape=True)(variables, image)
    logits, *outputs = closed.jaxpr.outvars
    used: set[int] = {id(logits)}
    places: dict[int, int] = {}
    for place, equation in reversed(list(enumerate(closed.jaxpr.eqns))):
        if any(id(out) in used for out in equation.outvars):
            used.update(map(id, equation.invars))
            places.update({id(out): place for out in equation.outvars})
    found = dict(zip(sorted(layers), outputs))  # a dictionary is flattened in the order of its names
    leading = {name: v for name, v in found.items() if name and id(v) in used and id(v) in places and v is not logits}
    return _Program(closed, logits, dict(sorted(leading.items(), key=lambda item: places[id(item[1])])))


def _named(tree: Any, tuples: int) -> dict[str, jax.Array]:
    """Returns the arrays of a tree by the names on the way to them, of those in `tuples` tuples; the last of equals."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [str(part.key) for part in path if isinstance(part, jax.tree_util.DictKey)]
        if sum(isinstance(part, jax.tree_util.SequenceKey) for part in path) == tuples:
            found["/".join(name for name in names if name != "__call__")] = leaf
    return found


def _is_map(shape: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Returns whether an array f[b,y,x,c] has a place for each part of the image: nearly equal strides both ways."""
    if len(shape) != 4 or shape[0] != image[0] or 0 in shape or shape[1] * shape[2] < min(2, image[1] * image[2]):
        return False
    down, across = image[1] / shape[1], image[2] / shape[2]
    return max(down, across) < 2 * min(down, across)
