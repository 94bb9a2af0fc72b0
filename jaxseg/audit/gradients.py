"""The gradient of an image's loss with respect to the last layer: how far its labels would move the network.

For a linear layer with features f under a softmax cross-entropy, the gradient of one pixel is the outer product of
p - y, the probabilities minus the label's one-hot vector, with (f, 1). Its norm over the whole layer is therefore large
where the network is sure of another class; and since it is a sum over pixels before the norm is taken, pixels that err
in opposite directions, as along a border, cancel.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxseg.inference.last_layer import pixel_losses
from jaxseg.types import IGNORE, PyTree


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def gradient_norms(
    model: Any, layer: str, variables: PyTree, image: jax.Array, label: jax.Array, weights: jax.Array, one_vs_rest: bool
) -> jax.Array:
    """Returns f32[n], the norm of the gradient of n weighted sums of the cross-entropy with respect to one layer.

    Args:
        model: a network, which gives logits of the size of the image.
        layer: from `inference.last_layer`.
        variables: those of the network.
        image: f32[1,y,x,c], its input.
        label: u8[y,x]; ignored pixels have no loss.
        weights: f32[n,y,x], the weight of each pixel in each sum.
        one_vs_rest: whether each class has a sigmoid, see `jaxseg.losses.Loss`.
    """
    flat = flatten_dict(variables["params"], sep="/")
    chosen = {path: value for path, value in flat.items() if path.rpartition("/")[0] == layer}
    seen = label != IGNORE
    target = jnp.where(seen, label, 0).astype(jnp.int32)

    def loss(own: dict[str, jax.Array], weight: jax.Array) -> jax.Array:
        params = unflatten_dict({**flat, **own}, sep="/")
        logits = model.apply({**variables, "params": params}, image, train=False)[0][0].astype(jnp.float32)
        return jnp.sum(jnp.where(seen, weight, 0.0) * pixel_losses(logits, target, one_vs_rest))

    gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0))(chosen, weights)
    return jnp.sqrt(sum(jnp.sum(jnp.square(g).reshape(len(weights), -1), -1) for g in gradients.values()))
