"""Each pure piece of a run from its configuration: network, losses and images, and what they ask of each other."""

from jaxseg.pieces.checks import (
    check_distillation,
    check_generator,
    check_mixing,
    check_multilabel,
    check_quantisation,
    check_sampling,
    check_semi,
    check_sigmoids,
    check_tuning,
    check_weak,
    note_untrained,
    note_unused,
    require_annealing_within_steps,
    require_start_of_frozen,
)
from jaxseg.pieces.images import input_size, make_augment, make_prepare, make_teach
from jaxseg.pieces.loss import aux_weight, make_loss, make_objective, parse_class_weights, parse_effective_number
from jaxseg.pieces.network import make_learner, make_lora, make_model, make_quantisation

__all__ = [
    "aux_weight",
    "check_distillation",
    "check_generator",
    "check_mixing",
    "check_multilabel",
    "check_quantisation",
    "check_sampling",
    "check_semi",
    "check_sigmoids",
    "check_tuning",
    "check_weak",
    "input_size",
    "make_augment",
    "make_learner",
    "make_lora",
    "make_loss",
    "make_model",
    "make_objective",
    "make_prepare",
    "make_quantisation",
    "make_teach",
    "note_untrained",
    "note_unused",
    "parse_class_weights",
    "parse_effective_number",
    "require_annealing_within_steps",
    "require_start_of_frozen",
]
