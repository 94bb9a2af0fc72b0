"""The losses by the names used in `make_loss` and in configurations. A new loss needs one file and one row here."""

from jaxseg.losses.boundary import boundary, boundary_f1
from jaxseg.losses.boundary_awareness import boundary_awareness_from_stats, boundary_awareness_stats
from jaxseg.losses.definition import GUIDE, Definition
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
    dice_from_stats,
    dice_stats,
    generalised_dice_from_stats,
    jaccard_from_stats,
    overlap_stats,
    tversky_from_stats,
)
from jaxseg.losses.points import point_cross_entropy
from jaxseg.losses.reconstruction import reconstruction
from jaxseg.losses.semantic_encoding import semantic_encoding
from jaxseg.losses.size_constraint import size_constraint
from jaxseg.losses.terms import binary_cross_entropy, cross_entropy, mse

LOSSES = {
    "binary_cross_entropy": Definition(binary_cross_entropy, one_vs_rest=True, by_pixel=True, multilabel=True),
    "boundary": Definition(boundary, multilabel=True),
    "boundary_awareness": Definition(
        boundary_awareness_stats,
        boundary_awareness_from_stats,
        reads="boundary",
        reads_classes=True,
        networks=("pidnet",),
    ),
    "boundary_f1": Definition(boundary_f1, multilabel=True),
    "cross_entropy": Definition(cross_entropy, by_pixel=True),
    "detail": Definition(detail_stats, detail_from_stats, reads="detail", reads_classes=True, networks=("stdc",)),
    "dice": Definition(dice_stats, dice_from_stats, by_pixel=True, multilabel=True),
    "discriminator": Definition(discriminator, reads="verdicts", networks=("dcgan",), compares_images=True),
    "entropy": Definition(entropy, by_pixel=True, unlabelled=True),
    "focal": Definition(focal, by_pixel=True, multilabel=True),
    "gated_crf": Definition(gated_crf, reads=GUIDE, reads_classes=True, unlabelled=True),
    "generator": Definition(generator, reads="verdicts", networks=("dcgan",), compares_images=True),
    "generalised_dice": Definition(overlap_stats, generalised_dice_from_stats, by_pixel=True),
    "hierarchical_cross_entropy": Definition(hierarchical_cross_entropy, by_pixel=True),
    "jaccard": Definition(overlap_stats, jaccard_from_stats, by_pixel=True, multilabel=True),
    "lovasz": Definition(lovasz, multilabel=True),
    "mask_classification": Definition(
        mask_classification_stats,
        mask_classification_from_stats,
        reads="queries",
        reads_classes=True,
        networks=("eomt", "mask2former"),
        trains_logits=True,
    ),
    "mse": Definition(mse, by_pixel=True, multilabel=True),
    "ohem": Definition(ohem),
    "point_cross_entropy": Definition(point_cross_entropy, reads="points", reads_classes=True, networks=("pointrend",)),
    "reconstruction": Definition(
        reconstruction, reads="reconstruction", networks=("autoencoder",), compares_images=True
    ),
    "sampled_cross_entropy": Definition(sampled_cross_entropy),
    "semantic_encoding": Definition(semantic_encoding, reads="semantic_encoding", networks=("encnet",)),
    "size_constraint": Definition(size_constraint, takes_possible=True),
    "tversky": Definition(overlap_stats, tversky_from_stats, by_pixel=True, multilabel=True),
}
