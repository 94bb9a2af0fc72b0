"""The set loss of mask classification (Cheng et al. 2021, MaskFormer, section 3.2; Cheng et al. 2022, Mask2Former).

The segments of an image are the classes in its label. Each segment is matched with one query by the Hungarian
algorithm, on the device; a matched query learns the segment's class and mask, every other query learns "no object".
Masks are compared at all cells of their grid (the papers' code samples 12,544 points): the target of a cell is the
share of each class in the area that it covers. IGNORE pixels belong to no class.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxseg.arguments import NotNegative
from jaxseg.losses.pixels import SumWeight, divide, one_hot, valid
from jaxseg.nn.ops.by_device import by_device
from jaxseg.nn.ops.product import along_axis
from jaxseg.types import Array

# Weights of the terms, in the loss and in the cost of a match (Mask2Former, section 4.1).
CLASS, MASK, DICE, NO_OBJECT = 2.0, 5.0, 5.0, 0.1


def mask_classification_stats(
    queries: tuple[Array, Array],
    labels: Array,
    *,
    class_weight: NotNegative = CLASS,
    mask_weight: NotNegative = MASK,
    dice_weight: NotNegative = DICE,
    no_object: NotNegative = NO_OBJECT,
) -> dict[str, jax.Array]:
    """Sums over the images of a batch that add over batches; see `mask_classification_from_stats`.

    Args:
        queries: of l predictions, class logits f32[l,b,q,k+1], the last for "no object", and mask logits
            f32[l,b,y,x,q]. Each prediction is matched and scored separately; their losses are added.
        labels: i32[b,h,w], 0..k-1 or IGNORE. An image with only IGNORE pixels is left out.
        class_weight, mask_weight, dice_weight: weights of the terms in the cost of a match.
        no_object: weight of "no object" in the class term.

    Returns:
        "class" f32[l,2], sum and weight over queries; "mask" and "dice", f32[l], sums over segments; "segments" f32[],
        the number of segments, NaN if a label is outside the classes.
    """
    classes, masks = (jnp.asarray(x, jnp.float32) for x in queries)
    if labels.ndim != 3 or masks.ndim != 5 or masks.shape[1] != labels.shape[0] or classes.ndim != 4:
        raise ValueError(
            f"mask_classification takes class logits [l,b,q,k+1], mask logits [l,b,y,x,q] and labels [b,h,w], got "
            f"{classes.shape}, {masks.shape} and {labels.shape}."
        )
    k = classes.shape[-1] - 1
    area = class_areas(labels, k, masks.shape[2:4])
    present = jnp.any(area > 0, axis=1)
    wrong = jnp.isnan(jnp.sum(valid(labels, k)))
    costs = {"class_weight": class_weight, "mask_weight": mask_weight, "dice_weight": dice_weight}

    def image(classes: jax.Array, masks: jax.Array, area: jax.Array, present: jax.Array) -> dict[str, jax.Array]:
        return _image_stats(classes, masks.reshape(-1, masks.shape[-1]), area, present, costs, no_object)

    each = jax.vmap(jax.vmap(image), in_axes=(0, 0, None, None))
    # The loops of the matching end when those of all images in them do: each device waits for its own images alone.
    of_images = by_device(each, classes, masks, area, present, axes=(1, 1, 0, 0), out=1)
    stats = {name: jnp.sum(value, axis=1) for name, value in of_images.items()}
    return stats | {"segments": jnp.where(wrong, jnp.nan, jnp.sum(present, dtype=jnp.float32))}


def mask_classification_from_stats(
    stats: Mapping[str, jax.Array],
    *,
    class_weight: NotNegative = CLASS,
    mask_weight: NotNegative = MASK,
    dice_weight: NotNegative = DICE,
) -> SumWeight:
    """The loss of summed stats, (f32[], 1): over predictions, the class term plus mask and Dice terms per segment."""
    class_term = jnp.sum(divide(stats["class"][:, 0], stats["class"][:, 1]))
    segments = jnp.broadcast_to(stats["segments"], stats["mask"].shape)
    masks = mask_weight * stats["mask"] + dice_weight * stats["dice"]
    return class_weight * class_term + jnp.sum(divide(masks, segments)), jnp.float32(1.0)


def class_areas(labels: Array, classes: int, size: Sequence[int]) -> jax.Array:
    """Labels i32[b,h,w] -> f32[b,y·x,k]: the share of each cell of a y by x grid that each class covers.

    IGNORE belongs to no class, so the shares of a cell may add to less than 1.
    """
    truth = one_hot(labels, classes).astype(jnp.float32)
    rows, columns = (_overlap(n, cells) for n, cells in zip(labels.shape[1:], size))
    area = along_axis(columns, along_axis(rows, truth, axis=1), axis=2)
    return area.reshape(labels.shape[0], -1, classes)


def _overlap(pixels: int, cells: int) -> np.ndarray:
    """The share of each cell that each pixel covers, of a line of equal cells and equal pixels: f32[cells,pixels]."""
    cell = np.arange(cells + 1) / cells
    pixel = np.arange(pixels + 1) / pixels
    shared = np.minimum(cell[1:, None], pixel[None, 1:]) - np.maximum(cell[:-1, None], pixel[None, :-1])
    shared = np.where(shared > 1e-9, shared, 0.0)
    return (shared * cells).astype(np.float32)


def _image_stats(
    classes: jax.Array,
    masks: jax.Array,
    area: jax.Array,
    present: jax.Array,
    costs: Mapping[str, float],
    no_object: float,
) -> dict[str, jax.Array]:
    """One prediction of one image: f32[q,k+1], f32[p,q], f32[p,k], bool[k] -> sums over queries and segments."""
    k = area.shape[-1]
    log_p = jax.nn.log_softmax(classes)
    cross, dice = _pairwise(masks, area)
    cost = -costs["class_weight"] * jnp.exp(log_p[:, :k]) + costs["mask_weight"] * cross + costs["dice_weight"] * dice
    matched = match(jax.lax.stop_gradient(cost), present)  # bool[q,k]
    target = jnp.concatenate([matched, ~matched.any(1, keepdims=True)], axis=1)
    weight = jnp.where(target[:, k], no_object, 1.0) * jnp.any(present)
    nll = -jnp.sum(jnp.where(target, log_p, 0.0), axis=1)
    return {
        "class": jnp.stack([jnp.sum(weight * nll), jnp.sum(weight)]),
        "mask": jnp.sum(jnp.where(matched, cross, 0.0)),
        "dice": jnp.sum(jnp.where(matched, dice, 0.0)),
    }


def _pairwise(masks: jax.Array, area: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy and Dice loss of each mask with each class, f32[p,q], f32[p,k] -> f32[q,k] twice.

    A pixel is weighted by its labelled share. Dice adds 1 to numerator and denominator, as the papers' code does.
    """
    valid = jnp.sum(area, axis=1)
    total = jnp.maximum(jnp.sum(valid), 1e-6)
    # Σ -y log σ(z) - (v-y) log(1-σ(z)) = Σ v softplus(z) - y z
    # A GPU multiplies float32 with 10 bits by default, and large sums are subtracted here.
    multiply = functools.partial(jnp.matmul, precision="highest")
    product = jnp.einsum("pq,pk->qk", masks, area, precision="highest")
    cross = (multiply(valid[None], jax.nn.softplus(masks)).reshape(-1, 1) - product) / total
    p = jax.nn.sigmoid(masks)
    both = jnp.einsum("pq,pk->qk", p, area, precision="highest")
    sizes = multiply(valid[None], p).reshape(-1, 1) + jnp.sum(area, axis=0).reshape(1, -1)
    return cross, 1.0 - (2.0 * both + 1.0) / (sizes + 1.0)


def match(cost: jax.Array, present: jax.Array) -> jax.Array:
    """The cheapest matching of present classes with queries, f32[q,k], bool[k] -> bool[q,k].

    Each present class gets one query, and a query at most one class; if there are fewer queries than present classes,
    each query gets one class. An absent class costs every query the same and therefore does not affect the matching.
    """
    q, k = cost.shape
    cost = jnp.nan_to_num(cost, nan=0.0, posinf=1e6, neginf=-1e6)
    # High enough that an absent class never takes the query of a present one.
    absent = 0.0 if q >= k else min(q, k) * (jnp.max(cost) - jnp.min(cost) + 1.0)
    rows, columns = optax.assignment.hungarian_algorithm(jnp.where(present.reshape(1, -1), cost, absent))
    pairs = jnp.zeros((q, k), bool).at[rows, columns].set(True)
    return pairs & present.reshape(1, -1)
