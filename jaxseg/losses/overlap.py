"""Losses that compare whole sets of pixels, class by class: Dice, Jaccard, Tversky, generalised Dice.

All four are ratios of three sums per class c: the intersection I = Σ p_c y_c, the predicted P = Σ p_c (Σ p_c² if
`squared`) and the true T = Σ y_c. `overlap_stats` returns the sums, which add over pixels, examples, devices and
micro-batches; a `*_from_stats` function computes the ratio of the totals. With `per_image` the ratio is computed for
each image, and the resulting (sum, weight) is added over images; an image with only IGNORE pixels adds to neither.

Except in generalised Dice, a class without true pixels adds 0 to the sum and 1 to the number of classes: it has no
overlap to gain, and its false positives raise the losses of other classes. For k = 1 the one class is the foreground.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxseg.arguments import NotNegative
from jaxseg.losses.pixels import SumWeight, check, foreground, one_hot, probabilities, scored, valid
from jaxseg.types import Array

Stats = Mapping[str, jax.Array]

# Lower bound of a score before its logarithm, and of a loss before it is raised to a power.
_LEAST = 1e-7


def overlap_stats(
    logits: Array, labels: Array, *, squared: bool = False, per_image: bool = False
) -> dict[str, jax.Array]:
    """The sums of every set loss: intersection, predicted and truth f32[k] (f32[b,k] per image), pixels f32[] (f32[b]).

    Args:
        logits: f32[b,h,w,k], or any leading shape.
        labels: integers of the leading shape, 0..k-1 (0..1 for k = 1) or IGNORE.
        squared: squares p in the predicted sum.
        per_image: keeps the first axis.

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    logits, classes = check(logits, labels)
    counts = valid(labels, classes)[..., None]
    truth = scored(one_hot(labels, classes), logits.shape[-1])
    p = probabilities(logits)
    pixels = tuple(range(1 if per_image else 0, labels.ndim))
    return {
        "intersection": jnp.sum(counts * p * truth, axis=pixels),
        "predicted": jnp.sum(counts * (p * p if squared else p), axis=pixels),
        "truth": jnp.sum(counts * truth, axis=pixels),
        "pixels": jnp.sum(counts[..., 0], axis=pixels),
    }


def dice(
    logits: Array,
    labels: Array,
    *,
    squared: bool = True,
    per_image: bool = False,
    smooth: NotNegative = 0.0,
    log: bool = False,
    include_background: bool = True,
) -> SumWeight:
    """Dice loss, f32[b,h,w,k] and i32[b,h,w] -> (Σ_c 1 - score_c f32[], number of classes f32[]).

    score_c = (2 Σ p_c y_c + smooth) / (Σ p_c² + Σ y_c² + smooth), with sums over all pixels of the batch: Milletari et
    al., V-Net, 2016, eq. 2 (`squared`). Without `squared` the denominator is Σ p_c + Σ y_c + smooth. Some texts divide
    by the union, with which a perfect prediction scores 2.

    Args:
        logits: f32[b,h,w,k], or any leading shape.
        labels: integers of the leading shape, 0..k-1 (0..1 for k = 1) or IGNORE.
        squared: squares p in the cardinality.
        per_image: one score for each image instead of one for the batch.
        smooth: added to the numerator and the denominator.
        log: -log(score_c) instead of 1 - score_c.
        include_background: False leaves class 0 out of sum and number, for k > 1.

    Raises:
        ValueError: if the shapes disagree, labels are not integers, or `include_background` is False for k = 1.
    """
    stats = dice_stats(logits, labels, squared=squared, per_image=per_image)
    return dice_from_stats(stats, smooth=smooth, log=log, include_background=include_background)


def dice_stats(logits: Array, labels: Array, *, squared: bool = True, per_image: bool = False) -> dict[str, jax.Array]:
    """The sums that `dice` divides: `overlap_stats`, with the squares of V-Net by default."""
    return overlap_stats(logits, labels, squared=squared, per_image=per_image)


def dice_from_stats(
    stats: Stats, *, smooth: NotNegative = 0.0, log: bool = False, include_background: bool = True
) -> SumWeight:
    """Computes (Σ_c 1 - score_c, number of classes) of `dice` from summed `dice_stats`."""
    below = stats["predicted"] + stats["truth"] + smooth
    return _finish(stats, _score(stats, 2.0 * stats["intersection"] + smooth, below), log, include_background)


def jaccard(
    logits: Array,
    labels: Array,
    *,
    squared: bool = False,
    per_image: bool = False,
    smooth: NotNegative = 0.0,
    log: bool = False,
    include_background: bool = True,
) -> SumWeight:
    """Jaccard (soft IoU) loss, f32[b,h,w,k] and i32[b,h,w] -> (Σ_c 1 - score_c f32[], number of classes f32[]).

    score_c = (I + smooth) / (P + T - I + smooth): Rahman and Wang, Optimizing Intersection-Over-Union in Deep Neural
    Networks, 2016. On hard predictions it is the IoU.

    Args and Raises: as `dice`.
    """
    stats = overlap_stats(logits, labels, squared=squared, per_image=per_image)
    return jaccard_from_stats(stats, smooth=smooth, log=log, include_background=include_background)


def jaccard_from_stats(
    stats: Stats, *, smooth: NotNegative = 0.0, log: bool = False, include_background: bool = True
) -> SumWeight:
    """Computes (Σ_c 1 - score_c, number of classes) of `jaccard` from summed `overlap_stats`."""
    both = stats["intersection"]
    below = stats["predicted"] + stats["truth"] - both + smooth
    return _finish(stats, _score(stats, both + smooth, below), log, include_background)


def tversky(
    logits: Array,
    labels: Array,
    *,
    squared: bool = False,
    per_image: bool = False,
    alpha: NotNegative = 0.3,
    beta: NotNegative = 0.7,
    gamma: NotNegative = 1.0,
    smooth: NotNegative = 0.0,
    include_background: bool = True,
) -> SumWeight:
    """(Focal) Tversky loss, f32[b,h,w,k] and i32[b,h,w] -> (Σ_c (1 - score_c)^γ f32[], number of classes f32[]).

    score_c = (I + smooth) / (I + α FP + β FN + smooth) with FP = P - I and FN = T - I: Salehi et al., Tversky loss
    function, 2017; the defaults are its best α and β. α = β = .5 is Dice without squares, α = β = 1 is Jaccard.
    γ is the exponent itself: the focal Tversky loss of Abraham and Khan, 2018, writes the exponent as 1/γ, so its
    γ = 4/3 is .75 here. The loss of each class is raised to γ before the mean; segmentation_models.pytorch raises the
    mean, which gives the same for one class or γ = 1.

    Args and Raises: as `dice`.
    """
    stats = overlap_stats(logits, labels, squared=squared, per_image=per_image)
    return tversky_from_stats(
        stats, alpha=alpha, beta=beta, gamma=gamma, smooth=smooth, include_background=include_background
    )


def tversky_from_stats(
    stats: Stats,
    *,
    alpha: NotNegative = 0.3,
    beta: NotNegative = 0.7,
    gamma: NotNegative = 1.0,
    smooth: NotNegative = 0.0,
    include_background: bool = True,
) -> SumWeight:
    """Computes (Σ_c (1 - score_c)^γ, number of classes) of `tversky` from summed `overlap_stats`."""
    both = stats["intersection"]
    below = both + alpha * (stats["predicted"] - both) + beta * (stats["truth"] - both) + smooth
    return _finish(stats, _score(stats, both + smooth, below), False, include_background, gamma)


def generalised_dice(
    logits: Array, labels: Array, *, squared: bool = False, per_image: bool = False, include_background: bool = True
) -> SumWeight:
    """Generalised Dice loss, f32[b,h,w,k] and i32[b,h,w] -> (1 - score f32[], 1); sums over images if `per_image`.

    score = 2 Σ_c w_c I_c / Σ_c w_c (P_c + T_c) with w_c = 1 / T_c²: Sudre et al., Generalised Dice overlap, 2017,
    section 2.1. A class without true pixels gets the largest weight of the others, as in MONAI, so that predicting it
    raises the loss; without a true pixel in any class the loss is 0.

    Args and Raises: as `dice`.
    """
    stats = overlap_stats(logits, labels, squared=squared, per_image=per_image)
    return generalised_dice_from_stats(stats, include_background=include_background)


def generalised_dice_from_stats(stats: Stats, *, include_background: bool = True) -> SumWeight:
    """Computes (1 - score, 1), summed over images, of `generalised_dice` from summed `overlap_stats`."""
    both, predicted, truth = (
        foreground(stats[name], include_background) for name in ("intersection", "predicted", "truth")
    )
    absent = truth == 0
    rarest = jnp.min(jnp.where(absent, jnp.inf, truth), axis=-1, keepdims=True)
    nothing = jnp.all(absent, axis=-1)
    # Each weight is divided by that of the rarest class, which keeps it in 0..1 and does not change the ratio.
    weight = jnp.where(absent, 1.0, jnp.square(rarest / jnp.where(absent, 1.0, truth)))
    below = jnp.where(nothing, 1.0, jnp.sum(weight * (predicted + truth), axis=-1))
    loss = 1.0 - 2.0 * jnp.sum(weight * both, axis=-1) / below
    return jnp.sum(jnp.where(nothing, 0.0, loss)), jnp.sum(jnp.where(stats["pixels"] == 0, 0.0, 1.0))


def _score(stats: Stats, above: jax.Array, below: jax.Array) -> jax.Array:
    """above / below, and 1 for a class without true pixels."""
    absent = stats["truth"] == 0  # False for the NaN of a label outside the classes
    return jnp.where(absent, 1.0, above / jnp.where(absent, 1.0, below))


def _finish(stats: Stats, score: jax.Array, log: bool, include_background: bool, gamma: float = 1.0) -> SumWeight:
    """Scores f32[k] or f32[b,k] -> (Σ loss, number of classes); with b, over the images that have a valid pixel."""
    score = foreground(score, include_background)
    loss = -jnp.log(jnp.maximum(score, _LEAST)) if log else 1.0 - score
    if gamma != 1.0:
        loss = jnp.where(loss > _LEAST, jnp.maximum(loss, _LEAST) ** gamma, 0.0 * loss)
    weight = jnp.where(stats["pixels"] == 0, 0.0, jnp.float32(score.shape[-1]))
    return jnp.sum(loss), jnp.sum(weight)
