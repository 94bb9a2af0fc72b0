"""The boundary losses of PIDNet (Xu, Xiong and Bhattacharyya 2023, "PIDNet", section 3.4, losses l1 and l3)."""

import jax
import jax.numpy as jnp

from jaxseg.arguments import Count, NotNegative, Share
from jaxseg.losses.pixels import SumWeight, check, divide, one_hot, valid
from jaxseg.losses.terms import cross_entropy
from jaxseg.types import Array, PyTree, ignore_label


def boundary_awareness_stats(
    boundary: tuple[Array, Array], labels: Array, *, width: Count = 2, threshold: Share = 0.8
) -> PyTree:
    """(logits f32[b,h,w,k], boundary f32[b,h,w,1]) and i32[b,h,w] -> the sums of `boundary_awareness_from_stats`.

    A pixel is on a boundary if a pixel of another class lies in the square of `width` pixels around it. The paper's
    boundaries are edges of a picture of the labels, thickened.

    Args:
        boundary: the class logits, and the logits z of being on a boundary.
        labels: i32[b,h,w], 0..k-1 (0..1 for k = 1) or IGNORE, which counts in no sum and makes no boundary.
        width: in pixels.
        threshold: the t of the paper: pixels with σ(z) > t are those whose classes are trained once more.

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits, z = boundary
    logits, classes = check(logits, labels)
    if z.shape != (*labels.shape, 1):
        raise ValueError(
            f"boundary_awareness takes boundaries [b,h,w,1] of the labels' size {labels.shape}, got {z.shape}."
        )
    z, counts = jnp.asarray(z, jnp.float32)[..., 0], valid(labels, classes)
    edge = _near_another_class(one_hot(labels, classes), counts == 1.0, width)
    near = jax.nn.sigmoid(jax.lax.stop_gradient(z)) > threshold
    total, weight = cross_entropy(logits, jnp.where(near, labels, ignore_label(classes)))
    return {
        "on": jnp.sum(jnp.where(edge, counts * jax.nn.softplus(-z), 0.0)),
        "off": jnp.sum(jnp.where(edge, 0.0, counts * jax.nn.softplus(z))),
        "on_pixels": jnp.sum(jnp.where(edge, counts, 0.0)),
        "pixels": jnp.sum(counts),
        "classes": total,
        "class_pixels": weight,
    }


def boundary_awareness_from_stats(stats: PyTree, *, boundary_weight: NotNegative = 20.0) -> SumWeight:
    """Summed stats -> (boundary_weight l1 + l3, 1) f32[]; (0, 0) if no pixel counts.

    l1 is the cross-entropy of the boundaries in which boundaries and other pixels have the same weight, as in the
    authors' code: those on a boundary weigh as the share of those off it, and the reverse. l3 is the mean cross-entropy
    of the classes over the pixels that the network holds to be near a boundary; 0 if there is none.
    """
    pixels = stats["pixels"]
    share = divide(stats["on_pixels"], pixels)
    l1 = divide((1.0 - share) * stats["on"] + share * stats["off"], pixels)
    l3 = divide(stats["classes"], stats["class_pixels"])
    some = jnp.where(pixels > 0, 1.0, pixels)  # 0 and NaN are kept
    return some * (boundary_weight * l1 + l3), some


def _near_another_class(truth: jax.Array, inside: jax.Array, width: int) -> jax.Array:
    """bool[b,h,w,k], bool[b,h,w] -> bool[b,h,w]: whether a pixel of another class is within `width` pixels."""
    side = 2 * width + 1
    seen = jax.lax.reduce_window(
        (truth & inside[..., None]).astype(jnp.float32),
        0.0,
        jax.lax.max,
        (1, side, side, 1),
        (1, 1, 1, 1),
        [(0, 0), (width, width), (width, width), (0, 0)],
    )
    return inside & (jnp.sum(seen, axis=-1) > 1.5)
