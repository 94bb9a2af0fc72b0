"""Cross-entropies that use only the hardest pixels of an image, or only the hardest classes of a pixel."""

import jax
import jax.numpy as jnp

from jaxseg.arguments import BelowOne, Count, Share
from jaxseg.losses.pixels import ClassWeights, SumWeight, check, one_hot, sum_pixels, valid, weights_of_classes
from jaxseg.losses.terms import cross_entropy
from jaxseg.types import IGNORE, Array


def ohem(
    logits: Array,
    labels: Array,
    *,
    thresh: Share = 0.7,
    min_kept: Share = 0.2,
    class_weights: ClassWeights = None,
    label_smoothing: BelowOne = 0.0,
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

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits, classes = check(logits, labels)
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
        logits, jnp.where(hard, labels, IGNORE), class_weights=class_weights, label_smoothing=label_smoothing
    )


def sampled_cross_entropy(
    logits: Array, labels: Array, *, samples: Count = 20, class_weights: ClassWeights = None
) -> SumWeight:
    """Softmax cross-entropy over a few of many classes, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    A pixel adds -w_y log(exp z_y / (exp z_y + Σ_{c in S} exp z_c)) to the sum and w_y to the weight, where S is the set
    of the `samples` wrong classes with the largest logits (and of any class whose logit equals the smallest of these).
    S holds the hardest classes instead of random ones, so the loss is a pure function of logits and labels. It is a
    lower bound of `cross_entropy`: equal to it for samples >= k-1, and close to it where a few classes have most of the
    probability. Classes outside S get no gradient. For one sigmoid per class use `binary_cross_entropy`.

    Args:
        logits: f32[b,h,w,k], or any leading shape; k > 1.
        labels: integers of the leading shape, 0..k-1 or IGNORE.
        samples: wrong classes per pixel, at least 1.
        class_weights: f32[k], by default all 1.

    Raises:
        ValueError: if the shapes disagree, labels are not integers, or there are no classes to sample from.
    """
    logits, classes = check(logits, labels)
    if logits.shape[-1] == 1:
        raise ValueError("sampled_cross_entropy chooses among several classes; with k = 1 use cross_entropy.")
    truth = one_hot(labels, classes)
    wrong = jnp.where(truth, -jnp.inf, jax.lax.stop_gradient(logits))
    last = jax.lax.top_k(wrong, min(samples, classes - 1))[0][..., -1:]
    among = truth | (wrong >= last)
    right = jnp.sum(jnp.where(truth, logits, 0.0), axis=-1)
    pixel = jax.nn.logsumexp(jnp.where(among, logits, -jnp.inf), axis=-1) - right
    return sum_pixels(pixel, labels, classes, truth, weights_of_classes(class_weights, classes))
