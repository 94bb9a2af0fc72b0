"""The effective receptive field: how much each pixel of the image changes the logits of one pixel (Luo et al. 2016).

"Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", section 3 and 4.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.types import Array, Key, PyTree

_SMALL = 1 - 0.9545  # of the largest value: what lies beyond two standard deviations (Luo 2016, section 4)


def effective_field(model: nn.Module, variables: PyTree, images: jax.Array, pixel: Array, key: Key) -> jax.Array:
    """Returns f32[h,w], the mean over images of the absolute gradient of one pixel's logits, summed over channels.

    The logits of the classes are added with random normal weights, new ones for each image: a plain sum can cancel,
    since the softmax does not change with it.

    Args:
        model: a network; batch norm has its running statistics.
        variables: its variables.
        images: f32[n,h,w,c], normalised; Luo et al. draw them from a normal distribution.
        pixel: i32[2], (row, column).
        key: of the weights.
    """

    def magnitude(image: jax.Array, key: Key) -> jax.Array:
        def scalar(image: jax.Array) -> jax.Array:
            logits = model.apply(variables, image[None], train=False)[0][0, pixel[0], pixel[1]].astype(jnp.float32)
            return jnp.sum(logits * jax.random.normal(key, logits.shape))

        return jnp.sum(jnp.abs(jax.grad(scalar)(image)), axis=-1)

    def add(total: jax.Array, one: tuple[jax.Array, Key]) -> tuple[jax.Array, None]:
        return total + magnitude(*one), None

    keys = jax.random.split(key, len(images))
    total, _ = jax.lax.scan(add, jnp.zeros(images.shape[1:3], jnp.float32), (images, keys))
    return total / len(images)


def effective_size(field: np.ndarray) -> float:
    """Returns the side, in pixels, of a square with as many pixels as have at least 4.55 % of the largest value."""
    return float(np.sqrt(np.sum(field >= _SMALL * field.max()))) if field.max() > 0 else 0.0
