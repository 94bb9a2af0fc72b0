"""The data of a run: the training and validation splits, the number of classes, and the class weights of the loss."""

import copy
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxseg import build, losses, metrics
from jaxseg.arguments import expanded
from jaxseg.config import (
    KEYS,
    ConfigDict,
    require_pruning_within_steps,
    require_short_warmup,
    set_key,
    with_values,
)
from jaxseg.data import pipeline, sources
from jaxseg.data.base import Source
from jaxseg.data.class_counts import image_amounts, label_counts, pixel_counts
from jaxseg.data.evaluation import label_sizes
from jaxseg.data.hierarchy import Hierarchy, hierarchy_of, read_parents
from jaxseg.data.joined import Joined
from jaxseg.data.labelled import PartlyLabelled
from jaxseg.data.notes import note
from jaxseg.data.proposals import proposals_of, require_apart
from jaxseg.data.reading import Reading
from jaxseg.data.sampling import Order, area_order, rare_class_order
from jaxseg.errors import ConfigError, counted
from jaxseg.pieces import require_annealing_within_steps
from jaxseg.run.lists import files_of, record_digests, record_files, record_labelled, record_proposals
from jaxseg.run.stored_encoder import resumed_config
from jaxseg.run.workdir import (
    RunData,
    data_record,
)


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

    For "median_frequency" and "effective_number" they come from the pixels of each class in `train`.

    Raises:
        ConfigError: if the key is neither a known name nor one number for each class, or no pixel of `train` is
            labelled.
    """
    text = config.loss.class_weights
    if not text:
        return None
    beta = build.parse_effective_number(text)
    try:
        if text == "median_frequency":
            return losses.median_frequency_weights(*pixel_counts(train, reading_of(config)))
        if beta is not None:
            return losses.effective_number_weights(image_amounts(label_counts(train, reading_of(config))), beta)
    except ValueError as error:
        raise ConfigError(f"loss.class_weights={text}: {error}") from error
    weights = build.parse_class_weights(text)
    if len(weights) != metrics.num_confusion_classes(num_classes):
        raise ConfigError(
            f"loss.class_weights has {counted(len(weights), 'number')}, but there are "
            f"{counted(len(train.info.classes), 'class')}."
        )
    return weights


def class_prior(config: ConfigDict, train: Source) -> np.ndarray | None:
    """Returns the share f64[k] of each class among the labelled pixels of `train`, or None without logit adjustment.

    Raises:
        ConfigError: if no pixel of `train` is labelled.
    """
    if not config.loss.logit_adjustment:
        return None
    counts, _ = pixel_counts(train, reading_of(config))
    if not counts.any():
        raise ConfigError("loss.logit_adjustment needs labelled pixels, and the training split has none.")
    return counts / counts.sum()


def hierarchy(config: ConfigDict, classes: Sequence[str]) -> Hierarchy:
    """Returns the groups of the classes of the key `loss.hierarchy`; without levels if it is empty.

    Raises:
        ConfigError: if the file cannot be read, has a circle, or names something else than classes and their groups.
    """
    file = config.loss.hierarchy
    return hierarchy_of(read_parents(file), classes, file) if file else Hierarchy()


def require_hierarchy(parts: build.Parts, problem: "Problem") -> None:
    """Raises ConfigError if `loss.hierarchy` does not fit the classes of the data, or the loss its levels."""
    levels = hierarchy(parts.config, problem.train.info.classes).levels
    if levels:
        parts.with_loss_of_data(None, None, levels)


def image_order(config: ConfigDict, train: Source) -> Order | None:
    """Returns the order of the training images of the key `data.sampling`; None: every image once an epoch.

    Another order has no epochs; where `epochs`, the log and a plan speak of them, they count as many images as the
    training split has.
    """
    if config.data.sampling == "epochs":
        return None
    if config.data.sampling == "area":
        return area_order(label_sizes(train), config.data.size)
    return rare_class_order(label_counts(train, reading_of(config)), config.data.rare_temperature)


def with_stored_division(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Returns the configuration with the division of the run in `workdir`, where `config` has the default.

    The same command then resumes a run that was started before these keys existed, on the images that it had.
    """
    stored = resumed_config(workdir)
    if stored is None:
        return config
    kept = stored_division(config, stored)
    for key, value in kept.items():
        note(f"The run in {workdir} keeps {key}={value}, with which it was started.")
    return with_values(config, kept) if kept else config


def stored_division(config: ConfigDict, stored: ConfigDict) -> dict[str, str]:
    """Returns {key: value} of a stored run that `config` has as the default, and that hold out other images."""
    keys = [key for key in ("division", "val_group") if config.data[key] == KEYS[f"data.{key}"].default]
    return {f"data.{key}": stored.data[key] for key in keys if stored.data[key] != config.data[key]}


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Returns the steps of a number of epochs, rounded up: epochs · images / batch_size, with every `data.sampling`."""
    return math.ceil(Fraction(str(epochs)) * images / batch_size)  # exact: 0.1 is one tenth


def with_steps_of_epochs(config: ConfigDict, images: int, workdir: Path | None = None) -> ConfigDict:
    """Returns the configuration with the `steps` of its `epochs`; `config` itself if it has none.

    A run that is resumed keeps the steps that it was started with, from which its learning rates follow.

    Args:
        config: a validated configuration.
        images: how many images the training split has.
        workdir: the directory of the run; None if nothing can be in it.

    Raises:
        ConfigError: if `schedule.warmup` or the last pruning step is not below these steps, or EoMT's annealing ends
            after them.
    """
    if not config.epochs:
        return config
    steps = steps_of(config.epochs, images, config.batch_size)
    kept = None if workdir is None else stored_steps(config, workdir)
    if kept not in (None, steps):
        note(
            f"The run in {workdir} keeps the {counted(kept or 0, 'step')} that it was started with; of the "
            f"{counted(images, 'training image')} that there are now, epochs={config.epochs:g} would be "
            f"{counted(steps, 'step')}."
        )
    config = copy.deepcopy(config)  # keeps references between keys
    set_key(config, "steps", kept or steps)
    for require in (require_short_warmup, require_pruning_within_steps, require_annealing_within_steps):
        require(config, f" ({epochs_message(config, images)})")
    return config


def stored_steps(config: ConfigDict, workdir: Path) -> int | None:
    """Returns the steps of the run in `workdir` if it has the epochs and the batch size of `config`, else None."""
    stored = resumed_config(workdir)
    if stored is None:
        return None
    same = (stored.epochs, stored.batch_size) == (config.epochs, config.batch_size)
    return stored.steps if same else None


def epochs_message(config: ConfigDict, images: int) -> str:
    """Returns the words "12 epochs of 367 images in batches of 8 are 551 steps"."""
    epochs, verb = counted(config.epochs, "epoch"), "is" if config.epochs == 1 else "are"
    of_images = f"of {counted(images, 'image')} in batches of {config.batch_size}"
    return f"{epochs} {of_images} {verb} {counted(config.steps, 'step')}"


def load_problem(config: ConfigDict) -> Problem:
    """Opens the training and validation data.

    Raises:
        DataError: if they cannot be opened, a split is empty, or their classes are not those of the configuration.
    """
    train = sources.training_source(config)
    val = sources.make_source(config, config.data.val_split)
    if config.data.proposals:
        require_apart(train, val)
    return Problem(train, val, config.model.num_classes or len(train.info.classes))


def train_batches(config: ConfigDict, train: Source) -> pipeline.TrainLoader:
    """Returns the endless batches of the training split."""
    return pipeline.make_train_loader(
        train,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.data.workers,
        prefetch=config.data.prefetch,
        channels=config.data.channels,
        size=config.data.size,
        fit=config.data.fit,
        labelled_rows=config.data.labelled_rows,
        unit=2 * config.accumulate,
        order=image_order(config, train),
        reading=reading_of(config),
    )


def reading_of(config: ConfigDict) -> Reading:
    """Returns what to do about a training image that cannot be read; of a validation image only the limit applies."""
    return Reading(config.data.on_error, config.data.timeout)


def image_type(config: ConfigDict, train: Source) -> np.dtype:
    """Returns the type of the training images, u8 or u16: that of the first one, with "skip" of the first that can be
    read.

    Raises:
        DataError: if it cannot be read.
    """
    return reading_of(config).image_type(train)


def record_data(workdir: Path, config: ConfigDict, problem: Problem) -> RunData:
    """Records the classes of a new run's data, which images keep their labels where others lose them, and which
    proposals joined.

    Of a resumed run, returns its record after comparing the data.
    """
    info = problem.train.info
    if files := files_of(problem.train):
        record_files(workdir, files, config.data.on_error)
        record_digests(workdir, expanded(config.data.dir), files)
    split = problem.train.source if isinstance(problem.train, Joined) else problem.train
    if isinstance(split, PartlyLabelled):
        record_labelled(workdir, [split.name(index) for index in split.labelled])
    if proposals := proposals_of(problem.train):
        record_proposals(workdir, [f"{proposal.digest} {proposal.name}" for proposal in proposals])
    return data_record(
        workdir,
        classes=info.classes,
        colors=info.colors,
        num_classes=problem.num_classes,
        values=info.values,
        color_masks=info.color_masks,
        weigh=lambda: class_weights(config, problem.num_classes, problem.train),
        prior=lambda: class_prior(config, problem.train),
        hierarchy=lambda: hierarchy(config, info.classes),
        labels=isinstance(split, PartlyLabelled),
    )
