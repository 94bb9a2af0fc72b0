"""Points of images: values there, the least certain ones, and new values for them (Kirillov et al. 2020, "PointRend").

A point is (x, y) in units of the image, [0, 1] from its left and top border; the centre of pixel (row, column) of an
image of h x w pixels is ((column + .5) / w, (row + .5) / h). All functions treat each image by itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.by_device import by_device
from jaxseg.nn.ops.deformable import deformable_attention


def sample_points(x: jax.Array, points: jax.Array) -> jax.Array:
    """Returns the bilinear samples f[b,n,c] of f[b,h,w,c] at points f[b,n,2].

    They are those of torch's `grid_sample` without aligned corners: around the image there are zeros, so that a sample
    within half a pixel of the border is smaller than its pixel.
    """

    def sample(x: jax.Array, points: jax.Array) -> jax.Array:
        weights = jnp.ones((*points.shape[:2], 1, 1, 1), jnp.float32)
        return deformable_attention((x[:, :, :, None],), points[:, :, None, None, None], weights)[:, :, 0]

    return by_device(sample, x, points, axes=(0, 0))


def labels_at(labels: jax.Array, points: jax.Array) -> jax.Array:
    """Returns the label i32[b,n] of the pixel of i[b,h,w] in which each of the points f[b,n,2] lies."""
    h, w = labels.shape[1:]

    def look(labels: jax.Array, points: jax.Array) -> jax.Array:
        size = jnp.array([w, h], jnp.float32).reshape(1, 1, 2)
        place = jnp.clip(jnp.floor(points.astype(jnp.float32) * size).astype(jnp.int32), 0, jnp.array([[[w, h]]]) - 1)
        return jnp.take_along_axis(labels.reshape(-1, h * w), place[..., 1] * w + place[..., 0], axis=1)

    return by_device(look, labels.astype(jnp.int32), points, axes=(0, 0))


def uncertainty(logits: jax.Array) -> jax.Array:
    """Returns the second largest logit minus the largest, f32[...,k] -> f32[...]; of one logit z, -|z|.

    The measure of Kirillov 2020 for semantic segmentation, of logits as in the authors' code.
    """
    if logits.shape[-1] == 1:
        return -jnp.abs(logits[..., 0])
    best = jnp.argmax(logits, axis=-1)
    others = jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,)) != best[..., None]
    return jnp.max(jnp.where(others, logits, -jnp.inf), axis=-1) - jnp.max(logits, axis=-1)


def choose_points(logits: jax.Array, drawn: jax.Array, count: int, uncertain: int) -> jax.Array:
    """Returns the points f32[b,count,2] at which a step trains (section 3.2), without a gradient.

    Args:
        logits: the coarse prediction f32[b,y,x,k].
        drawn: uniform points f32[b,m,2]: the last count - uncertain are taken as they are, the others are candidates.
        count: n of the paper.
        uncertain: how many are the most uncertain of the candidates, at most their number.
    """

    def choose(logits: jax.Array, drawn: jax.Array) -> jax.Array:
        candidates, others = jnp.split(drawn, [drawn.shape[1] - (count - uncertain)], axis=1)
        _, index = lax.top_k(uncertainty(sample_points(logits, candidates)), uncertain)
        return jnp.concatenate([jnp.take_along_axis(candidates, index[..., None], axis=1), others], axis=1)

    return by_device(choose, lax.stop_gradient(logits), drawn, axes=(0, 0))


def least_certain(logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns the `count` least certain pixels of f32[b,h,w,k]: their numbers row · w + column i32[b,count], the least
    certain first, and their centres f32[b,count,2]."""
    h, w = logits.shape[1:3]

    def find(logits: jax.Array) -> jax.Array:
        return lax.top_k(uncertainty(logits).reshape(-1, h * w), count)[1]

    index = by_device(find, logits, axes=(0,))
    row, column = index // w, index % w
    return index, jnp.stack([(column + 0.5) / w, (row + 0.5) / h], axis=-1)


def put_points(x: jax.Array, index: jax.Array, values: jax.Array) -> jax.Array:
    """Returns f[b,h,w,k] with the values f[b,n,k] at the n pixels of the numbers i32[b,n], all different."""

    def put(x: jax.Array, index: jax.Array, values: jax.Array) -> jax.Array:
        b, h, w, k = x.shape
        flat, first = x.reshape(b * h * w, k), jnp.arange(b).reshape(-1, 1) * (h * w)
        new = flat.at[(first + index).reshape(-1)].set(values.reshape(-1, k), unique_indices=True)
        return new.reshape(x.shape)

    return by_device(put, x, index, values, axes=(0, 0, 0))


def refine(
    logits: jax.Array, count: int, predict: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """One step of subdivision (section 3.1): f32[b,h,w,k] -> the same with new logits for its least certain pixels.

    Args:
        logits: enlarged to the size of this step.
        count: number of pixels, at most h · w are taken.
        predict: points f32[b,n,2] -> their logits f32[b,n,k].

    Returns:
        The new logits, and (the logits of the points, the points).
    """
    index, points = least_certain(logits, min(count, logits.shape[1] * logits.shape[2]))
    found = predict(points)
    return put_points(logits, index, found), (found, points)
