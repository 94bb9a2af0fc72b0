"""The keys of the loss and how it is minimised: `loss.*` to `ema.*`."""

from typing import Annotated, Literal

from jaxseg.arguments import (
    BelowOne,
    Boundaries,
    Count,
    NotNegative,
    Positive,
    ScheduleName,
    Share,
    Where,
    WholeNotNegative,
)
from jaxseg.config.key import Key, Widths

TRAINING: dict[str, Key] = {
    "loss.terms": Key("cross_entropy", 'weighted sum of losses, such as "cross_entropy + 0.5 * dice"'),
    "loss.class_weights": Key(
        "",
        "empty: none; from the training data: median_frequency, effective_number or effective_number:BETA (0.999 by "
        "default); or numbers: 1,2.5,1",
    ),
    "loss.logit_adjustment": Key(
        0.0,
        "tau of the logit adjustment (1, say): adds tau log(share of the class in the training data) to the logits of "
        "the softmax cross-entropies; 0: none",
        NotNegative,
    ),
    "loss.hierarchy": Key(
        "",
        'JSON file with the group of each class, {"car": "vehicle", ...}, for the loss hierarchical_cross_entropy and '
        "for scores of each level",
    ),
    "loss.label_smoothing": Key(0.0, "label smoothing of the cross-entropy, in [0, 1)", BelowOne),
    "loss.aux_weight": Key(0.4, "weight of each auxiliary head's loss", NotNegative),
    "loss.aux_weights": Key(
        (),
        "a weight for each auxiliary head, such as 0.5,0.25,0.125; empty: loss.aux_weight for all",
        tuple[NotNegative, ...],
    ),
    "loss.args": Key({}, "arguments of single terms: {'dice': {'squared': False}}"),
    "adversarial.weight": Key(
        0.0, "weight of the loss by a discriminator of label maps (0.01, say); 0: no discriminator", NotNegative
    ),
    "adversarial.learning_rate": Key(
        0.0001, "peak learning rate of the discriminator's Adam, under the same schedule", Positive
    ),
    "adversarial.widths": Key(
        (64, 128, 256, 512), "channels of the discriminator's convolutions, each of stride 2", Widths
    ),
    "adversarial.image": Key(False, "the discriminator sees the image beside the label map"),
    "adversarial.truth_scaling": Key(
        0.0,
        "the discriminator's true maps: predicted probabilities with the true class raised to at least this; "
        "0: one-hot",
        Share,
    ),
    "adversarial.unlabelled_weight": Key(
        0.0,
        "weight of the discriminator's loss for images whose labels are all ignored (0.001, say)",
        NotNegative,
    ),
    "adversarial.semi_weight": Key(
        0.0,
        "weight of the cross-entropy with the predicted classes, for images whose labels are all ignored (0.1, say)",
        NotNegative,
    ),
    "adversarial.semi_threshold": Key(
        0.2, "the predicted classes count where the discriminator's probability is above this", Share
    ),
    "adversarial.unlabelled_from": Key(
        0,
        "step from which images whose labels are all ignored count (a quarter of the run, say)",
        WholeNotNegative,
    ),
    "semi.method": Key(
        "",
        "how images without labels teach, beside the loss of those with labels: mean_teacher (the probabilities of the "
        "moving average of the network) or fixmatch (its confident classes); empty: not at all",
        Literal["", "mean_teacher", "fixmatch"],
    ),
    "semi.weight": Key(1.0, "weight of the loss of images without labels", NotNegative),
    "semi.ramp_up": Key(
        0, "steps over which semi.weight rises from nearly 0, since the teacher is poor at first", WholeNotNegative
    ),
    "semi.threshold": Key(
        0.95, "fixmatch: a pixel teaches where the teacher's probability of its class is at least this", Share
    ),
    "semi.class_share": Key(
        0.0,
        "fixmatch: of each class the most confident pixels of the batch teach too, up to this share of them; "
        "0: semi.threshold alone",
        Share,
    ),
    "semi.strength": Key(
        1.0,
        "how much the network's view of an image without labels differs in colour and sharpness from the teacher's; "
        "0: not at all",
        Share,
    ),
    "semi.cutmix": Key(
        0.0, "probability that a box of half the view is that of another image, for the teacher's classes too", Share
    ),
    "semi.features": Key(
        0.0,
        "share of the encoder's channels that are dropped in a second view of each image, which is the teacher's own; "
        "0: there is no second view (UniMatch: 0.5)",
        BelowOne,
    ),
    "optimizer.name": Key(
        "adamw", "sgd (with momentum), adam, adamw, rmsprop, lion, muon, or another optimiser of optax by its name"
    ),
    "optimizer.learning_rate": Key(0.001, "peak learning rate", Positive),
    "optimizer.weight_decay": Key(
        0.0001,
        "decoupled where the optimiser has decay with a mask (adamw, lamb, lion, muon), else L2; "
        "norms and biases are left out",
        NotNegative,
    ),
    "optimizer.momentum": Key(0.9, "momentum of sgd (of rmsprop: optimizer.args.momentum, default 0)", BelowOne),
    "optimizer.clip": Key(0.0, "largest global norm of the gradient; 0: no clipping", NotNegative),
    "optimizer.encoder_rate": Key(
        1.0, "factor on the encoder's learning rate: 0.1 to fine-tune, 0 freezes its parameters", NotNegative
    ),
    "optimizer.layer_decay": Key(
        1.0,
        "factor between the learning rates of neighbouring layers of the encoder, from the head down (0.75, say); "
        "1: one rate for all",
        Annotated[float, Where(lambda v: 0 < v <= 1, instead="a number above 0 and at most 1")],
    ),
    "optimizer.train_only": Key(
        (),
        "regular expressions of the parameters that train, found anywhere in their paths; probe: the classifier alone; "
        "empty: all",
        tuple[str, ...],
    ),
    "optimizer.frozen_norms": Key(
        "none",
        "encoder or all: its batch norms keep and use the statistics that they start with, in training too",
        Literal["none", "encoder", "all"],
    ),
    "optimizer.args": Key({}, "further arguments of the optax optimiser"),
    "schedule.name": Key(
        "poly",
        "constant, poly, cosine, exponential, step, or plateau (lowered where the validation mIoU no longer rises)",
        ScheduleName,
    ),
    "schedule.power": Key(0.9, "exponent of poly", Positive),
    "schedule.warmup": Key(0, "steps of linear warm-up, part of `steps`", WholeNotNegative),
    "schedule.end": Key(
        0.0, "final learning rate as a share of the peak (poly, cosine, exponential); of plateau the smallest", Share
    ),
    "schedule.boundaries": Key((), "steps at which the step schedule multiplies by schedule.factor", Boundaries),
    "schedule.factor": Key(0.1, "factor of the step and plateau schedules", Positive),
    "schedule.patience": Key(
        3,
        "plateau: evaluations without a higher validation mIoU after which the rate is multiplied by schedule.factor",
        Count,
    ),
    "stop.patience": Key(
        0,
        "evaluations without a higher validation mIoU after which the run ends, with its best checkpoint; 0: it makes "
        "all steps",
        WholeNotNegative,
    ),
    "ema.decay": Key(0.0, "decay of the moving average of the parameters that evaluation then uses; 0: none", BelowOne),
}
