"""Losses: pure functions of logits and labels that give sums, divided once after every reduction.

A pixel loss returns `(sum, weight)`; its value is `sum / weight`, formed after both have been added over pixels,
examples, devices and micro-batches. A set loss (Dice, Jaccard, Tversky) adds its per-class intersections and
cardinalities first and forms its ratio afterwards. What can only be said of whole images (Lovász, the hardest pixels,
boundaries) is a sum over images. `semantic_encoding`, `mask_classification` and `reconstruction` read an output of
their own networks in place of logits. `make_loss` puts weighted sums of all kinds behind two functions, `Loss.stats`,
which adds, and `Loss.value`.

Labels are class indices or IGNORE, which counts in neither sum nor weight. Any other label outside the classes makes
the loss NaN, so that a wrong mask never trains in silence. With one logit (k = 1) the classes are 0 and 1 and the
probability of 1 is its sigmoid; with more it is their softmax. All arithmetic is float32.
"""

from jaxseg.losses.boundary import boundary, boundary_f1
from jaxseg.losses.combine import Loss, Term, make_loss
from jaxseg.losses.focal import focal
from jaxseg.losses.hard import ohem, sampled_cross_entropy
from jaxseg.losses.lovasz import lovasz
from jaxseg.losses.mask_classification import mask_classification_from_stats, mask_classification_stats
from jaxseg.losses.overlap import (
    dice,
    dice_from_stats,
    dice_stats,
    generalised_dice,
    generalised_dice_from_stats,
    jaccard,
    jaccard_from_stats,
    overlap_stats,
    tversky,
    tversky_from_stats,
)
from jaxseg.losses.pixels import SumWeight, divide, probabilities
from jaxseg.losses.reconstruction import reconstruction
from jaxseg.losses.semantic_encoding import semantic_encoding
from jaxseg.losses.terms import binary_cross_entropy, cross_entropy, median_frequency_weights, mse

__all__ = [
    "Loss",
    "SumWeight",
    "Term",
    "binary_cross_entropy",
    "boundary",
    "boundary_f1",
    "cross_entropy",
    "dice",
    "dice_from_stats",
    "dice_stats",
    "divide",
    "focal",
    "generalised_dice",
    "generalised_dice_from_stats",
    "jaccard",
    "jaccard_from_stats",
    "lovasz",
    "make_loss",
    "mask_classification_from_stats",
    "mask_classification_stats",
    "median_frequency_weights",
    "mse",
    "ohem",
    "overlap_stats",
    "probabilities",
    "reconstruction",
    "sampled_cross_entropy",
    "semantic_encoding",
    "tversky",
    "tversky_from_stats",
]
