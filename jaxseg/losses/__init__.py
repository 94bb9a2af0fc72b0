"""Losses: pure functions of logits and labels that give sums, divided once after every reduction.

A pixel loss returns `(sum, weight)`; its value is `sum / weight`, formed after both have been added over pixels,
examples, devices and micro-batches. A set loss (Dice) adds its per-class intersections and cardinalities first and
forms its ratio afterwards. `make_loss` puts weighted sums of both kinds behind two functions, `Loss.stats`, which adds,
and `Loss.value`.

Labels are class indices or IGNORE, which counts in neither sum nor weight. Any other label outside the classes makes
the loss NaN, so that a wrong mask never trains in silence. With one logit (k = 1) the classes are 0 and 1 and the
probability of 1 is its sigmoid; with more it is their softmax. All arithmetic is float32.
"""

from jaxseg.losses.combine import Loss, Term, make_loss
from jaxseg.losses.terms import (
    SumWeight,
    binary_cross_entropy,
    cross_entropy,
    dice,
    dice_from_stats,
    dice_stats,
    divide,
    median_frequency_weights,
    mse,
    probabilities,
)

__all__ = [
    "Loss",
    "SumWeight",
    "Term",
    "binary_cross_entropy",
    "cross_entropy",
    "dice",
    "dice_from_stats",
    "dice_stats",
    "divide",
    "make_loss",
    "median_frequency_weights",
    "mse",
    "probabilities",
]
