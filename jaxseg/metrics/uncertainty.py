"""How sure several predictions of one image are: of an ensemble, with dropout, or of the image seen in several ways.

Each member gives probabilities f[...,k] for each pixel. What adds over members is kept (`member_sums`), so that any
number of them needs the memory of one; `uncertainty` turns the sums into maps.

The entropy H[p] of a pixel is that of its classes, in nats. With one sigmoid for each class (`one_vs_rest`) it is the
sum of the entropies of the k yes-or-no questions; a binary network (k = 1) has two classes with p and 1 - p.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.types import Array


class Uncertainty(NamedTuple):
    """Maps f32[...] of a pixel's uncertainty over m members, with mean probabilities p̄; larger is less sure.

    Attributes:
        mean: f32[...,k], p̄, the prediction of all members together.
        entropy: H[p̄], the predictive entropy: all of the uncertainty.
        expected_entropy: the mean over members of H[p], what the image itself leaves open (aleatoric).
        mutual_information: H[p̄] - mean H[p], how much the members disagree (epistemic; BALD): Houlsby et al., Bayesian
            Active Learning for Classification and Preference Learning, 2011, eq. 2.
        variation_ratio: 1 - (votes of the class with the most votes) / m: Gal, Uncertainty in Deep Learning, 2016,
            section 3.3.1.
        variance: Σ_k of the variance of p_k over members, with the divisor m; a binary network has two equal terms.
    """

    mean: Array
    entropy: Array
    expected_entropy: Array
    mutual_information: Array
    variation_ratio: Array
    variance: Array

    @property
    def confidence(self) -> jax.Array:
        """f32[...]: the mean probability of the most probable class."""
        binary = self.mean.shape[-1] == 1
        return jnp.max(_both(self.mean) if binary else self.mean, axis=-1)


SCORES = ("entropy", "expected_entropy", "mutual_information", "variation_ratio", "variance")
"""The names of the maps of `Uncertainty`."""


def entropy(probabilities: Array, *, one_vs_rest: bool = False) -> jax.Array:
    """The entropy of each pixel in nats, f[...,k] -> f32[...]; see the head of this module.

    Args:
        probabilities: those of the classes; k = 1 is the probability of class 1.
        one_vs_rest: the classes are yes-or-no questions of their own.
    """
    p = jnp.asarray(probabilities, jnp.float32)
    if one_vs_rest or p.shape[-1] == 1:
        p = jnp.stack([p, 1.0 - p], axis=-1)
        return jnp.sum(_surprise(p), axis=(-2, -1))
    return jnp.sum(_surprise(p), axis=-1)


def most_entropy(classes: int, *, one_vs_rest: bool = False) -> float:
    """The entropy in nats of a pixel of which nothing is known, for a network with `classes` channels."""
    return classes * math.log(2.0) if one_vs_rest or classes == 1 else math.log(classes)


def _surprise(p: jax.Array) -> jax.Array:
    return -jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0)


def _both(p: Array) -> jax.Array:
    return jnp.concatenate([1.0 - p, p], axis=-1)


def member_sums(probabilities: Array, *, one_vs_rest: bool = False) -> dict[str, jax.Array]:
    """What adds over members, f[...,k] of one member; `uncertainty` takes the sums over all members.

    Returns:
        mean and square f32[...,k], the sums of p and p²; entropy f32[...]; votes f32[...,k], or of both classes for
        k = 1; members f32[].
    """
    p = jnp.asarray(probabilities, jnp.float32)
    choices = _both(p) if p.shape[-1] == 1 else p
    # A binary network at exactly .5 predicts class 0, as everywhere.
    return {
        "mean": p,
        "square": p * p,
        "entropy": entropy(p, one_vs_rest=one_vs_rest),
        "votes": jax.nn.one_hot(jnp.argmax(choices, axis=-1), choices.shape[-1], dtype=jnp.float32),
        "members": jnp.float32(1.0),
    }


def uncertainty(sums: Mapping[str, Array], *, one_vs_rest: bool = False) -> Uncertainty:
    """Turns summed `member_sums` into the maps of `Uncertainty`."""
    m = sums["members"]
    mean, expected = jnp.asarray(sums["mean"]) / m, jnp.asarray(sums["entropy"]) / m
    total = entropy(mean, one_vs_rest=one_vs_rest)
    spread = jnp.maximum(jnp.asarray(sums["square"]) / m - mean * mean, 0.0).sum(-1)
    return Uncertainty(
        mean=mean,
        entropy=total,
        expected_entropy=expected,
        mutual_information=jnp.maximum(total - expected, 0.0),  # it is not below 0 but for rounding
        variation_ratio=1.0 - jnp.max(sums["votes"], axis=-1) / m,
        variance=2.0 * spread if mean.shape[-1] == 1 else spread,
    )


def uncertainty_of(members: Array, *, one_vs_rest: bool = False) -> Uncertainty:
    """The maps of the probabilities of all members together, f[m,...,k].

    Raises:
        ValueError: if there is no member.
    """
    members = jnp.asarray(members)
    if members.ndim < 2 or not members.shape[0]:
        raise ValueError(f"The uncertainty needs probabilities [m,...,k] of at least one member, got {members.shape}.")
    sums = jax.vmap(lambda p: member_sums(p, one_vs_rest=one_vs_rest))(members)
    return uncertainty(jax.tree.map(lambda x: x.sum(0), sums), one_vs_rest=one_vs_rest)
