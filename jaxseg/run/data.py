"""The data of a run: the training and validation splits, the number of classes, and the class weights of the loss."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxseg import build, losses, metrics
from jaxseg.arguments import expanded
from jaxseg.config import KEYS, ConfigDict, from_dict, set_key, to_dict
from jaxseg.data import pipeline, sources
from jaxseg.data.base import Source
from jaxseg.data.notes import note
from jaxseg.errors import ConfigError
from jaxseg.run.workdir import holds_checkpoint, read_config


class Problem(NamedTuple):
    """The data of a run.

    Attributes:
        train: the source of the training split.
        val: the source of the split that training evaluates.
        num_classes: channels of the logits; 1 for a binary problem with one sigmoid logit.
    """

    train: Source
    val: Source
    num_classes: int


def class_weights(config: ConfigDict, num_classes: int, train: Source) -> np.ndarray | None:
    """Returns the class weights f32[k] of the key `loss.class_weights`, or None if it is empty.

    For "median_frequency" they come from the pixels of each class in `train`.

    Raises:
        ConfigError: if the key is neither a known name nor one number for each class.
    """
    text = config.loss.class_weights
    if not text:
        return None
    if text == "median_frequency":
        counts = pipeline.pixel_counts(train)
        try:
            return losses.median_frequency_weights(*counts)
        except ValueError as error:
            raise ConfigError(f"loss.class_weights=median_frequency: {error}") from error
    weights = build.parse_class_weights(text)
    if len(weights) != metrics.num_confusion_classes(num_classes):
        raise ConfigError(
            f"loss.class_weights has {len(weights)} numbers, but there are {len(train.info.classes)} classes."
        )
    return weights


def with_stored_division(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Returns the configuration with the `data.division` of the run in `workdir`, if `config` has the default.

    The same command then resumes a run that was started before the key existed, on the images that it had.
    """
    default = KEYS["data.division"].default
    if not holds_checkpoint(workdir) or config.data.division != default:
        return config
    try:
        stored = read_config(expanded(workdir)).data.division
    except ConfigError:  # `write_config` reports it
        return config
    if stored == default:
        return config
    note(f"The run in {workdir} keeps data.division={stored}, with which it was started.")
    kept = from_dict(to_dict(config))
    set_key(kept, "data.division", stored)
    return kept


def load_problem(config: ConfigDict) -> Problem:
    """Opens the training and validation data.

    Raises:
        DataError: if they cannot be opened, a split is empty, or their classes are not those of the configuration.
    """
    train = sources.make_source(config, config.data.train_split)
    val = sources.make_source(config, config.data.val_split)
    return Problem(train, val, config.model.num_classes or len(train.info.classes))
