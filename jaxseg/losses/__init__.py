"""Losses: pure functions from logits and labels to sums, which are divided once, after all reductions.

A pixel loss returns `(sum, weight)`; its value is `sum / weight`, computed after both have been added over pixels,
examples, devices and micro-batches. A set loss (Dice, Jaccard, Tversky) first adds its per-class intersections and
cardinalities and then computes its ratio. A loss that is defined on whole images (Lovász, the hardest pixels,
boundaries) is a sum over images. `semantic_encoding`, `boundary_awareness`, `detail`, `mask_classification`,
`point_cross_entropy`, `reconstruction`, `generator` and `discriminator` read a particular output of their networks
instead of the logits. `make_loss` offers weighted sums of all kinds through two functions: `Loss.stats` returns the
sums, which add, and `Loss.value` turns their total into the loss.

`entropy` and `gated_crf` also learn from pixels without a label, and `size_constraint` from what boxes and image-level
tags say of them (`jaxseg.losses.possible`).

Labels are class indices or IGNORE. IGNORE pixels add to neither sum nor weight. Any other label outside the classes
makes the loss NaN, so that training on a wrong mask is noticed. With one logit (k = 1) the classes are 0 and 1 and the
probability of 1 is the sigmoid of the logit; with more logits the probabilities are their softmax, or one sigmoid each
where a term of the loss trains them so (`Loss.one_vs_rest`). All arithmetic is float32.
"""

from jaxseg.losses.balance import effective_number_weights, logit_shift, median_frequency_weights
from jaxseg.losses.boundary import boundary, boundary_f1
from jaxseg.losses.boundary_awareness import boundary_awareness_from_stats, boundary_awareness_stats
from jaxseg.losses.class_sample import ClassSample, present_classes, sample_classes
from jaxseg.losses.combine import Loss, Term, make_loss
from jaxseg.losses.detail import detail_from_stats, detail_stats
from jaxseg.losses.entropy import entropy
from jaxseg.losses.focal import focal
from jaxseg.losses.gated_crf import gated_crf
from jaxseg.losses.generation import discriminator, generator
from jaxseg.losses.hard import ohem, sampled_cross_entropy
from jaxseg.losses.hierarchy import hierarchical_cross_entropy
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
from jaxseg.losses.pixels import SumWeight, divide, label_maps, probabilities
from jaxseg.losses.points import point_cross_entropy
from jaxseg.losses.possible import possible_label
from jaxseg.losses.reconstruction import reconstruction
from jaxseg.losses.semantic_encoding import semantic_encoding
from jaxseg.losses.size_constraint import size_constraint
from jaxseg.losses.terms import binary_cross_entropy, cross_entropy, mse

__all__ = [
    "ClassSample",
    "Loss",
    "SumWeight",
    "Term",
    "binary_cross_entropy",
    "boundary",
    "boundary_awareness_from_stats",
    "boundary_awareness_stats",
    "boundary_f1",
    "cross_entropy",
    "detail_from_stats",
    "detail_stats",
    "dice",
    "dice_from_stats",
    "dice_stats",
    "discriminator",
    "divide",
    "effective_number_weights",
    "entropy",
    "focal",
    "gated_crf",
    "generalised_dice",
    "generalised_dice_from_stats",
    "generator",
    "hierarchical_cross_entropy",
    "jaccard",
    "jaccard_from_stats",
    "label_maps",
    "logit_shift",
    "lovasz",
    "make_loss",
    "mask_classification_from_stats",
    "mask_classification_stats",
    "median_frequency_weights",
    "mse",
    "ohem",
    "overlap_stats",
    "point_cross_entropy",
    "possible_label",
    "present_classes",
    "probabilities",
    "reconstruction",
    "sample_classes",
    "sampled_cross_entropy",
    "semantic_encoding",
    "size_constraint",
    "tversky",
    "tversky_from_stats",
]
