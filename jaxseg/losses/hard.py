"""Cross-entropies that use only the hardest pixels of an image, or only the hardest classes of a pixel."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from jaxseg.arguments import BelowOne, Count, Share
from jaxseg.losses.class_sample import ClassSample
from jaxseg.losses.pixels import (
    ClassShifts,
    ClassWeights,
    SumWeight,
    check,
    expand,
    one_hot,
    shifted,
    shifts_of,
    sum_pixels,
    valid,
    weights_of_classes,
)
from jaxseg.losses.terms import cross_entropy
from jaxseg.types import Array, ignore_label


def ohem(
    logits: Array,
    labels: Array,
    *,
    thresh: Share = 0.7,
    min_kept: Share = 0.2,
    class_weights: ClassWeights = None,
    label_smoothing: BelowOne = 0.0,
    logit_shift: ClassShifts = None,
) -> SumWeight:
    """Cross-entropy of the hard pixels, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    Online hard example mining (Shrivastava et al., 2016) as segmentation uses it: a pixel counts if the probability of
    its true class is below `thresh`, or among the `min_kept` smallest of the valid pixels of its image. mmsegmentation
    gives the minimum as a number of pixels over the batch, by default 100,000 per image, a fifth of 1024 x 512. Here it
    is a share of each image, which fits every image size; each image is treated separately, so the sums add over any
    parts of a batch. With `thresh=0` only the share decides: the top-k loss of nnU-Net. Pixels with the same
    probability as the last one kept are kept too.

    Args:
        logits: f32[b,h,w,k], or f32[b,...,k].
        labels: integers i[b,h,w], 0..k-1 (0..1 for k = 1) or IGNORE.
        thresh: in [0, 1].
        min_kept: share of an image's valid pixels, in [0, 1]; at least one pixel is kept.
        class_weights: f32[k] (f32[2] for k = 1), by default all 1.
        label_smoothing: in [0, 1).
        logit_shift: as in `cross_entropy`; the probabilities that decide which pixels are hard have it too.

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits, classes = check(logits, labels)
    logits = shifted(logits, logit_shift, classes)
    z = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits
    truth = one_hot(labels, classes)
    p = jnp.sum(jnp.where(truth, jax.nn.softmax(jax.lax.stop_gradient(z)), 0.0), axis=-1)
    flat, inside = p.reshape(p.shape[0], -1), (valid(labels, classes) == 1.0).reshape(p.shape[0], -1)
    ordered = jnp.sort(jnp.where(inside, flat, jnp.inf), axis=-1)
    # The subtraction corrects products that round to just above a whole number of pixels: .2 of 10 is 2, not 3.
    kept = jnp.ceil(min_kept * jnp.sum(inside, axis=-1) - 1e-4).astype(jnp.int32)
    last = jnp.take_along_axis(ordered, jnp.clip(kept - 1, 0, flat.shape[1] - 1)[:, None], axis=-1)
    hard = ((flat < thresh) | (flat <= last)).reshape(p.shape)
    # A label outside the classes has p = 0, so it is hard and makes the loss NaN.
    return cross_entropy(
        logits,
        jnp.where(hard, labels, ignore_label(classes)),
        class_weights=class_weights,
        label_smoothing=label_smoothing,
    )


SAMPLES = 20
"""The default of `samples` in `sampled_cross_entropy`."""


def sampled_cross_entropy(
    logits: Array,
    labels: Array,
    chosen: ClassSample | None = None,
    *,
    samples: Count = SAMPLES,
    sampling: Literal["hardest", "uniform"] = "hardest",
    class_weights: ClassWeights = None,
    logit_shift: ClassShifts = None,
) -> SumWeight:
    """Softmax cross-entropy over a few of many classes, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    A pixel adds -w_y log(exp z_y / (exp z_y + Σ_{c in S} exp z_c)) to the sum and w_y to the weight, where S is the set
    of the `samples` wrong classes with the largest logits (and of any class whose logit equals the smallest of these).
    S holds the hardest classes instead of random ones, so the loss is a pure function of logits and labels. It is a
    lower bound of `cross_entropy`: equal to it for samples >= k-1, and close to it where a few classes have most of the
    probability. Classes outside S get no gradient. For one sigmoid per class use `binary_cross_entropy`.

    This is for training on the classes that a pixel is confused with, not for saving time: the network computes all k
    logits, from which the hardest are found in `samples` passes, so that it takes longer than `cross_entropy`. Besides
    the logits and their gradient it needs less memory (at 128x128 pixels and 150 classes 6 MB beside 20).

    For many classes, sampling="uniform" saves memory and time: one set C of `samples` classes for the whole batch holds
    the true classes of its pixels and others at random (`sample_classes`), and the network computes the logits of C
    alone. With `chosen`, which the training step draws, `logits` are those of C, and a pixel adds

        -w_y log(exp z_y / Σ_{c in C} exp(z_c - log π_c))

    where π_c is the probability that c is in C, 1 for the true classes. The sum over C has the expectation Σ_c exp z_c.
    The expected loss is therefore at most `cross_entropy`, close to it for many samples, and equal to it for samples >=
    k. If a batch has more than `samples` true classes, pixels whose class is not in C have no effect on the step.
    Without `chosen`, as in evaluation, the logits are those of all classes and the loss is `cross_entropy`.

    Args:
        logits: f32[b,h,w,k], or any leading shape; k > 1. With `chosen`: f32[b,h,w,s].
        labels: integers of the leading shape, 0..k-1 or IGNORE.
        chosen: the classes that the logits belong to, for sampling="uniform".
        samples: "hardest": wrong classes per pixel, at least 1. "uniform": the classes of C, at least 2.
        sampling: "hardest" or "uniform".
        class_weights: f32[k], by default all 1.
        logit_shift: f32[k], as in `cross_entropy`.

    Raises:
        ValueError: if the shapes disagree, labels are not integers, or there are no classes to sample from.
    """
    if sampling == "uniform":
        if chosen is None:
            return cross_entropy(logits, labels, class_weights=class_weights, logit_shift=logit_shift)
        k = chosen.place.shape[0]
        weights = weights_of_classes(class_weights, k)
        shift = chosen.shift if logit_shift is None else chosen.shift + shifts_of(logit_shift, k)[chosen.classes]
        return cross_entropy(
            jnp.asarray(logits, jnp.float32) + expand(shift, jnp.asarray(logits)),
            chosen.local_labels(labels),
            class_weights=None if weights is None else weights[chosen.classes],
        )
    logits, classes = check(logits, labels)
    if logits.shape[-1] == 1:
        raise ValueError("sampled_cross_entropy chooses among several classes; with k = 1 use cross_entropy.")
    logits = shifted(logits, logit_shift, classes)
    inside = jnp.clip(jnp.asarray(labels, jnp.int32), 0, classes - 1)  # the weights of pixels take care of the others
    pixel: jax.Array = _sampled_cross_entropy(logits, inside, min(samples, classes - 1))
    truth = one_hot(labels, classes)
    return sum_pixels(pixel, labels, classes, truth, weights_of_classes(class_weights, classes))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _sampled_cross_entropy(logits: jax.Array, labels: jax.Array, samples: int) -> jax.Array:
    """log(exp z_y + Σ_{c in S} exp z_c) - z_y, f32[...,k] and i32[...] in 0..k-1 -> f32[...], with |S| >= samples.

    The gradient is one pass over the logits, written out: automatic differentiation would keep several arrays of all k.
    """
    value, _ = _sampled_forward(logits, labels, samples)
    return value


def _sampled_forward(logits: jax.Array, labels: jax.Array, samples: int) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    # S is found from its largest logit down, one pass for each: that keeps no copy of the logits, and a batch that is
    # split over devices stays split, which it does not where XLA searches for the largest of an array (`top_k`).
    truth = one_hot(labels, logits.shape[-1])
    right = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    first = jnp.max(jnp.where(truth, -jnp.inf, logits), axis=-1)
    most = jnp.maximum(first, right)

    def add_next(_: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        last, count, total = carry
        smaller = jnp.max(jnp.where(truth | (logits >= last[..., None]), -jnp.inf, logits), axis=-1)
        equal = jnp.sum(~truth & (logits == smaller[..., None]), axis=-1)
        more = count < samples
        total = total + jnp.where(more, equal * jnp.exp(smaller - most), 0.0)
        return jnp.where(more, smaller, last), jnp.where(more, count + equal, count), total

    start = jnp.full_like(right, jnp.inf), jnp.zeros(right.shape, jnp.int32), jnp.exp(right - most)
    last, _, total = jax.lax.fori_loop(0, samples, add_next, start)
    log_sum = most + jnp.log(total)
    return log_sum - right, (logits, labels, right, last, log_sum)


def _sampled_backward(samples: int, kept: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, None]:
    """cotangent · (softmax over S and y - onehot(y))."""
    del samples
    logits, labels, right, last, log_sum = kept
    share = cotangent[..., None] * jnp.exp(logits - log_sum[..., None])
    wrong = jnp.where(logits >= last[..., None], share, 0.0)
    true = cotangent * jnp.expm1(right - log_sum)
    return jnp.where(one_hot(labels, logits.shape[-1]), true[..., None], wrong), None


_sampled_cross_entropy.defvjp(_sampled_forward, _sampled_backward)
