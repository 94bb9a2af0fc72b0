"""Lovász losses: the convex extension of 1 - IoU in the errors of the pixels."""

import jax
import jax.numpy as jnp

from jaxseg.losses.pixels import SumWeight, check, one_hot, probabilities, valid
from jaxseg.types import Array


def lovasz(logits: Array, labels: Array) -> SumWeight:
    """Lovász-softmax of each image, f32[b,h,w,k] and i32[b,h,w] -> (sum over images f32[], number of images f32[]).

    The loss of an image is the mean, over the classes present in it, of the Lovász extension of 1 - IoU_c at the errors
    |y_c - p_c|. For k = 1 it is the Lovász hinge, at the errors 1 - z (2y - 1) above 0: Berman et al., The
    Lovász-Softmax loss, 2018, with the gradient of its algorithm 1. An image with only IGNORE pixels adds to neither
    sum nor number.

    The pixels of each image are sorted separately. The form that sorts the pixels of the whole batch together is not a
    sum over parts of the batch: its value and gradient would change with the number of devices and micro-batches.

    Args:
        logits: f32[b,h,w,k], or f32[b,...,k].
        labels: integers i[b,h,w], 0..k-1 (0..1 for k = 1) or IGNORE.

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits, classes = check(logits, labels)
    b, k = labels.shape[0], logits.shape[-1]
    counts = valid(labels, classes).reshape(b, 1, -1)
    truth = jnp.swapaxes(one_hot(labels, classes).reshape(b, -1, classes), 1, 2)
    if k == 1:
        truth = truth[:, 1:]
        errors = 1.0 - logits.reshape(b, 1, -1) * jnp.where(truth, 1.0, -1.0)
    else:
        p = jnp.swapaxes(probabilities(logits).reshape(b, -1, k), 1, 2)
        errors = jnp.where(truth, 1.0 - p, p)
    weights = jax.lax.stop_gradient(_slopes(errors, truth, counts))
    of_class = jnp.sum(weights * jax.nn.relu(errors), axis=-1)  # f32[b,k]
    pixels = jnp.sum(counts, axis=(1, 2))
    present = jnp.any(truth & (counts == 1.0), axis=-1) if k > 1 else jnp.ones((b, 1), bool)
    present = present | jnp.isnan(pixels)[:, None]
    image = jnp.sum(jnp.where(present, of_class, 0.0), axis=-1) / jnp.maximum(jnp.sum(present, axis=-1), 1)
    return jnp.sum(jnp.where(pixels == 0, 0.0, image)), jnp.sum(jnp.where(pixels == 0, 0.0, 1.0))


def _slopes(errors: jax.Array, truth: jax.Array, counts: jax.Array) -> jax.Array:
    """Derivative of the extension by the error of each pixel f32[b,k,n]: the decrease of the IoU when it is added.

    The pixels are sorted by decreasing error, with IGNORE pixels last, and the results are sorted back: a sort is much
    faster than a scatter. NaN in `counts` makes all slopes of the image NaN.
    """
    shape, axis = errors.shape, len(errors.shape) - 1
    inside = jnp.broadcast_to(counts == 1.0, shape)
    place = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    code = jnp.where(inside, jnp.where(truth, 2, 1), 0)
    key = jnp.where(inside, -errors, jnp.inf)
    _, code, order = jax.lax.sort((key, code, place), dimension=axis, num_keys=1)
    hit, miss = (code == 2).astype(jnp.float32), (code == 1).astype(jnp.float32)
    total = jnp.sum(hit, axis=-1, keepdims=True)
    union = total + jnp.cumsum(miss, axis=-1)
    loss = 1.0 - (total - jnp.cumsum(hit, axis=-1)) / jnp.maximum(union, 1.0)
    before = jnp.concatenate([jnp.zeros_like(loss[..., :1]), loss[..., :-1]], axis=-1)
    slopes = jnp.where(code > 0, loss - before, 0.0)
    _, slopes = jax.lax.sort((order, slopes), dimension=axis, num_keys=1)
    return slopes + 0.0 * jnp.sum(counts, axis=-1, keepdims=True)
