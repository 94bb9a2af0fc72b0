"""The loss of a configuration, and what training minimises."""

from collections.abc import Sequence

import numpy as np

from jaxseg import losses
from jaxseg.adversarial import AdversarialLoss
from jaxseg.config import ConfigDict
from jaxseg.distillation import DistillationLoss
from jaxseg.errors import ConfigError
from jaxseg.objective import Objective


def make_loss(config: ConfigDict, num_classes: int, weights: Sequence[float] | np.ndarray | None = None) -> losses.Loss:
    """Returns the loss of the configuration, with the class weights `weights` f32[max(k, 2)] or None."""
    try:
        return losses.make_loss(
            config.loss.terms,
            num_classes=num_classes,
            class_weights=weights,
            label_smoothing=config.loss.label_smoothing,
            args=config.loss.args.to_dict(),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"loss: {error}") from error


def parse_class_weights(text: str) -> np.ndarray:
    """Returns the numbers that `loss.class_weights` lists, f32[k]; raises ConfigError if it is no list of numbers."""
    try:
        return np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError as error:
        raise ConfigError(
            f"loss.class_weights must be empty, median_frequency or numbers separated by commas, got {text!r}."
        ) from error


def aux_weight(config: ConfigDict) -> float | tuple[float, ...]:
    """Returns the weights of the auxiliary heads' losses: one for all, or one for each if the configuration lists them.

    nnU-Net's deep supervision gives output i the weight 2^-i / Σ 2^-i, where the logits are i = 0. With three heads
    that is loss.aux_weights=(0.5, 0.25, 0.125), and loss.terms="0.5333 * cross_entropy" for the common factor
    1 / 1.875, since logits and heads have the same terms.
    """
    return tuple(config.loss.aux_weights) or config.loss.aux_weight


def make_objective(config: ConfigDict, loss: losses.Loss) -> Objective:
    """Returns what training minimises: the loss that evaluation reports, adversarial terms and that of a teacher."""
    d = config.distill
    objective = _with_adversary(config, loss)
    if not d.teacher:
        return objective
    return DistillationLoss(objective, d.kind, d.weight, d.temperature, loss.one_vs_rest)


def _with_adversary(config: ConfigDict, loss: losses.Loss) -> Objective:
    c = config.adversarial
    if not c.weight:
        return loss
    return AdversarialLoss(
        loss,
        weight=c.weight,
        unlabelled_weight=c.unlabelled_weight,
        semi_weight=c.semi_weight,
        semi_threshold=c.semi_threshold,
        unlabelled_from=c.unlabelled_from,
        truth_scaling=c.truth_scaling,
    )
