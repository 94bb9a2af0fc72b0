"""Boundary losses: signed distance maps (Kervadec) and a soft boundary F1 (Bokhovkin)."""

from functools import reduce

import jax
import jax.numpy as jnp

from jaxseg.arguments import Count
from jaxseg.losses.pixels import SumWeight, check, foreground, one_hot, probabilities, scored, valid
from jaxseg.types import Array


def boundary(logits: Array, labels: Array, *, max_distance: Count = 32, include_background: bool = True) -> SumWeight:
    """Boundary loss, f32[b,h,w,k] and i32[b,h,w] -> (Σ_pixels Σ_c φ_c p_c f32[], pixels · classes f32[]).

    φ_c is the signed distance map of class c in its image, in pixels. Outside the class it is the distance to the
    nearest pixel of the class; inside it is 1 minus the distance to the nearest valid pixel of another class, so that
    the class's outermost pixels have 0: Kervadec et al., Boundary loss for highly unbalanced segmentation, 2019, with
    these pixels treated as in the authors' code. A class that is absent from an image, or covers all of it, has no
    boundary there and a map of 0. The value is negative where the prediction is right, and is not meaningful on its
    own: add it to a loss of regions, as the paper does.

    The maps are computed on the device, exactly up to `max_distance`; larger distances are set to `max_distance`. The
    cost grows with it: 2 max_distance + 1 passes over f32[b,h,w,k].

    Args:
        logits: f32[b,h,w,k].
        labels: integers i[b,h,w], 0..k-1 (0..1 for k = 1) or IGNORE.
        max_distance: upper limit of the distances, in pixels.
        include_background: False leaves class 0 out, for k > 1.

    Raises:
        ValueError: if the shapes disagree, labels are not integers, or `include_background` is False for k = 1.
    """
    logits, classes = _images(logits, labels)
    counts = valid(labels, classes)[..., None]
    inside = counts == 1.0
    truth = scored(one_hot(labels, classes), logits.shape[-1]) == 1.0
    p = probabilities(logits)
    truth, p = foreground(truth, include_background), foreground(p, include_background)
    other = inside & ~truth
    bounded = jnp.any(truth, axis=(1, 2), keepdims=True) & jnp.any(other, axis=(1, 2), keepdims=True)
    distance = jnp.where(truth, 1.0 - distance_to(other, max_distance), distance_to(truth, max_distance))
    signed = jnp.where(bounded, distance, 0.0)
    return jnp.sum(counts * signed * p), jnp.sum(counts) * p.shape[-1]


def distance_to(mask: jax.Array, most: int) -> jax.Array:
    """Euclidean distance of every pixel to the nearest True pixel, at most `most`: bool[b,h,w,c] -> f32[b,h,w,c].

    The distances are exact: the squared distance is minimised first along the columns, by two running minima, and then
    along the rows, over all offsets up to `most`.
    """
    far = jnp.float32(most)
    h, w = mask.shape[1:3]
    row = jnp.arange(h, dtype=jnp.float32).reshape(1, h, 1, 1)
    above = row - jax.lax.cummax(jnp.where(mask, row, -2.0 * (far + h)), axis=1)
    below = jax.lax.cummin(jnp.where(mask, row, 2.0 * (far + h)), axis=1, reverse=True) - row
    column = jnp.square(jnp.minimum(jnp.minimum(above, below), far))
    reach = min(most, w - 1)
    padded = jnp.pad(column, ((0, 0), (0, 0), (reach, reach), (0, 0)), constant_values=jnp.square(far))

    def nearer(i: jax.Array, best: jax.Array) -> jax.Array:
        there = jax.lax.dynamic_slice_in_dim(padded, i, w, axis=2)
        return jnp.minimum(best, there + jnp.square(jnp.asarray(i - reach, jnp.float32)))

    return jnp.minimum(jnp.sqrt(jax.lax.fori_loop(0, 2 * reach + 1, nearer, column)), far)


def boundary_f1(
    logits: Array, labels: Array, *, width: Count = 1, tolerance: Count = 2, include_background: bool = True
) -> SumWeight:
    """Soft boundary F1 loss, f32[b,h,w,k] and i32[b,h,w] -> (Σ 1 - F1 f32[], number of (image, class) pairs f32[]).

    F1 = 2 P R / (P + R) in each image and class, with boundaries b = max-pool(1 - m) - (1 - m) of the true and the
    predicted map m, precision P = Σ b_p B_y / Σ b_p and recall R = Σ b_y B_p / Σ b_y, B = max-pool(b): Bokhovkin and
    Burnaev, Boundary Loss for Remote Sensing Imagery Semantic Segmentation, 2019. A class without a true boundary in an
    image adds to neither sum nor number. IGNORE pixels do not count as neighbours and make no boundary.

    Args:
        logits: f32[b,h,w,k].
        labels: integers i[b,h,w], 0..k-1 (0..1 for k = 1) or IGNORE.
        width: of the boundary in pixels; the paper's θ0 = 3 is 2 width + 1.
        tolerance: distance within which boundaries match, in pixels; the paper's θ = 5 is 2 tolerance + 1.
        include_background: False leaves class 0 out, for k > 1.

    Raises:
        ValueError: if the shapes disagree, labels are not integers, or `include_background` is False for k = 1.
    """
    logits, classes = _images(logits, labels)
    counts = valid(labels, classes)[..., None]
    k = logits.shape[-1]
    truth = foreground(scored(one_hot(labels, classes), k), include_background)
    p = foreground(probabilities(logits), include_background)
    inside = counts == 1.0

    def edges(m: jax.Array) -> jax.Array:
        outside = 1.0 - m
        pooled = _dilate(jnp.where(inside, outside, 0.0), width)
        return jnp.where(inside, jnp.maximum(pooled, outside) - outside, 0.0)

    def total(x: jax.Array) -> jax.Array:
        return jnp.sum(x, axis=(1, 2))

    of_truth, of_p = edges(truth), edges(p)
    precision = _ratio(total(of_p * _dilate(of_truth, tolerance)), total(of_p))
    recall = _ratio(total(of_truth * _dilate(of_p, tolerance)), total(of_truth))
    f1 = _ratio(2.0 * precision * recall, precision + recall)
    present = total(of_truth) > 0
    loud = 0.0 * jnp.sum(counts)  # NaN if a label is outside the classes
    return jnp.sum(jnp.where(present, 1.0 - f1, 0.0)) + loud, jnp.sum(present.astype(jnp.float32)) + loud


def _dilate(x: jax.Array, reach: int) -> jax.Array:
    """Largest value within `reach` rows and columns, f32[b,h,w,c] -> f32[b,h,w,c]; values are at least 0.

    Computed by shifts along one axis and then the other: the gradient of a window maximum is many times slower.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        padded = jnp.pad(x, [(reach, reach) if i == axis else (0, 0) for i in range(4)])
        x = reduce(jnp.maximum, (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * reach + 1)))
    return x


def _images(logits: Array, labels: Array) -> tuple[jax.Array, int]:
    if labels.ndim != 3:
        raise ValueError(f"Losses of boundaries take labels [b,h,w], got shape {labels.shape}.")
    return check(logits, labels)


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """above / below, and 0 where `below` is 0."""
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1.0), 0.0)
