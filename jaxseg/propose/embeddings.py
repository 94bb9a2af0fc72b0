"""One row of numbers for each image, by which images are compared: pooled features, and the gradient of the last layer.

For a linear layer with features f under a softmax cross-entropy, the gradient of the mean loss is the mean over pixels
of the outer product of (f, 1) with p - y, where y is the one-hot vector of the predicted class: it is long where the
network is unsure, and points where the features do.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxseg.explain.stages import split_at
from jaxseg.inference.last_layer import pixel_losses
from jaxseg.metrics import predict_classes
from jaxseg.types import PyTree

LONGEST = 1024
"""The numbers of a row: longer ones are sketched, so that a row takes 4 KiB whatever the network."""


@functools.partial(jax.jit, static_argnums=(0, 1))
def pooled_features(model: Any, layer: str, variables: PyTree, images: jax.Array) -> jax.Array:
    """Images f32[b,y,x,c] -> f32[b,d], the means over pixels of the activations of a layer.

    Args:
        model: a network.
        layer: a name of `explain.stages.layer_shapes`, such as its `default_layer`.
        variables: those of the network.
        images: its input.
    """
    activations, _ = split_at(model, variables, images, layer)
    return jax.vmap(sketch)(activations.astype(jnp.float32).mean((1, 2)))


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def gradients(
    model: Any, layer: str, variables: PyTree, images: jax.Array, weights: jax.Array, one_vs_rest: bool
) -> jax.Array:
    """Images f32[b,y,x,c] -> f32[b,d], the gradient of each image's cross-entropy with the predicted classes as labels.

    Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds, 2020, eq. 1, with the mean over
    pixels as the loss.

    Args:
        model: a network, which gives logits of the size of its input.
        layer: the layer of the gradient, from `inference.last_layer`.
        variables: those of the network.
        images: its input.
        weights: f32[b,y,x], the weight of each pixel, such as 1 / (number of pixels).
        one_vs_rest: whether each class has a sigmoid, see `jaxseg.losses.Loss`.
    """
    flat = flatten_dict(variables["params"], sep="/")
    chosen = {path: value for path, value in flat.items() if path.rpartition("/")[0] == layer}

    def loss(own: dict[str, jax.Array], image: jax.Array, weight: jax.Array) -> jax.Array:
        params = unflatten_dict({**flat, **own}, sep="/")
        logits = model.apply({**variables, "params": params}, image[None], train=False)[0][0].astype(jnp.float32)
        target = jax.lax.stop_gradient(predict_classes(logits))
        return jnp.sum(weight * pixel_losses(logits, target, one_vs_rest))

    def row(image: jax.Array, weight: jax.Array) -> jax.Array:
        found = jax.grad(loss)(chosen, image, weight)
        return sketch(jnp.concatenate([found[name].astype(jnp.float32).ravel() for name in sorted(found)]))

    return jax.vmap(row)(images, weights)


def sketch(row: jax.Array, longest: int = LONGEST) -> jax.Array:
    """f32[d] -> f32[min(d, longest)]: each number, with a random sign, is added to a random place.

    Distances and inner products stay the same in the mean over the draws of signs and places, which are fixed here:
    Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009, lemma 2.
    """
    if len(row) <= longest:
        return row
    rng = np.random.default_rng(0)
    signs = rng.choice(np.array([-1.0, 1.0], np.float32), len(row))
    places = rng.integers(0, longest, len(row))
    return jnp.zeros(longest, jnp.float32).at[places].add(signs * row)
