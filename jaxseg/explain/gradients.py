"""Attributions to the pixels of the image by gradients: saliency, SmoothGrad and integrated gradients.

All explain the score Σ target · logits of one normalised image f32[1,h,w,c]; `target` f32[h,w,k] is the weight of each
logit, such as 1 at the pixels of an object in the channel of its class. Batch norm has its running statistics.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.types import Key, PyTree


def score(model: nn.Module, variables: PyTree, image: jax.Array, target: jax.Array) -> jax.Array:
    """Returns Σ target · logits, f32[], of an image f32[1,h,w,c]."""
    logits, _ = model.apply(variables, image, train=False)
    return jnp.sum(target[None] * logits.astype(jnp.float32))


def saliency(model: nn.Module, variables: PyTree, image: jax.Array, target: jax.Array) -> jax.Array:
    """Returns f32[h,w], the largest absolute gradient of the score over the channels of each pixel.

    Simonyan et al. 2014, "Deep Inside Convolutional Networks", section 3.1.
    """
    return jnp.max(jnp.abs(jax.grad(score, argnums=2)(model, variables, image, target)), axis=-1)[0]


def smooth_grad(
    model: nn.Module,
    variables: PyTree,
    image: jax.Array,
    target: jax.Array,
    key: Key,
    samples: int = 25,
    noise: float = 0.15,
) -> jax.Array:
    """Returns f32[h,w], the saliency of the mean gradient over noisy copies of the image (Smilkov et al. 2017, eq. 2).

    Args:
        model, variables, image, target: see the module.
        key: of the noise.
        samples: number of copies.
        noise: standard deviation of the Gaussian noise, as a share of the range of the image's values (their Fig. 3
            finds .1 to .2 best).
    """
    deviation = noise * (jnp.max(image) - jnp.min(image))

    def add(total: jax.Array, key: Key) -> tuple[jax.Array, None]:
        noisy = image + deviation * jax.random.normal(key, image.shape, image.dtype)
        return total + jax.grad(score, argnums=2)(model, variables, noisy, target), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(image), jax.random.split(key, samples))
    return jnp.max(jnp.abs(total / samples), axis=-1)[0]


class Integrated(NamedTuple):
    """What `integrated_gradients` returns.

    Attributes:
        attributions: f32[h,w,c], what each value of the image adds to the score.
        score: f32[], that of the image.
        baseline_score: f32[], that of the baseline.
    """

    attributions: jax.Array
    score: jax.Array
    baseline_score: jax.Array


def integrated_gradients(
    model: nn.Module,
    variables: PyTree,
    image: jax.Array,
    target: jax.Array,
    baseline: jax.Array | float = 0.0,
    steps: int = 64,
) -> Integrated:
    """Attributes the score to the values of the image along a straight line (Sundararajan et al. 2017, eqs. 1 and 3).

    attributions = (image - baseline) · mean of the gradients at steps points of the line, in the middle of equal parts.
    They sum to score - baseline_score up to the error of this sum (completeness, their proposition 1).

    Args:
        model, variables, image, target: see the module.
        baseline: f32[1,h,w,c] or a number in normalised units; 0 is the mean colour of the training data.
        steps: points on the line; each costs one gradient.
    """
    start = jnp.broadcast_to(jnp.asarray(baseline, image.dtype), image.shape)

    def add(total: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
        point = start + share * (image - start)
        return total + jax.grad(score, argnums=2)(model, variables, point, target), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(image), (jnp.arange(steps, dtype=jnp.float32) + 0.5) / steps)
    ends = (score(model, variables, each, target) for each in (image, start))
    return Integrated(((image - start) * total / steps)[0], *ends)
