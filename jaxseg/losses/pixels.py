"""Parts that all losses share: checked arguments, one-hot truth, valid pixels, probabilities, and the division."""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.arguments import Where
from jaxseg.errors import ArgumentError
from jaxseg.types import Array, ignore_label

SumWeight: TypeAlias = tuple[jax.Array, jax.Array]
ClassWeights: TypeAlias = Annotated[
    Sequence[float] | Array | None, Where(lambda weights: True, instead="one number for each class")
]
ClassShifts: TypeAlias = Annotated[
    tuple[float, ...] | None, Where(lambda shifts: True, instead="one number for each class, or None")
]


def probabilities(logits: Array, one_vs_rest: bool = False) -> jax.Array:
    """Softmax over classes, or the sigmoid of a single logit, f32[...,k] -> f32[...,k].

    With `one_vs_rest` each class has the sigmoid of its logit, and the sum over classes may differ from 1: what the
    logits mean of a network that was trained with one sigmoid a class (`Loss.one_vs_rest`).

    Logits come from a linear layer: a ReLU before the softmax, as in some textbooks, would stop the gradient of every
    class below 0. dp_c/dz_j = p_c (δ_cj - p_j), off the diagonal too.
    """
    logits = jnp.asarray(logits, jnp.float32)
    return jax.nn.sigmoid(logits) if one_vs_rest or logits.shape[-1] == 1 else jax.nn.softmax(logits)


def label_maps(logits: Array, one_vs_rest: bool = False) -> jax.Array:
    """f32[b,h,w,k] -> f32[b,h,w,c], the probabilities of the c = max(k, 2) classes.

    With `one_vs_rest` they are one sigmoid for each class, as `probabilities` says.
    """
    p = probabilities(logits, one_vs_rest)
    return jnp.concatenate([1.0 - p, p], axis=-1) if p.shape[-1] == 1 else p


def divide(sum_: jax.Array, weight: jax.Array) -> jax.Array:
    """sum / weight, and 0 with a zero gradient where the weight is 0: a batch with only IGNORE pixels has no effect.

    The gradient of the mean has the factor 1 / weight, which textbooks often leave out: (p - t) / n for cross-entropy.
    """
    empty = weight == 0
    return jnp.where(empty, 0.0, sum_ / jnp.where(empty, 1.0, weight))


def check(logits: Array, labels: Array) -> tuple[jax.Array, int]:
    """Returns float32 logits and the number of classes that labels may have."""
    if logits.ndim < 1 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"Labels need the shape of the logits without the class axis, got {labels.shape} for logits {logits.shape}."
        )
    check_integers(labels)
    return jnp.asarray(logits, jnp.float32), max(logits.shape[-1], 2)


def check_integers(labels: Array) -> None:
    """Raises ValueError if the labels are not integers."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"Labels must be integers, got {labels.dtype}.")


def one_hot(labels: Array, classes: int) -> jax.Array:
    """bool[..., classes]; computed by a comparison, since XLA's gather and its scatter gradient are slow."""
    return jnp.asarray(labels, jnp.int32)[..., None] == jnp.arange(classes).reshape((1,) * labels.ndim + (classes,))


def scored(truth: jax.Array, k: int) -> jax.Array:
    """The one-hot truth of the classes that have a probability: all, or the foreground for k = 1."""
    return jnp.asarray(truth[..., 1:] if k == 1 else truth, jnp.float32)


def foreground(values: jax.Array, include_background: bool) -> jax.Array:
    """The classes that count, [...,k] -> [...,k] or [...,k-1] without class 0."""
    if include_background:
        return values
    if values.shape[-1] == 1:
        raise ValueError("include_background=False needs more than one class: with k = 1 there is no background logit.")
    return values[..., 1:]


def valid(labels: Array, classes: int) -> jax.Array:
    """1 for a pixel that counts, 0 for IGNORE, NaN for a label outside the classes."""
    labels = jnp.asarray(labels, jnp.int32)
    inside = (labels >= 0) & (labels < classes)
    return jnp.where(labels == ignore_label(classes), 0.0, jnp.where(inside, 1.0, jnp.nan))


def weights_of_classes(weights: ClassWeights, classes: int) -> jax.Array | None:
    if weights is None:
        return None
    values = jnp.asarray(weights, jnp.float32)
    if values.shape != (classes,):
        raise ValueError(f"class_weights must be {classes} numbers, one per class, got shape {values.shape}.")
    return values


def shifts_of(shift: Sequence[float], classes: int) -> jax.Array:
    """Returns the shifts as f32[classes]; raises ValueError for another number of them."""
    values = jnp.asarray(shift, jnp.float32)
    if values.shape != (classes,):
        raise ValueError(f"logit_shift must be {classes} numbers, one per class, got shape {values.shape}.")
    return values


def shifted(logits: jax.Array, shift: Sequence[float] | None, classes: int) -> jax.Array:
    """Adds a number to the logit of each class, f32[...,k] -> f32[...,k]; a single logit is that of class 1 over 0."""
    if shift is None:
        return logits
    values = shifts_of(shift, classes)
    return logits + (values[1] - values[0] if logits.shape[-1] == 1 else expand(values, logits))


def checked_shifts(shift: Sequence[float] | Array, classes: int) -> tuple[float, ...]:
    """Returns the shifts of the logits as numbers; raises ArgumentError for another number of them or infinite ones."""
    values = np.asarray(shift, np.float64)
    if values.shape != (classes,) or not np.isfinite(values).all():
        raise ArgumentError(
            f"logit_shift must be {classes} finite numbers, one per class, got shape {values.shape}: {values.tolist()}."
        )
    return tuple(values.tolist())


def checked_weights(weights: Sequence[float] | Array, classes: int, name: str = "class_weights") -> tuple[float, ...]:
    """Returns class weights as numbers.

    Raises:
        ArgumentError: if their number differs from that of the classes, any is negative or not finite, or all are 0.
    """
    values = np.asarray(weights, np.float64)
    if values.shape != (classes,):
        raise ArgumentError(f"{name} must be {classes} numbers, one per class, got shape {values.shape}.")
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ArgumentError(f"{name} must be at least 0, finite and not all 0, got {values.tolist()}.")
    return tuple(values.tolist())


def expand(vector: jax.Array, like: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def sum_pixels(
    pixel: jax.Array,
    labels: Array,
    classes: int,
    truth: jax.Array,
    weights: jax.Array | None,
    averaged_weight: bool = False,
) -> SumWeight:
    """Sums a loss per pixel; `averaged_weight` means that the loss already includes the class weights."""
    counts = valid(labels, classes)
    if weights is None:
        return jnp.sum(counts * pixel), jnp.sum(counts)
    weight = counts * jnp.sum(jnp.where(truth, expand(weights, truth), 0.0), axis=-1)
    return jnp.sum((counts if averaged_weight else weight) * pixel), jnp.sum(weight)
