"""Builds the pure parts of a run from its configuration, once: model, loss, optimiser, augmentation and steps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxseg import losses, models, optim, parallel
from jaxseg.adversarial import AdversarialLoss, Discriminator, SegmenterWithDiscriminator
from jaxseg.config import ConfigDict
from jaxseg.data import augment
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.nn import LayerCRF, WithCRF
from jaxseg.objective import Objective
from jaxseg.state import Learner, Network, TrainState, init_state
from jaxseg.step import (
    Augment,
    EvalStep,
    Measure,
    Prepare,
    TrainStep,
    make_eval_step,
    make_train_step,
)
from jaxseg.types import Key

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The pure parts of a run, built once from its configuration by `build_parts`.

    The configuration check, training, loading, evaluation, prediction and sweeps all use them.

    Attributes:
        config: a validated configuration.
        num_classes: k, the channels of the logits; 1 for a binary problem with one sigmoid logit.
        model: the Linen module, for use outside `pmap`.
        learner: what the training step applies: the model with the strategy's axis, and the discriminator if the
            configuration has one.
        loss: the loss that evaluation reports.
        objective: what training minimises: the loss and the adversarial terms of the configuration.
        optimiser: the optax chain.
        schedule: step -> learning rate.
        prepare: raw images [b,h,w,c] -> network input, for evaluation and prediction.
        augment: (key, raw image [h,w,c], label i32[h,w]) -> (network input, label) of one example, for training.
        axis_name: the `pmap` axis that a step reduces over; None under `jit`.
    """

    config: ConfigDict
    num_classes: int
    model: nn.Module
    learner: Learner
    loss: losses.Loss
    objective: Objective
    optimiser: optax.GradientTransformation
    schedule: optax.Schedule
    prepare: Prepare
    augment: Augment
    axis_name: str | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The (height, width, channels) of the network input in training."""
        return (*input_size(self.config), self.config.data.channels)

    def with_class_weights(self, weights: Sequence[float] | np.ndarray | None) -> "Parts":
        """Returns the parts with the class weights `weights` f32[max(k, 2)] in the loss; None: all classes weigh 1."""
        loss = make_loss(self.config, self.num_classes, weights)
        return replace(self, loss=loss, objective=make_objective(self.config, loss))

    def init(self, key: Key) -> TrainState:
        """Returns the initial state, with parameters drawn from `key`; pure."""
        learner = make_learner(self.config, self.model)
        return init_state(learner, self.optimiser, key, self.image_shape, ema=self.config.ema.decay > 0)

    def train_step(self) -> TrainStep:
        """Returns the pure step(state, batch, key) -> (state, metrics), for `Strategy.compile_train`."""
        return make_train_step(
            self.learner,
            self.optimiser,
            self.objective,
            augment=self.augment,
            accumulate=self.config.accumulate,
            ema_decay=self.config.ema.decay,
            aux_weight=aux_weight(self.config),
            schedule=self.schedule,
            gradients=self.config.log.gradients,
            remat=self.config.remat,
            axis_name=self.axis_name,
        )

    def eval_step(
        self, measures: Mapping[str, Measure] | None = None, *, maps: bool = False, model: Network | None = None
    ) -> EvalStep:
        """Returns the pure step(state, batch) -> sums, for `Strategy.compile_eval`; see `step.make_eval_step`.

        `model` replaces the model of the parts, in a form of it that computes the same.
        """
        model, axis_name = self.model if model is None else model, self.axis_name
        return make_eval_step(model, self.loss, prepare=self.prepare, axis_name=axis_name, measures=measures, maps=maps)


def build_parts(
    config: ConfigDict,
    num_classes: int,
    class_weights: Sequence[float] | np.ndarray | None = None,
    *,
    axis_name: str | None = None,
) -> Parts:
    """Returns the parts of a run.

    Args:
        config: a validated configuration.
        num_classes: channels of the logits.
        class_weights: weights of the classes in the loss, f32[max(num_classes, 2)], or None.
        axis_name: the strategy's axis.

    Raises:
        ConfigError: for an invalid value; the message names the key and the nearest valid value.
    """
    _note_unused(config)
    model = make_model(config, num_classes)
    if models.can_generate(model):
        _check_generator(config)
    loss = make_loss(config, num_classes, class_weights)
    if loss.class_samples is not None:
        check_sampling(config)
    trained = model if axis_name is None else make_model(config, num_classes, axis_name)
    optimiser, schedule = optim.from_config(config)
    return Parts(
        config=config,
        num_classes=num_classes,
        model=model,
        learner=make_learner(config, trained),
        loss=loss,
        objective=make_objective(config, loss),
        optimiser=optimiser,
        schedule=schedule,
        prepare=make_prepare(config),
        augment=make_augment(config),
        axis_name=axis_name,
    )


def _note_unused(config: ConfigDict) -> None:
    """Logs a note for a field of the model that has no effect in any command."""
    args = config.model.args
    if "sow_attention" in args and args.sow_attention is True:
        _LOG.warning(
            "model.args.sow_attention=True has no effect in training, evaluation and prediction, and can be left out; "
            "from Python, run.model.clone(sow_attention=True).apply(run.variables, image, train=False, "
            "mutable=['intermediates']) gives the attention weights of any run."
        )


def check_sampling(config: ConfigDict) -> None:
    """Raises ConfigError if a part of the configuration needs the logits that a loss of sampled classes leaves out."""
    if config.model.name in models.NEED_ALL_CLASSES:
        able = ", ".join(name for name in models.names() if name not in models.NEED_ALL_CLASSES)
        raise ConfigError(
            f"loss.args: sampled_cross_entropy with sampling='uniform' needs a network that computes the logits of "
            f"some classes alone, which model.name={config.model.name} cannot; networks that can are {able}."
        )
    if config.model.crf:
        raise ConfigError(
            "model.crf compares the logits of all classes, but sampled_cross_entropy with sampling='uniform' in "
            "loss.args computes those of the sampled classes alone; leave one of the two out."
        )
    if config.adversarial.weight:
        raise ConfigError(
            "adversarial.weight judges the logits of all classes, but sampled_cross_entropy with sampling='uniform' in "
            "loss.args computes those of the sampled classes alone; leave one of the two out."
        )


def _check_generator(config: ConfigDict) -> None:
    """Raises ConfigError if the images are not in [-1, 1] as those of a generator, or a second discriminator is set."""
    for key, values in (("data.mean", config.data.mean), ("data.std", config.data.std)):
        if any(value != 0.5 for value in values):
            raise ConfigError(
                f"{key} must be 0.5 for model.name={config.model.name}, whose generator makes images in [-1, 1]; got "
                f"{', '.join(f'{value:g}' for value in values)}. Give --config.data.mean=0.5 --config.data.std=0.5."
            )
    if config.adversarial.weight:
        raise ConfigError(
            f"adversarial.weight adds a discriminator of label maps, but model.name={config.model.name} has one of "
            "images, which learns by the loss term discriminator; leave adversarial.weight at 0."
        )


def make_strategy(config: ConfigDict) -> parallel.Strategy:
    """Returns the strategy of the configuration; raises ConfigError if the devices cannot split its batches evenly."""
    sizes = {"batch_size": config.batch_size, "eval.batch_size": config.eval.batch_size}
    if config.accumulate > 1:
        sizes["batch_size / accumulate"] = config.batch_size // config.accumulate
    return parallel.make_strategy(config.strategy, sizes, options=config.compile.options)


def make_model(config: ConfigDict, num_classes: int, axis_name: str | None = None) -> nn.Module:
    """Returns the model of the configuration; `axis_name` is the strategy's, None outside `pmap`."""
    try:
        network = models.build(
            config.model.name,
            num_classes=num_classes,
            dtype=config.dtype,
            axis_name=axis_name,
            **config.model.args.to_dict(),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error
    if not config.model.crf:
        return network
    if models.can_generate(network):
        raise ConfigError(
            f"model.crf refines classes, but model.name={config.model.name} makes images; leave it empty."
        )
    try:
        crf = LayerCRF.parse(config.model.crf)
    except ArgumentError as error:
        raise ConfigError(f"model.crf: {error}") from error
    return WithCRF(network, crf, tuple(config.data.mean), tuple(config.data.std))


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


def make_learner(config: ConfigDict, model: nn.Module) -> Learner:
    """Returns what the training step applies: the model, with a discriminator if the configuration has one."""
    c = config.adversarial
    if not c.weight:
        return model
    return SegmenterWithDiscriminator(model, Discriminator(tuple(c.widths), jnp.dtype(config.dtype).type), c.image)


def make_objective(config: ConfigDict, loss: losses.Loss) -> Objective:
    """Returns what training minimises: the loss that evaluation reports, and the configuration's adversarial terms."""
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


def input_size(config: ConfigDict) -> tuple[int, int]:
    """Returns the (height, width) of the network input in training."""
    return tuple(config.augment.crop) or tuple(config.data.size)


def make_prepare(config: ConfigDict) -> Prepare:
    """Returns the function raw images [b,h,w,c] -> network input, for evaluation and prediction."""

    def prepare(image: jax.Array) -> jax.Array:
        return augment.normalize(augment.to_float(image), config.data.mean, config.data.std)

    return prepare


def make_augment(config: ConfigDict) -> Augment:
    """Returns the function (key, raw image, label) -> (network input, label) of one example, for training."""
    augment_unnormalised = augment.from_config(config.augment)

    def augment_example(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        image, label = augment_unnormalised(key, augment.to_float(image), label)
        return augment.normalize(image, config.data.mean, config.data.std), label

    return augment_example
