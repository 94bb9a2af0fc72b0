"""The loss of a configuration, and what training minimises."""

from collections.abc import Sequence

import numpy as np

from jaxseg import losses
from jaxseg.adversarial import AdversarialLoss
from jaxseg.config import ConfigDict
from jaxseg.consistency import ConsistencyLoss
from jaxseg.distillation import DistillationLoss
from jaxseg.errors import ConfigError
from jaxseg.mixing import MixedLoss
from jaxseg.objective import Objective

_BETA = 0.999  # of "effective_number": a class with 1,000 whole images and more counts as one with 1,000


def make_loss(
    config: ConfigDict,
    num_classes: int,
    weights: Sequence[float] | np.ndarray | None = None,
    prior: Sequence[float] | np.ndarray | None = None,
    levels: Sequence[Sequence[int]] = (),
) -> losses.Loss:
    """Returns the loss of the configuration.

    Args:
        config: a validated configuration.
        num_classes: k.
        weights: class weights f32[max(k, 2)], or None.
        prior: the share of each class in the training data, f64[max(k, 2)], for `loss.logit_adjustment`. None: the
            logits are not adjusted.
        levels: the groups of the classes, of `loss.hierarchy`.
    """
    try:
        return losses.make_loss(
            config.loss.terms,
            num_classes=num_classes,
            class_weights=weights,
            label_smoothing=config.loss.label_smoothing,
            class_prior=prior,
            logit_adjustment=config.loss.logit_adjustment,
            levels=tuple(map(tuple, levels)),
            args=config.loss.args.to_dict(),
            multilabel=bool(config.data.multilabel),
            partly=config.data.unknown != "pixel",
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"loss: {error}") from error


def parse_effective_number(text: str) -> float | None:
    """Returns the β of "effective_number" or "effective_number:BETA", None for another text.

    Raises:
        ConfigError: if BETA is not a number in [0, 1).
    """
    name, colon, beta = text.partition(":")
    if name != "effective_number":
        return None
    if not colon:
        return _BETA
    try:
        value = float(beta)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise ConfigError(
            f"loss.class_weights={text}: the number after the colon is beta, in [0, 1), such as "
            f"effective_number:{_BETA}; got {beta!r}."
        )
    return value


def parse_class_weights(text: str) -> np.ndarray:
    """Returns the numbers that `loss.class_weights` lists, f32[k]; raises ConfigError if it is no list of numbers."""
    try:
        return np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError as error:
        raise ConfigError(
            f"loss.class_weights must be empty, median_frequency, effective_number, effective_number:BETA or numbers "
            f"separated by commas, got {text!r}."
        ) from error


def aux_weight(config: ConfigDict) -> float | tuple[float, ...]:
    """Returns the weights of the auxiliary heads' losses: one for all, or one for each if the configuration lists them.

    nnU-Net's deep supervision gives output i the weight 2^-i / Σ 2^-i, where the logits are i = 0. With three heads
    that is loss.aux_weights=(0.5, 0.25, 0.125), and loss.terms="0.5333 * cross_entropy" for the common factor
    1 / 1.875, since logits and heads have the same terms.
    """
    return tuple(config.loss.aux_weights) or config.loss.aux_weight


def make_objective(config: ConfigDict, loss: losses.Loss) -> Objective:
    """Returns what training minimises: the loss that evaluation reports, and the terms of a second network."""
    d = config.distill
    objective = _with_others(config, loss)
    if not d.teacher:
        return objective
    return DistillationLoss(objective, d.kind, d.weight, d.temperature, loss.one_vs_rest)


def _with_others(config: ConfigDict, loss: losses.Loss) -> Objective:
    """Returns the loss with the terms of images without labels, or of a discriminator, if there are some."""
    semi = config.semi
    if semi.method:
        return ConsistencyLoss(
            loss, semi.method, semi.weight, semi.ramp_up, threshold=semi.threshold, class_share=semi.class_share
        )
    c = config.adversarial
    if not c.weight:
        return MixedLoss(loss) if config.augment.mixup else loss
    return AdversarialLoss(
        loss,
        weight=c.weight,
        unlabelled_weight=c.unlabelled_weight,
        semi_weight=c.semi_weight,
        semi_threshold=c.semi_threshold,
        unlabelled_from=c.unlabelled_from,
        truth_scaling=c.truth_scaling,
    )
