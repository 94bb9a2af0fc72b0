"""Builds the pure parts of a run from its configuration, once: model, loss, optimiser, augmentation and steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn

from jaxseg import losses, models, optim, parallel
from jaxseg.adversarial import segmenter_of
from jaxseg.compiler import deterministic_options
from jaxseg.config import ConfigDict, takes_pairs
from jaxseg.distillation import DistilledNetwork, Teacher
from jaxseg.errors import ConfigError
from jaxseg.mesh import Axes
from jaxseg.nn.quantisation import with_fake_kernels
from jaxseg.objective import Objective
from jaxseg.pieces import (
    aux_weight,
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
    input_size,
    make_augment,
    make_learner,
    make_lora,
    make_loss,
    make_model,
    make_objective,
    make_prepare,
    make_quantisation,
    make_teach,
    note_untrained,
    note_unused,
    parse_class_weights,
    parse_effective_number,
)
from jaxseg.pruning.masks import pruning_of, with_pruned_average, zero_share
from jaxseg.state import Learner, Network, TrainState, init_state
from jaxseg.step import Augment, EvalStep, Measure, Prepare, TrainStep, make_eval_step, make_train_step
from jaxseg.tuning import merged, with_rate_of_progress
from jaxseg.types import DISTILLATION, Key, PyTree

__all__ = [
    "Parts",
    "aux_weight",
    "build_parts",
    "check_distillation",
    "check_sampling",
    "input_size",
    "make_augment",
    "make_learner",
    "make_loss",
    "make_model",
    "make_objective",
    "make_prepare",
    "make_strategy",
    "parse_class_weights",
    "parse_effective_number",
]


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
        objective: what training minimises: the loss, and the terms of a discriminator or of a teacher.
        optimiser: the optax chain.
        schedule: step -> learning rate.
        prepare: raw images [b,h,w,c] -> network input, for evaluation and prediction.
        augment: (key, raw image [h,w,c], label i32[h,w]) -> (network input, label) of one example, for training.
        axis_name: the `pmap` axis that a step reduces over; None under `jit`.
        teacher: the teacher of a run that trains, if its configuration has one.
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
    teacher: Teacher | None = None

    @property
    def constants(self) -> tuple[PyTree, ...]:
        """What the training step takes after state, batch and key, and does not change: the teacher's variables."""
        return () if self.teacher is None else (self.teacher.variables,)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The (height, width, channels) of the network input in training."""
        return (*input_size(self.config), self.config.data.channels)

    def with_loss_of_data(
        self,
        weights: Sequence[float] | np.ndarray | None,
        prior: Sequence[float] | np.ndarray | None = None,
        levels: Sequence[Sequence[int]] = (),
    ) -> "Parts":
        """Returns the parts with a loss that has what the training data give it; see `make_loss`.

        Args:
            weights: class weights f32[max(k, 2)]; None: all classes weigh 1.
            prior: the share of each class f64[max(k, 2)], for `loss.logit_adjustment`; None: no adjustment.
            levels: the groups of the classes, of `loss.hierarchy`.
        """
        loss = make_loss(self.config, self.num_classes, weights, prior, levels)
        return replace(self, loss=loss, objective=make_objective(self.config, loss))

    def init(self, key: Key) -> TrainState:
        """Returns the initial state, with parameters drawn from `key`; pure."""
        learner = make_learner(self.config, self.model)
        return init_state(learner, self.optimiser, key, self.image_shape, ema=self.config.ema.decay > 0)

    def train_step(self) -> Callable[..., Any]:
        """Returns the pure step(state, batch, key, *constants) -> (state, metrics), for `Strategy.compile_train`."""
        teacher = self.teacher
        if teacher is None or not isinstance(self.learner, DistilledNetwork):
            return self._train_step(self.learner)
        learner = self.learner

        def step(state: TrainState, batch: Mapping[str, jax.Array], key: Key, variables: PyTree) -> Any:
            taught = replace(learner, teacher=replace(teacher, variables=variables))
            return self._train_step(taught)(state, batch, key)

        return step

    def _train_step(self, learner: Learner) -> TrainStep:
        teach = make_teach(self.config, learner, self.loss)
        step = make_train_step(
            learner,
            self.optimiser,
            self.objective,
            augment=self.augment if teach is None else None,
            teach=teach,
            accumulate=self.config.accumulate,
            ema_decay=self.config.ema.decay,
            aux_weight=aux_weight(self.config),
            schedule=self.schedule,
            gradients=self.config.log.gradients,
            remat=self.config.remat,
            axis_name=self.axis_name,
        )
        step = with_rate_of_progress(step) if optim.follows_progress(self.config) else step
        return with_pruned_average(step) if self.config.prune.sparsity and self.config.ema.decay else step

    def sparsity(self, variables: Callable[[], Mapping[str, PyTree]]) -> dict[str, float]:
        """Returns {"sparsity": share of zeros in the pruned kernels} of a network; {} in a run without pruning."""
        pruning = pruning_of(self.config, optim.make_selection(self.config))
        return {} if pruning is None else {"sparsity": zero_share(variables()["params"], pruning)}

    def eval_step(
        self, measures: Mapping[str, Measure] | None = None, *, maps: bool = False, model: Network | None = None
    ) -> EvalStep:
        """Returns the pure step(state, batch) -> sums, for `Strategy.compile_eval`; see `step.make_eval_step`.

        `model` replaces the model of the parts, in a form of it that computes the same.
        """
        model, axis_name = self.model if model is None else model, self.axis_name
        step = make_eval_step(model, self.loss, prepare=self.prepare, axis_name=axis_name, measures=measures, maps=maps)
        if not self.config.lora.rank and not self.config.quantise.weights:
            return step
        return lambda state, batch: step(self.deployed(state), batch)

    def deployed(self, state: TrainState) -> TrainState:
        """Returns the state with the parameters of the network alone: adapters merged, kernels of few bits on their
        grid, other networks left out."""
        lora, quantisation = make_lora(self.config), make_quantisation(self.config)
        state = segmenter_of(state) if self.config.adversarial.weight else state

        def network_of(params: PyTree) -> PyTree:
            params = {name: child for name, child in params.items() if name != DISTILLATION}
            params = params if lora is None else merged(params, lora)
            return params if quantisation is None else with_fake_kernels(params, quantisation)

        if lora is None and quantisation is None and not self.config.distill.teacher:
            return state
        ema_params = None if state.ema_params is None else network_of(state.ema_params)
        return replace(state, params=network_of(state.params), ema_params=ema_params)


def build_parts(
    config: ConfigDict,
    num_classes: int,
    class_weights: Sequence[float] | np.ndarray | None = None,
    *,
    class_prior: Sequence[float] | np.ndarray | None = None,
    levels: Sequence[Sequence[int]] = (),
    axis_name: str | None = None,
) -> Parts:
    """Returns the parts of a run.

    Args:
        config: a validated configuration.
        num_classes: channels of the logits.
        class_weights: weights of the classes in the loss, f32[max(num_classes, 2)], or None.
        class_prior: the share of each class in the training data, for `loss.logit_adjustment`, or None.
        levels: the groups of the classes, of `loss.hierarchy`.
        axis_name: the strategy's axis.

    Raises:
        ConfigError: for an invalid value; the message names the key and the nearest valid value.
    """
    note_unused(config)
    check_multilabel(config)
    check_tuning(config)
    check_quantisation(config)
    check_distillation(config)
    model = make_model(config, num_classes)
    if models.can_generate(model):
        check_generator(config)
    loss = make_loss(config, num_classes, class_weights, class_prior, levels)
    note_untrained(config, loss)
    check_semi(config, loss)
    if loss.class_samples is not None:
        check_sampling(config)
    check_weak(config, loss)
    check_sigmoids(config, loss)
    check_mixing(config, loss)
    trained = model if axis_name is None else make_model(config, num_classes, axis_name)
    optimiser, schedule = optim.from_config(config)
    return Parts(
        config=config,
        num_classes=num_classes,
        model=model,
        learner=make_learner(config, trained, axis_name),
        loss=loss,
        objective=make_objective(config, loss),
        optimiser=optimiser,
        schedule=schedule,
        prepare=make_prepare(config),
        augment=make_augment(config, num_classes),
        axis_name=axis_name,
    )


def require_even_rows(config: ConfigDict) -> None:
    """Raises ConfigError unless `mesh.space` divides the height of the images that the network trains on."""
    rows, space = input_size(config)[0], config.mesh.space
    if rows % space:
        key = "augment.crop" if config.augment.crop else "data.size"
        near = sorted({max(space, rows // space * space), -(-rows // space) * space})
        raise ConfigError(
            f"mesh.space is {space}, which does not divide the height of the images in training, {rows} by {key}; the "
            f"nearest valid height is {' or '.join(map(str, near))}."
        )


def make_strategy(config: ConfigDict) -> parallel.Strategy:
    """Returns the strategy of the configuration; raises ConfigError if the devices cannot split its batches evenly."""
    sizes = {"batch_size": config.batch_size, "eval.batch_size": config.eval.batch_size}
    if config.accumulate > 1:
        sizes["batch_size / accumulate"] = config.batch_size // config.accumulate
    if takes_pairs(config) and config.strategy == "pmap":  # each device mixes pairs of its own images
        sizes["batch_size / (2 accumulate)"] = config.batch_size // (2 * config.accumulate)
    require_even_rows(config)
    return parallel.make_strategy(config.strategy, sizes, options=step_options(config), axes=Axes(**config.mesh))


def step_options(config: ConfigDict) -> dict[str, Any]:
    """Returns the changes to the compiler options of `compile.deterministic` and `compile.options`."""
    deterministic = deterministic_options() if config.compile.deterministic else {}
    return {**deterministic, **dict(config.compile.options)}
