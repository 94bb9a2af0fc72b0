"""The detail loss of STDC-Seg (Fan et al. 2021, "Rethinking BiSeNet For Real-time Semantic Segmentation", section 3.2).

What is a detail follows from the labels: a pixel at which their Laplacian is positive, taken at three resolutions
(Fig. 5, detail aggregation). Binary cross-entropy and Dice, which does not depend on how few such pixels there are,
train a head of the network to find them (equations 2 and 3).
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxseg.arguments import NotNegative, Where
from jaxseg.losses.pixels import SumWeight, check, divide, valid
from jaxseg.types import Array, PyTree

_STRIDES = (1, 2, 4)
_SHARES = (0.6, 0.3, 0.1)
"""Weights of the three resolutions: the values at which the authors' code starts its 1x1 convolution, and at which it
stays, since no gradient passes the threshold."""

Shares = Annotated[
    tuple[float, ...], Where(lambda s: len(s) == 3 and min(s) >= 0, instead="three weights of at least 0")
]


def detail_stats(
    output: tuple[Array, Array],
    labels: Array,
    *,
    shares: Shares = _SHARES,
    threshold: NotNegative = 0.1,
) -> PyTree:
    """(logits f32[b,h,w,k], details f32[b,h,w,1]) and i32[b,h,w] -> the sums of `detail_from_stats`.

    A pixel is on an edge if its label is above the mean of its eight neighbours'. At strides 2 and 4 this is asked of
    each second or fourth pixel, and holds for 2x2 or 4x4 pixels. A pixel is a detail if the sum of the three, weighted
    by `shares`, is above `threshold`: with the default values, on an edge of stride 1 or 2. Neighbours outside the
    image or with IGNORE are left out, and pixels with IGNORE count in no sum. In the authors' code they have the labels
    0 and 255, so that the border of the image is an edge.

    Args:
        output: the class logits, and the logits z of being a detail.
        labels: i32[b,h,w], 0..k-1 (0..1 for k = 1) or IGNORE.
        shares: weights of the strides 1, 2 and 4.
        threshold: of their weighted sum.

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits, z = output
    _, classes = check(logits, labels)
    if z.shape != (*labels.shape, 1):
        raise ValueError(f"detail takes details [b,h,w,1] of the labels' size {labels.shape}, got {z.shape}.")
    z, counts = jnp.asarray(z, jnp.float32)[..., 0], valid(labels, classes)
    truth = details(jnp.asarray(labels, jnp.int32), counts == 1.0, shares, threshold)
    p, inside = jax.nn.sigmoid(z), counts.sum((1, 2))
    some = jnp.where(inside > 0, 1.0, inside)  # 0 and NaN are kept
    both, sizes = (counts * p * truth).sum((1, 2)), (counts * (p * p + truth)).sum((1, 2))
    return {
        "cross_entropy": jnp.sum(counts * (jax.nn.softplus(z) - truth * z)),
        "pixels": jnp.sum(counts),
        "dice": jnp.sum(some * (1.0 - (2.0 * both + 1.0) / (sizes + 1.0))),
        "images": jnp.sum(some),
    }


def detail_from_stats(stats: PyTree) -> SumWeight:
    """Summed stats -> (cross-entropy + Dice, 1) f32[]; (0, 0) if no pixel counts.

    The cross-entropy is the mean over pixels, Dice that over images: 1 - (2 Σ p g + 1) / (Σ p² + Σ g² + 1).
    """
    pixels = stats["pixels"]
    some = jnp.where(pixels > 0, 1.0, pixels)
    return some * (divide(stats["cross_entropy"], pixels) + divide(stats["dice"], stats["images"])), some


def details(
    labels: jax.Array, inside: jax.Array, shares: tuple[float, ...] = _SHARES, threshold: float = 0.1
) -> jax.Array:
    """i32[b,h,w], bool[b,h,w] -> f32[b,h,w], 1 for each pixel that is a detail. See `detail_stats`."""
    h, w = labels.shape[1:]
    around = ((0, 0), (1, 1), (1, 1))
    values, real = jnp.pad(labels, around), jnp.pad(inside, around)
    laplacian = jnp.zeros_like(labels)
    for i in range(3):
        for j in range(3):
            there = real[:, i : i + h, j : j + w]
            laplacian += jnp.where(there & inside, labels - values[:, i : i + h, j : j + w], 0)
    edge = (laplacian > 0).astype(jnp.float32)
    total = jnp.zeros_like(edge)
    for stride, share in zip(_STRIDES, shares):
        coarse = edge[:, ::stride, ::stride]
        total += share * jnp.repeat(jnp.repeat(coarse, stride, 1), stride, 2)[:, :h, :w]
    return (total > threshold).astype(jnp.float32)
