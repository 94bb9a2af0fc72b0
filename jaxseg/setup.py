"""From a configuration to the pure parts of a run: data, model, loss, optimiser, strategy.

Training, evaluation and prediction all build their parts here, so that they agree.
"""

from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxseg import losses, metrics, models, optim, parallel
from jaxseg.config import ConfigDict, ConfigError
from jaxseg.data import augment, pipeline, sources
from jaxseg.step import Augment, Prepare, to_unit


class Problem(NamedTuple):
    """The data of a run and what follows from it.

    Attributes:
        train: the training split.
        val: the split that evaluations during training score.
        num_classes: channels of the logits; 1 for a binary problem with one sigmoid logit.
    """

    train: sources.Source
    val: sources.Source
    num_classes: int


def check(config: ConfigDict) -> None:
    """Builds model, loss, optimiser and strategy once without running any, so that wrong names fail at once.

    Raises:
        ConfigError: naming the key and the nearest right value.
    """
    num_classes = config.model.num_classes or 2
    make_model(config, num_classes)
    make_loss(config, num_classes)
    optim.from_config(config)
    sources.check_name(config.data.source)
    make_strategy(config)


def make_strategy(config: ConfigDict) -> parallel.Strategy:
    """Returns the strategy of the config, after checking that the devices can share its batches evenly."""
    sizes = {"batch_size": config.batch_size, "eval.batch_size": config.eval.batch_size}
    if config.accumulate > 1:
        sizes["batch_size / accumulate"] = config.batch_size // config.accumulate
    return parallel.make_strategy(config.strategy, sizes)


def make_model(config: ConfigDict, num_classes: int, axis_name: str | None = None) -> nn.Module:
    """Returns the model of the config; `axis_name` is the strategy's, None outside a `pmap`."""
    try:
        return models.build(
            config.model.name,
            num_classes=num_classes,
            dtype=config.dtype,
            axis_name=axis_name,
            **config.model.args.to_dict(),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error


def make_loss(config: ConfigDict, num_classes: int, train: sources.Source | None = None) -> losses.Loss:
    """Returns the loss of the config; median-frequency weights are counted from `train`, without it they are 1."""
    try:
        return losses.make_loss(
            config.loss.terms,
            num_classes=num_classes,
            class_weights=_class_weights(config.loss.class_weights, num_classes, train),
            label_smoothing=config.loss.label_smoothing,
            args=config.loss.args.to_dict(),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"loss: {error}") from error


def _class_weights(text: str, num_classes: int, train: sources.Source | None) -> np.ndarray | None:
    if not text or (text == "median_frequency" and train is None):
        return None
    if text == "median_frequency":
        return losses.median_frequency_weights(*pipeline.pixel_counts(train))
    try:
        weights = np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError as error:
        raise ConfigError(
            f"loss.class_weights must be empty, median_frequency or numbers with commas, got {text!r}."
        ) from error
    if train is None:
        return None
    if len(weights) != metrics.num_confusion_classes(num_classes):
        raise ConfigError(f"loss.class_weights has {len(weights)} numbers, but there are {num_classes} classes.")
    return weights


def load_problem(config: ConfigDict) -> Problem:
    """Opens the training and validation data and checks that the config agrees with them.

    Raises:
        ConfigError: if model.num_classes is not what the data has.
        DataError: if the data cannot be opened, or a split is empty.
    """
    train = sources.make_source(config, config.data.train_split)
    val = sources.make_source(config, config.data.val_split)
    names = train.info.classes
    num_classes = config.model.num_classes or len(names)
    if metrics.num_confusion_classes(num_classes) != len(names):
        raise ConfigError(
            f"model.num_classes is {num_classes}, but {config.data.source} has {len(names)} classes "
            f"({', '.join(names)}); leave it 0 to take them from the data."
        )
    return Problem(train, val, num_classes)


def make_prepare(config: ConfigDict) -> Prepare:
    """Returns raw images [b,h,w,c] -> network input, as evaluation and prediction use it."""

    def prepare(image: jax.Array) -> jax.Array:
        return augment.normalize(to_unit(image), config.data.mean, config.data.std)

    return prepare


def make_augment(config: ConfigDict) -> Augment:
    """Returns (key, raw image, label) -> (network input, label) for one example, as training uses it."""
    augment_unit = augment.from_config(config.augment)

    def augment_example(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        image, label = augment_unit(key, to_unit(image), label)
        return augment.normalize(image, config.data.mean, config.data.std), label

    return augment_example
