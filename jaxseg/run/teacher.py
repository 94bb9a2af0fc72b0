"""The teacher of a run: another run, read when the training starts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.build import Parts, check_distillation
from jaxseg.config import ConfigDict, with_values
from jaxseg.distillation import Teacher, stage_of
from jaxseg.errors import CheckpointError, ConfigError, counted
from jaxseg.files import read_json
from jaxseg.run.weights_source import digest
from jaxseg.run.workdir import TEACHER_FILE, holds_checkpoint, write_or_refuse
from jaxseg.state import by_path


class Taught(NamedTuple):
    """The teacher of a run, and what it knows.

    Attributes:
        teacher: the network.
        classes: the names of its classes.
        num_classes: channels of its logits.
        one_vs_rest: whether it was trained with one sigmoid for each class.
        step: of its checkpoint.
    """

    teacher: Teacher
    classes: tuple[str, ...]
    num_classes: int
    one_vs_rest: bool
    step: int


def read_teacher(config: ConfigDict) -> tuple[ConfigDict, Taught | None]:
    """Reads the run that `distill.teacher` names; returns the configuration with `distill.channels`, and the teacher.

    Raises:
        ConfigError: if it is no run with a readable checkpoint, it takes other images, or it has no such stage.
    """
    c = config.distill
    if not c.teacher:
        return config, None
    check_distillation(config)
    from jaxseg.run.load import load_run  # imports Orbax, which only checkpoints need

    try:
        run = load_run(c.teacher)
    except (ConfigError, CheckpointError) as error:
        raise ConfigError(f"distill.teacher: {error}") from error
    theirs, ours = run.config.data, config.data
    if theirs.multilabel:
        raise ConfigError(
            f"distill.teacher={c.teacher} was trained with data.multilabel={theirs.multilabel}, where a pixel may have "
            "several classes; give a teacher of one class a pixel."
        )
    if theirs.channels != ours.channels:
        raise ConfigError(
            f"distill.teacher={c.teacher}: this run sees images of data.channels={theirs.channels}, the student of "
            f"data.channels={ours.channels}; give a teacher of the same images."
        )
    mean, std = (np.asarray(values, np.float32).reshape(1, 1, 1, -1) for values in (ours.mean, ours.std))
    their_mean, their_std = (np.asarray(v, np.float32).reshape(1, 1, 1, -1) for v in (theirs.mean, theirs.std))
    same = np.array_equal(mean, their_mean) and np.array_equal(std, their_std)

    def to_input(image: jax.Array) -> jax.Array:
        return image if same else (image * std + mean - their_mean) / their_std

    variables = jax.tree.map(np.asarray, run.variables)
    if c.kind == "feature" and not c.channels:
        image = jax.ShapeDtypeStruct((1, *config.data.size, ours.channels), jnp.float32)
        _, out = jax.eval_shape(lambda image: run.model.apply(variables, image, train=False), image)
        name = c.teacher_stage or c.stage
        channels = stage_of(out, name, "distill.teacher_stage" if c.teacher_stage else "distill.stage").shape[-1]
        config = with_values(config, {"distill.channels": channels})
    teacher = Teacher(run.model, variables, to_input)
    return config, Taught(teacher, run.classes, run.num_classes, run.parts.loss.one_vs_rest, run.step)


def with_teacher(parts: Parts, taught: Taught | None, classes: Sequence[str] | None = None) -> Parts:
    """Returns the parts with the teacher of `read_teacher`, if there is one.

    Args:
        parts: of the student.
        taught: the teacher.
        classes: the names of the student's classes; None: they are not known yet.

    Raises:
        ConfigError: if logits are compared and those of the teacher mean other classes.
    """
    c = parts.config.distill
    if taught is None:
        return parts
    way_out = "give a teacher of the same classes, or distill.kind=feature, which compares no classes."
    if c.kind != "feature" and classes is not None and tuple(classes) != taught.classes:
        raise ConfigError(
            f"distill.teacher={c.teacher} knows the classes {', '.join(taught.classes)}, this run has "
            f"{', '.join(classes)}; {way_out}"
        )
    if c.kind != "feature" and parts.num_classes != taught.num_classes:
        raise ConfigError(
            f"distill.teacher={c.teacher} gives {counted(taught.num_classes, 'logit')} a pixel, this run "
            f"{parts.num_classes}; {way_out}"
        )
    if c.kind != "feature" and parts.loss.one_vs_rest != taught.one_vs_rest:
        names = {True: "one sigmoid for each class", False: "a softmax"}
        raise ConfigError(
            f"distill.teacher={c.teacher} was trained with {names[taught.one_vs_rest]}, this run trains "
            f"{names[parts.loss.one_vs_rest]}; give a teacher and a loss of one kind, or distill.kind=feature."
        )
    return replace(parts, teacher=taught.teacher)


def record_teacher(workdir: Path, config: ConfigDict, taught: Taught | None) -> None:
    """Writes what a new run's teacher is to `teacher.json`; compares it where the run is resumed.

    Raises:
        ConfigError: if the run has checkpoints and learned from another teacher, or the file cannot be read or written.
    """
    if taught is None:
        return
    file = workdir / TEACHER_FILE
    now = {"step": taught.step, "sha256": digest(by_path(taught.teacher.variables))}
    if holds_checkpoint(workdir) and file.is_file():
        try:
            before = read_json(file)
            known = {"step": int(before["step"]), "sha256": str(before["sha256"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file} cannot be read; the run cannot tell whether its teacher is the same.") from error
        if known != now:
            raise ConfigError(
                f"The run in {workdir} has learned from a teacher after {counted(known['step'], 'step')}; "
                f"distill.teacher={config.distill.teacher} has other parameters, after {counted(now['step'], 'step')}. "
                "Give the teacher as it was to resume the run, or another --workdir."
            )
    if jax.process_index() == 0:
        write_or_refuse(file, now)
