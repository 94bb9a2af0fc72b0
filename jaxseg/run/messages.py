"""The first and the last message of a training run on the console."""

import shlex
from pathlib import Path

import jax

from jaxseg.adversarial import segmenter_of
from jaxseg.config import ConfigDict
from jaxseg.data import sources
from jaxseg.errors import DataError
from jaxseg.run.data import Problem
from jaxseg.state import TrainState, count_parameters


def opening_message(config: ConfigDict, problem: Problem, state: TrainState, start: int) -> str:
    """Returns the line that describes the network, the data and the devices; `start` is the number of steps made."""
    parameters = count_parameters(segmenter_of(state).params)
    return (
        f"{config.model.name}: {parameters:,} parameters; "
        f"{config.data.source}: {len(problem.train)} training and {len(problem.val)} validation images, "
        f"{len(problem.train.info.classes)} classes; {jax.device_count()} {jax.default_backend()} device(s), "
        f"{config.strategy}" + (f"; resuming after step {start}" if start else "")
    )


def closing_message(config: ConfigDict, workdir: Path) -> str:
    """Returns the lines that list the files of a finished run and the commands to evaluate it and to predict."""
    workdir = workdir.relative_to(Path.cwd()) if workdir.is_relative_to(Path.cwd()) else workdir
    names = {"checkpoints": "checkpoints", "log": "log.jsonl", "curves": "curves.png", "predictions": "predictions.png"}
    lines = [f"{name + ':':<13}{workdir / file}" for name, file in names.items() if (workdir / file).exists()]
    try:
        sources.make_source(config, "test")
        split = "test"
    except DataError:
        split = "val"
    quoted = shlex.quote(str(workdir))
    lines += [
        f"evaluate:    python -m jaxseg.evaluate --workdir {quoted} --split {split}  (the best checkpoint)",
        f"predict:     python -m jaxseg.predict --workdir {quoted} IMAGES... --out preds/",
    ]
    return "\n".join(lines)
