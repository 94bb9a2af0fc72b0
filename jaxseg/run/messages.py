"""The first and the last words of a training run on the console."""

import shlex
from pathlib import Path

import jax

from jaxseg.adversarial import segmenter_of
from jaxseg.config import ConfigDict
from jaxseg.data import sources
from jaxseg.errors import DataError
from jaxseg.run.data import Problem
from jaxseg.state import TrainState, count_parameters


def opening_words(config: ConfigDict, problem: Problem, state: TrainState, start: int) -> str:
    """Returns what this start trains, on what."""
    parameters = count_parameters(segmenter_of(state).params)
    return (
        f"{config.model.name}: {parameters:,} parameters; "
        f"{config.data.source}: {len(problem.train)} training and {len(problem.val)} validation images, "
        f"{len(problem.train.info.classes)} classes; {jax.device_count()} {jax.default_backend()} device(s), "
        f"{config.strategy}" + (f"; resuming after step {start}" if start else "")
    )


def closing_words(config: ConfigDict, workdir: Path) -> str:
    """Where everything of a run that has ended is, and what to do next."""
    workdir = workdir.relative_to(Path.cwd()) if workdir.is_relative_to(Path.cwd()) else workdir
    names = {"checkpoints": "checkpoints", "log": "log.jsonl", "curves": "curves.png", "predictions": "predictions.png"}
    lines = [f"{name + ':':<13}{workdir / file}" for name, file in names.items() if (workdir / file).exists()]
    try:
        sources.make_source(config, "test")
        split = "test"
    except DataError:
        split = "val"
    where = shlex.quote(str(workdir))
    lines += [
        f"evaluate:    python -m jaxseg.evaluate --workdir {where} --split {split}  (the best checkpoint)",
        f"predict:     python -m jaxseg.predict --workdir {where} IMAGES... --out preds/",
    ]
    return "\n".join(lines)
