"""How well a map names the pixels that a prediction needs: deletion and insertion curves (Petsiuk et al. 2018).

"RISE: Randomized Input Sampling for Explanation of Black-box Models", section 4.3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.losses import probabilities
from jaxseg.types import PyTree


class Curves(NamedTuple):
    """The mean probability of the class at the explained pixels while pixels of the image are replaced.

    Attributes:
        shares: f32[steps+1], how much of the image is replaced, from 0 to 1, the highest pixels of the map first.
        deletion: f32[steps+1], the probability when these pixels of the image become those of the baseline.
        insertion: f32[steps+1], the probability when these pixels of the blurred image become those of the image.
    """

    shares: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def deletion_area(self) -> float:
        """The area below the deletion curve, in [0, 1]; lower is better."""
        return float(np.trapezoid(self.deletion, self.shares))

    @property
    def insertion_area(self) -> float:
        """The area below the insertion curve, in [0, 1]; higher is better."""
        return float(np.trapezoid(self.insertion, self.shares))


def curves(
    model: nn.Module,
    variables: PyTree,
    image: jax.Array,
    pixels: jax.Array,
    class_index: int,
    ranking: jax.Array,
    baseline: jax.Array | float,
    blurred: jax.Array,
    steps: int = 32,
    one_vs_rest: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the arrays of `Curves`.

    Args:
        model: a network.
        variables: its variables.
        image: f32[1,h,w,c], normalised.
        pixels: f32[h,w], the weight of each pixel in the mean of the probability.
        class_index: the class; of a network with one logit, 1 or 0.
        ranking: f32[h,w], the map; its highest pixels go first, of equal ones the first in reading order.
        baseline: f32[1,h,w,c] or a number, what deletion leaves: 0 is the mean colour of the training data.
        blurred: f32[1,h,w,c], what insertion starts from. A constant image would have no edges, which the network
            might take for objects.
        steps: points of the curves after the first.
        one_vs_rest: whether each class has a sigmoid, see `jaxseg.losses.probabilities`.
    """
    order = jnp.argsort(-ranking.reshape(-1), stable=True)
    rank = jnp.zeros(order.shape, jnp.int32).at[order].set(jnp.arange(order.size)).reshape(1, *ranking.shape, 1)
    shares = jnp.linspace(0.0, 1.0, steps + 1)
    base = jnp.broadcast_to(jnp.asarray(baseline, image.dtype), image.shape)

    def probability(seen: jax.Array) -> jax.Array:
        logits = model.apply(variables, seen, train=False)[0][0]
        share = probabilities(logits, one_vs_rest)
        binary = share.shape[-1] == 1
        chosen = share[..., 0] if binary else share[..., class_index]
        return jnp.sum(pixels * (1 - chosen if binary and class_index == 0 else chosen)) / jnp.sum(pixels)

    def both(share: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = rank < jnp.round(share * order.size)
        return probability(jnp.where(first, base, image)), probability(jnp.where(first, image, blurred))

    deletion, insertion = jax.lax.map(both, shares)
    return shares, deletion, insertion
