"""The first and the last message of a training run on the console."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxseg.adversarial import segmenter_of
from jaxseg.config import ConfigDict
from jaxseg.config.config_dict import AnyConfigDict
from jaxseg.data import sources
from jaxseg.data.labelled import labelled_indices
from jaxseg.errors import DataError, counted
from jaxseg.optim import make_selection
from jaxseg.run.data import Problem, epochs_message
from jaxseg.run.workdir import holds_checkpoint
from jaxseg.state import TrainState, by_path, count_parameters

PROGRAM = "python -m jaxseg.train"
"""How the training is called from a shell, unless its caller says otherwise."""

LESS_MEMORY = (
    "try accumulate=2 (the batch in two parts), remat=true or dtype=bfloat16, which keep the batch; or a smaller "
    "batch_size, eval.batch_size or data.size"
)


def less_memory(workdir: Path, resume: str) -> str:
    """Returns what helps a training that lacked memory, and how it goes on: a sentence without its stop.

    Args:
        workdir: of the run.
        resume: the command or call that resumes it.
    """
    saved = "what is saved stays, and the run resumes from it" if holds_checkpoint(workdir) else "the run starts again"
    return f"{LESS_MEMORY}; {saved} by {resume}"


FROM_PYTHON = "jaxseg.train"
"""How it is called from Python."""


def python_call(experiment: str | Path | AnyConfigDict, workdir: str | Path | None, overrides: dict[str, Any]) -> str:
    """Returns the call `jaxseg.train(...)` with these arguments as text; a configuration is called `config` there."""
    values = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
    words = ["config" if isinstance(experiment, AnyConfigDict) else repr(str(experiment))]
    words += [] if workdir is None else [f"workdir={str(workdir)!r}"]
    words += [f"{key}={value!r}" for key, value in values.items() if key.isidentifier()]
    dotted = {key: value for key, value in values.items() if not key.isidentifier()}
    return f"{FROM_PYTHON}({', '.join([*words, f'**{dotted}'] if dotted else words)})"


def opening_message(config: ConfigDict, problem: Problem, state: TrainState, start: int) -> str:
    """Returns the line that describes the network, the data and the devices; `start` is the number of steps made.

    For a new run of a number of epochs, a second line says how many steps these are.
    """
    params = (segmenter_of(state) if config.adversarial.weight else state).params
    selection, known = make_selection(config), by_path(params)
    trained = count_parameters([value for path, value in known.items() if selection.trains(path)])
    parameters = f"{count_parameters(params):,} parameters"
    parameters += "" if selection.everything else f", of which {trained:,} train"
    labelled = len(labelled_indices(problem.train))
    with_labels = f" ({labelled} of them with labels)" if labelled < len(problem.train) else ""
    length = f"\n{epochs_message(config, len(problem.train))}" if config.epochs and not start else ""
    return (
        f"{config.model.name}: {parameters}; "
        f"{config.data.source}: {len(problem.train)} training{with_labels} and "
        f"{counted(len(problem.val), 'validation image')}, "
        f"{counted(len(problem.train.info.classes), 'class')}; "
        f"{counted(jax.device_count(), f'{jax.default_backend()} device')}, "
        f"{config.strategy}" + (f"; resuming after step {start}" if start else "") + length
    )


def moved_message(before: Mapping[str, Any] | None, config: ConfigDict) -> str:
    """Returns a line that compares the devices of the start before this one with those of now; "" if they are the same.

    Args:
        before: that start, an entry of `provenance.read_starts`; None if there was none.
        config: of the run.
    """
    if before is None or "processes" not in before["device"]:
        return ""
    then = before["device"]["count"], before["device"]["processes"], before["config"]["strategy"]
    now = jax.device_count(), jax.process_count(), config.strategy
    if then == now:
        return ""
    were, are = (
        f"{counted(devices, 'device')} of {counted(processes, 'process')} with strategy={strategy}"
        for devices, processes, strategy in (then, now)
    )
    return (
        f"The start before this one had {were}; this one has {are}. Each step has the same images, but sums are taken "
        "in another order: the numbers agree to rounding, not bit for bit."
    )


def steps_message(start: int, steps: int, seconds: float) -> str:
    """Returns what a start has done that came after `start` steps of a run of `steps`, in this time."""
    if start < steps:
        return f"{counted(steps - start, 'step')} in {seconds / 60:.1f} minutes, compilation included\n"
    return (
        f"This run had ended before, after {counted(start, 'step')}; this start only scored it again. A run of more "
        "steps needs another --workdir, since its learning rates differ from the first step on.\n"
    )


def early_message(best: int | None, last: int, config: ConfigDict) -> str:
    """Returns the sentence about a run that `stop.patience` ended after step `last`, with its best checkpoint."""
    kept = "" if best is None else f"; the best checkpoint, which evaluate and predict use, is that of step {best}"
    stale = counted(config.stop.patience, "evaluation")
    return (
        f"Stopped early, after step {last} of {config.steps}: the last {stale} had no higher mIoU "
        f"(stop.patience={config.stop.patience}){kept}."
    )


def commands_of_use(workdir: Path, start: str, split: str = "val") -> tuple[str, str]:
    """Returns the commands that score a run and segment images with it; `start` is "jaxseg " or "python -m jaxseg."."""
    quoted = shlex.quote(str(workdir))
    return (
        f"{start}evaluate --workdir {quoted} --split {split}",
        f"{start}predict --workdir {quoted} IMAGES... --out preds/",
    )


def closing_message(config: ConfigDict, workdir: Path, program: str = PROGRAM) -> str:
    """Returns the lines that list the files of a finished run and say how to use it.

    Args:
        config: of the run.
        workdir: of the run.
        program: how the training was called, such as "jaxseg train"; the commands have the same form.
    """
    workdir = workdir.relative_to(Path.cwd()) if workdir.is_relative_to(Path.cwd()) else workdir
    names = {"checkpoints": "checkpoints", "log": "log.jsonl", "curves": "curves.png", "predictions": "predictions.png"}
    names["samples"] = "samples.png"
    lines = [f"{name + ':':<13}{workdir / file}" for name, file in names.items() if (workdir / file).exists()]
    try:
        sources.make_source(config, "test")
        split = "test"
    except DataError:
        split = "val"
    if program == FROM_PYTHON:
        more = f"jaxseg.train(EXPERIMENT, workdir=OTHER, **{{'model.weights': {str(workdir)!r}}})"
        evaluate = f"run = jaxseg.load({str(workdir)!r}); run.evaluate({split!r})"
        predict, sample = "run.predict('IMAGE')", f"jaxseg.load({str(workdir)!r}, 'last').sample(64)"
    else:
        start, quoted = program.removesuffix("train"), shlex.quote(str(workdir))
        more = f"{start}train --config EXPERIMENT --workdir OTHER --config.model.weights={quoted}"
        evaluate, predict = commands_of_use(workdir, start, split)
        sample = f"{start}predict --workdir {quoted} --samples 64 --out samples/"
        if not config.data.multilabel:
            lines.append(f"look at it:  {start}report {quoted}  (a page: numbers, curves and images)")
    lines.append(f"train more:  {more}  (a new run from the best checkpoint)")
    if (workdir / "samples.png").exists():
        lines.append(f"sample:      {sample}  (images from noise, by the last checkpoint)")
    return "\n".join([*lines, f"evaluate:    {evaluate}  (the best checkpoint)", f"predict:     {predict}"])


def quicker(config: ConfigDict) -> str:
    """Returns what would make the steps of a run quicker on its devices; "" if nothing is known."""
    device = jax.default_backend()
    ways = [
        ("a GPU", device == "cpu"),
        ("dtype=bfloat16", device != "cpu" and config.dtype == "float32"),
        ("remat=false, if the memory allows", config.remat),
        ("accumulate=1, if the memory allows", config.accumulate > 1),
        ("a smaller data.size", True),
    ]
    return " or ".join(way for way, applies in ways if applies)
