"""Checks a configuration before a run starts: builds every part and traces a training step."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.errors import FlaxError

from jaxseg import models, optim
from jaxseg.arguments import MIXING_OPTIONS
from jaxseg.build import (
    Parts,
    build_parts,
    make_loss,
    make_model,
    make_strategy,
    parse_class_weights,
    parse_effective_number,
)
from jaxseg.config import KEYS, ConfigDict, flatten, require_short_warmup, with_values
from jaxseg.data import sources
from jaxseg.data.hierarchy import read_parents
from jaxseg.data.labelled import as_share
from jaxseg.errors import ConfigError, first_line, nearest, raise_together
from jaxseg.losses.table import LOSSES
from jaxseg.nn import without_crf
from jaxseg.pieces import check_multilabel, require_annealing_within_steps, require_start_of_frozen
from jaxseg.run.preflight import batch_shapes
from jaxseg.run.teacher import read_teacher, with_teacher
from jaxseg.run.tracking import require_clients
from jaxseg.run.weights import find_weights
from jaxseg.state import TrainState
from jaxseg.types import ENCODER

_LOG = logging.getLogger(__name__)
_READ_BY = {
    **dict.fromkeys(
        ("data.ignore", "data.palette", "data.val_fraction", "data.division", "data.val_group"),
        ("data.source", "folder"),
    ),
    "data.rare_temperature": ("data.sampling", "rare"),
    "data.shapes_imbalance": ("data.source", "shapes"),
    "optimizer.momentum": ("optimizer.name", "sgd"),
    "schedule.power": ("schedule.name", "poly"),
    "schedule.boundaries": ("schedule.name", "step"),
    "schedule.patience": ("schedule.name", "plateau"),
}  # key: the one value of another key with which it is read
_DROP_IN_OWN_ENCODER = ("attention_decoder", "attention_unet", "unet", "unetplusplus")
_NEEDS: dict[str, tuple[str, Callable[[ConfigDict], Any]]] = {
    "data.val_group": ("data.division=stable", lambda c: c.data.division != "former"),
    "data.dir": ("another data.source than shapes, such as folder", lambda c: c.data.source != "shapes"),
    "data.cache": ("a data.source that TFDS prepares", lambda c: c.data.source not in ("shapes", "folder")),
    **dict.fromkeys(
        ("data.box_core", "data.mark_radius"),
        ("data.annotations or data.weaken", lambda c: c.data.annotations or c.data.weaken),
    ),
    "augment.crop_max_share": ("augment.crop", lambda c: c.augment.crop),
    "augment.crop_balanced": ("augment.crop", lambda c: c.augment.crop),
    **dict.fromkeys(
        ("augment.saturation", "augment.hue"), ("images of three channels", lambda c: c.data.channels in (3, 4))
    ),
    **{
        f"augment.{name}": ("augment.copy_paste", lambda c: c.augment.copy_paste)
        for name in MIXING_OPTIONS
        if name.startswith("copy_paste_")
    },
    "augment.mixup_alpha": ("augment.mixup", lambda c: c.augment.mixup),
    "augment.rand_magnitude": ("augment.rand_operations", lambda c: c.augment.rand_operations),
    "augment.elastic_spacing": ("augment.elastic", lambda c: c.augment.elastic),
    **{
        f"distill.{name}": ("distill.teacher", lambda c: c.distill.teacher)
        for name in ("kind", "weight", "temperature", "stage", "teacher_stage", "channels")
    },
    **{
        f"prune.{name}": ("prune.sparsity", lambda c: c.prune.sparsity)
        for name in ("initial", "begin", "end", "every", "scope", "keep")
    },
    "quantise.skip": ("quantise.weights", lambda c: c.quantise.weights),
    "lora.targets": ("lora.rank", lambda c: c.lora.rank),
    "lora.alpha": ("lora.rank", lambda c: c.lora.rank),
    "model.weights_checkpoint": (
        "model.weights or model.encoder_weights, the workdir of a run",
        lambda c: c.model.weights or c.model.encoder_weights,
    ),
    "adversarial.semi_threshold": ("adversarial.semi_weight", lambda c: c.adversarial.semi_weight),
    **{
        f"semi.{name}": ("semi.method=mean_teacher or fixmatch", lambda c: c.semi.method != "")
        for name in ("weight", "ramp_up", "strength", "cutmix", "features")
    },
    "semi.threshold": ("semi.method=fixmatch", lambda c: c.semi.method == "fixmatch"),
    "semi.class_share": ("semi.method=fixmatch", lambda c: c.semi.method == "fixmatch"),
    "data.labelled_seed": ("a share data.labelled", lambda c: as_share(c.data.labelled) is not None),
    "schedule.end": (
        "schedule.name=poly, cosine, exponential or plateau",
        lambda c: c.schedule.name in ("poly", "cosine", "exponential", "plateau"),
    ),
    "schedule.factor": ("schedule.name=step or plateau", lambda c: c.schedule.name in ("step", "plateau")),
    "stop.patience": (
        "as many evaluations after a first one (steps / eval.every)",
        lambda c: c.epochs or c.stop.patience < c.steps / c.eval.every,
    ),
    "log.project": ("log.trackers", lambda c: c.log.trackers),
    "eval.multiple": ("data.fit=crop", lambda c: c.data.fit == "crop"),
}  # key: (words for what reads it, whether the configuration has that)


def check(config: ConfigDict, *, before_training: bool = False, weights: bool = True) -> None:
    """Builds the parts and the strategy and traces a training step, so that an invalid value fails at once.

    Nothing is compiled, and no data are read.

    Args:
        config: the configuration.
        before_training: whether `train` follows. With strategy=jit it traces the step of the data's own classes
            (`run.programs`), and none is traced here: a trace takes seconds.
        weights: whether the weights to start from are there already.

    Raises:
        ConfigError: for an invalid value; the message names the key and the nearest valid value.
    """
    raise_together(*(functools.partial(each, config) for each in _INDEPENDENT))
    config = with_steps_above_warmup(config)
    config, taught = read_teacher(config)
    classes = config.model.num_classes or (taught.num_classes if taught else _least_classes(config))
    parts = with_teacher(build_parts(config, classes), taught)
    require_start_of_frozen(config)
    check_loss(parts)
    note_without_effect(config)
    if weights:
        find_weights(config, without_crf(parts.model))
    if config.loss.class_weights:
        parts.with_loss_of_data(np.ones(max(parts.num_classes, 2)))  # raises if no term takes weights
        if (
            config.loss.class_weights != "median_frequency"
            and parse_effective_number(config.loss.class_weights) is None
        ):
            parse_class_weights(config.loss.class_weights)
    if config.loss.logit_adjustment:
        parts.with_loss_of_data(None, np.ones(max(parts.num_classes, 2)))  # raises if no term takes it
    if config.loss.hierarchy:
        read_parents(config.loss.hierarchy)
    elif any(
        term.name == "hierarchical_cross_entropy" and "levels" not in dict(term.options) for term in parts.loss.terms
    ):
        raise ConfigError(
            "loss.terms: hierarchical_cross_entropy needs the groups of the classes; give loss.hierarchy=FILE."
        )
    sources.require_use_of_unlabelled(config)
    sources.require_windows(config)
    make_strategy(config)
    if not before_training or config.strategy != "jit":
        trace_training(parts, functools.partial(jax.eval_shape, parts.init), functools.partial(_shapes, parts))


def _least_classes(config: ConfigDict) -> int:
    """Returns the least number of classes that the configuration fits, while the data have not said how many."""
    return max([2, *(number + 1 for number in config.augment.copy_paste_classes)])


def with_steps_above_warmup(config: ConfigDict) -> ConfigDict:
    """Returns a configuration of epochs, whose steps are known once the data are open, with some steps."""
    if not config.epochs and config.schedule.warmup < config.steps:
        return config
    return with_values(config, {"steps": config.schedule.warmup + 1})


def _check_model(config: ConfigDict) -> None:
    make_model(config, config.model.num_classes or 2)


def _check_loss_terms(config: ConfigDict) -> None:
    make_loss(config, config.model.num_classes or 2)


def _check_optimiser(config: ConfigDict) -> None:
    optim.from_config(with_steps_above_warmup(config))


def _check_source(config: ConfigDict) -> None:
    if config.data.source not in sources.SOURCES:
        raise ConfigError(
            f"There is no data set data.source={config.data.source!r}.{nearest(config.data.source, sources.SOURCES)}"
        )


def _check_warmup(config: ConfigDict) -> None:
    if not config.epochs:
        require_short_warmup(config)


def _check_annealing(config: ConfigDict) -> None:
    if not config.epochs:
        require_annealing_within_steps(config)


def _check_trackers(config: ConfigDict) -> None:
    require_clients(config.log.trackers)


# What can be checked without the other parts, so that a user with several wrong keys reads of all of them.
_INDEPENDENT = (
    _check_source,
    check_multilabel,
    _check_model,
    _check_loss_terms,
    _check_optimiser,
    _check_warmup,
    _check_annealing,
    _check_trackers,
)


def note_without_effect(config: ConfigDict) -> None:
    """Logs the keys with another value than their default that nothing in the configuration reads."""
    flat = flatten(config)
    for key, (chooser, choice) in _READ_BY.items():
        if flat[chooser] != choice and flat[key] != KEYS[key].default:
            _LOG.warning(f"{key} has no effect with {chooser}={flat[chooser]}; {chooser}={choice} reads it.")
    for key, (needed, has_it) in _NEEDS.items():
        if flat[key] != KEYS[key].default and not has_it(config):
            _LOG.warning(f"{key} has no effect here: it needs {needed}.")
    if config.data.group and config.data.source == "folder" and config.data.division == "former":
        _LOG.warning("data.group keeps nothing on one side of data.val_fraction with data.division=former.")
    args = config.model.args
    if config.model.name in _DROP_IN_OWN_ENCODER and "dropout" in args and "encoder" in args and args.encoder:
        _LOG.warning(
            f"model.args.dropout has no effect here: it is that of the own encoder of model.name={config.model.name}; "
            "model.args.encoder_args.dropout is that of the encoders vgg, plain and residual."
        )


def check_loss(parts: Parts) -> None:
    """Raises ConfigError if the loss cannot teach the network; logs what of the network it does not teach."""
    name, text = parts.config.model.name, parts.config.loss.terms
    given = {term.name: term.definition for term in parts.loss.terms}
    for term, definition in given.items():
        having = definition.networks
        if having and name not in having and name in models.MODELS:
            raise ConfigError(
                f"loss.terms={text!r}: the term {term} reads the output {definition.reads!r} of model.name="
                f"{' or '.join(having)}, which model.name={name} does not have; give another term or network."
            )
    own = [term for term, definition in LOSSES.items() if name in definition.networks]
    lacking = [term for term in own if term not in given]
    if lacking and all(LOSSES[term].compares_images for term in own):
        raise ConfigError(
            f"loss.terms={text!r} lacks {' and '.join(lacking)}, by which alone model.name={name} learns; give "
            f"--config.loss.terms={' + '.join([*own, 'cross_entropy'])!r}, whose last term trains its classifier."
        )
    if lacking:
        _LOG.warning(
            f"loss.terms={text!r} lacks {lacking[0]}, so that a part of model.name={name} does not learn; the loss of "
            f"experiments/{name}.py has it."
        )
    if not any(definition.trains_logits or not definition.reads for definition in given.values()):
        classes = f"loss.terms={text!r} has no term that trains the logits of model.name={name}"
        if parts.loss.needs_labels:
            raise ConfigError(f"{classes}; add one, such as cross_entropy.")
        _LOG.warning(f"{classes}, so that its classes and mIoU mean nothing; cross_entropy trains them.")


def _shapes(parts: Parts, *arguments: Any) -> Any:
    return jax.eval_shape(parts.train_step(), *arguments, *parts.constants)


def trace_training(parts: Parts, init: Callable[..., Any], step: Callable[..., Any]) -> TrainState:
    """Traces the initialisation and a training step; returns the shapes of the state.

    Args:
        parts: the parts of the run.
        init: key -> shapes of the initial state.
        step: shapes of (state, batch, key) -> shapes of (state, metrics).

    Raises:
        ConfigError: for an invalid value; the message names the key.
    """
    config, key = parts.config, jax.eval_shape(jax.random.key, 0)
    batch = batch_shapes(parts)
    state = _trace("model.args", init, key)
    try:
        _, metrics = _trace("the training step", step, state, batch, key)
    except ConfigError:  # the part that is wrong has a key
        _trace("optimizer.args", jax.eval_shape, parts.optimiser.update, state.params, state.opt_state, state.params)
        _trace("augment", jax.eval_shape, parts.augment, key, *map(_one, batch.values()))
        raise
    _note_single_images(config, state)
    default = KEYS["loss.aux_weight"].default
    if config.loss.aux_weight != default and not any(name.startswith("auxiliary") for name in metrics["terms"]):
        _LOG.warning(f"loss.aux_weight has no effect here: model.name={config.model.name} has no auxiliary head.")
    return state


def _note_single_images(config: ConfigDict, state: TrainState) -> None:
    """Logs a note for batch norms that see one image at a time in training."""
    frozen = config.optimizer.frozen_norms
    free = [name for name in state.batch_stats if frozen == "none" or (frozen == "encoder" and name != ENCODER)]
    if not free or config.batch_size > config.accumulate:
        return
    parts = "of one image" if config.accumulate == 1 else "in micro-batches of one image (batch_size / accumulate)"
    _LOG.warning(
        f"A batch {parts} gives batch norm the statistics of that image in training, and evaluation uses running ones, "
        "which may fit badly; give --config.model.args.norm=group, or, to fine-tune, "
        "--config.optimizer.frozen_norms=all with model.weights."
    )


def _one(batch: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(batch.shape[1:], batch.dtype)


def _trace(what: str, trace: Callable[..., Any], *args: Any) -> Any:
    """Returns `trace(*args)`; turns an error into a `ConfigError` that starts with `what`."""
    try:
        return trace(*args)
    except ConfigError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, NotImplementedError, FlaxError) as error:
        raise ConfigError(f"{what}: {first_line(error)}.") from error
