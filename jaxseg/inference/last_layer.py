"""The last layer of a network, and the loss of its pixels, of which the gradient in that layer needs no deeper pass."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxseg.types import PyTree


def last_layer(model: nn.Module, variables: PyTree, image: Any) -> str:
    """Returns the path, joined by "/", of the layer whose parameters are used last on the way to the logits.

    It traces the network and computes nothing.

    Args:
        model: a network.
        variables: its variables, or their shapes.
        image: f32[b,h,w,c], or its shape.
    """

    def forward(params: PyTree, variables: PyTree, image: Any) -> jax.Array:
        return model.apply({**variables, "params": params}, image, train=False)[0]

    jaxpr = jax.make_jaxpr(forward)(variables["params"], variables, image).jaxpr
    # A dictionary is flattened in the order of its names, at each level.
    paths = sorted(tuple(path.split("/")) for path in flatten_dict(variables["params"], sep="/"))
    names = {id(variable): "/".join(path[:-1]) for variable, path in zip(jaxpr.invars, paths)}
    used = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(out) in used for out in equation.outvars):
            found = [names[id(variable)] for variable in equation.invars if id(variable) in names]
            if found:
                return found[-1]
            used.update(id(variable) for variable in equation.invars)
    raise ValueError("no parameter leads to the logits")


def pixel_losses(logits: jax.Array, target: jax.Array, one_vs_rest: bool) -> jax.Array:
    """Logits f32[y,x,k] and classes i32[y,x] -> the loss f32[y,x] of each pixel."""
    if logits.shape[-1] == 1:
        return jax.nn.softplus(jnp.where(target == 1, -1.0, 1.0) * logits[..., 0])
    if one_vs_rest:
        hot = jax.nn.one_hot(target, logits.shape[-1])
        return jax.nn.softplus(jnp.where(hot == 1, -1.0, 1.0) * logits).sum(-1)
    return jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, target[..., None], -1)[..., 0]
