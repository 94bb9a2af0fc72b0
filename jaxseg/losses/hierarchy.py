"""Cross-entropy at every level of a tree of classes, so that a mistake within a group costs less than one outside."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.arguments import NotNegative, Where
from jaxseg.errors import counted
from jaxseg.losses.pixels import ClassWeights, SumWeight, check, one_hot, sum_pixels, weights_of_classes
from jaxseg.types import Array

Levels = Annotated[
    tuple[tuple[int, ...], ...],
    Where(lambda levels: True, instead="for each level the group of each class: ((0, 0, 1), (0, 1, 2))"),
]


def hierarchical_cross_entropy(
    logits: Array,
    labels: Array,
    *,
    levels: Levels = (),
    level_weights: tuple[NotNegative, ...] = (),
    class_weights: ClassWeights = None,
) -> SumWeight:
    """Softmax cross-entropy of the class and of its group at each level, f32[b,h,w,k] and i32[b,h,w] -> (sum, weight).

    The probability of a group is the sum of those of its classes. With g_l(c) the group of class c at level l, a pixel
    adds -w_y Σ_l v_l log Σ_{c: g_l(c) = g_l(y)} p_c to the sum, with Σ_l v_l = 1, and w_y to the weight. The last level
    is the classes themselves. Groups as sums of the probabilities of classes that exclude each other: Deng et al.,
    Large-Scale Object Classification Using Label Relation Graphs, 2014. Without levels it is `cross_entropy`.

    Args:
        logits: f32[b,h,w,k], or any leading shape; k > 1.
        labels: integers of the leading shape, 0..k-1 or IGNORE.
        levels: for each level above the classes, coarsest first, the group of each class; `loss.hierarchy` of a
            configuration gives them from a file.
        level_weights: v, one for each level and a last one for the classes, divided by their sum; (): all alike.
            Without levels they have no effect.
        class_weights: f32[k], by default all 1.

    Raises:
        ValueError: if the shapes disagree, labels are not integers, k is 1, or there are not as many groups as classes
            or weights as levels.
    """
    logits, classes = check(logits, labels)
    if logits.shape[-1] == 1:
        raise ValueError("hierarchical_cross_entropy groups several classes; with k = 1 use cross_entropy.")
    shares = level_shares(levels, level_weights, classes)
    truth = one_hot(labels, classes)
    log_p = jax.nn.log_softmax(logits)
    pixel = jnp.float32(0)
    for level, share in zip([*levels, tuple(range(classes))], shares):
        if share:
            pixel = pixel - np.float32(share) * _log_probability(log_p, labels, level)
    return sum_pixels(pixel, labels, classes, truth, weights_of_classes(class_weights, classes))


def level_shares(levels: Levels, level_weights: tuple[float, ...], classes: int) -> np.ndarray:
    """Returns the weights f64[levels + 1] of the levels and the classes, with the sum 1.

    Raises:
        ValueError: if there are not as many groups as classes, or weights as levels.
    """
    if not levels:
        return np.ones(1)
    for level in levels:
        if len(level) != classes:
            raise ValueError(
                f"A level of hierarchical_cross_entropy has {counted(len(level), 'group')}, where each of "
                f"{counted(classes, 'class')} needs one."
            )
    shares = np.array(level_weights or (1.0,) * (len(levels) + 1), np.float64)
    if len(shares) != len(levels) + 1 or not shares.any():
        raise ValueError(
            f"hierarchical_cross_entropy.level_weights needs {counted(len(levels) + 1, 'number')}, one for each level "
            f"and one for the classes, and not all 0; got {tuple(level_weights)}."
        )
    return shares / shares.sum()


def _log_probability(log_p: jax.Array, labels: Array, groups: tuple[int, ...]) -> jax.Array:
    """log of the probability of the true class's group, f32[...,k] and i32[...] -> f32[...]; any for a wrong label."""
    true = jnp.clip(jnp.asarray(labels, jnp.int32), 0, len(groups) - 1)
    group = np.asarray(groups, np.int32)
    members = jnp.take(jnp.asarray(group[:, None] == group[None]), true, axis=0)
    return jax.nn.logsumexp(log_p, axis=-1, where=members)
