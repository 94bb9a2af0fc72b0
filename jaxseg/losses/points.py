"""The loss of single points of an image (Kirillov et al. 2020, "PointRend: Image Segmentation as Rendering", 3.2)."""

import jax.numpy as jnp

from jaxseg.arguments import BelowOne
from jaxseg.losses.pixels import ClassShifts, ClassWeights, SumWeight, check_integers
from jaxseg.losses.terms import cross_entropy
from jaxseg.nn.ops.points import labels_at
from jaxseg.types import Array


def point_cross_entropy(
    output: tuple[Array, Array],
    labels: Array,
    *,
    class_weights: ClassWeights = None,
    label_smoothing: BelowOne = 0.0,
    logit_shift: ClassShifts = None,
) -> SumWeight:
    """(logits f32[b,n,k], points f32[b,n,2]) and i32[b,h,w] -> (sum f32[], weight f32[]).

    `cross_entropy` of the logits of n points of each image, (x, y) in [0, 1], with the label of the pixel in which each
    point lies. A point on an IGNORE pixel counts in neither.

    Args:
        output: the logits and the points.
        labels: i32[b,h,w], 0..k-1 (0..1 for k = 1) or IGNORE.
        class_weights, label_smoothing, logit_shift: as of `cross_entropy`.

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits, points = output
    check_integers(labels)
    if points.shape != (*logits.shape[:2], 2) or labels.ndim != 3 or len(labels) != len(points):
        raise ValueError(
            "point_cross_entropy takes logits [b,n,k], points [b,n,2] and labels [b,h,w], got shapes "
            f"{logits.shape}, {points.shape} and {labels.shape}."
        )
    options = {"class_weights": class_weights, "label_smoothing": label_smoothing, "logit_shift": logit_shift}
    return cross_entropy(logits, labels_at(jnp.asarray(labels), jnp.asarray(points)), **options)
