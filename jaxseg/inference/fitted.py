"""What is found on a split for a trained run and kept in a file of its workdir, such as a temperature or thresholds."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax

from jaxseg import parallel
from jaxseg.data import make_eval_loader
from jaxseg.errors import ConfigError, counted, naming_lack_of_memory
from jaxseg.files import read_json
from jaxseg.inference.folded import fold_run
from jaxseg.inference.other_data import open_split
from jaxseg.inference.predictor import make_predictor
from jaxseg.inference.progress import progress
from jaxseg.inference.score import score
from jaxseg.inference.score_images import score_images
from jaxseg.run.load import Run, require_single
from jaxseg.run.workdir import write_or_refuse
from jaxseg.state import Network
from jaxseg.step import Measure

Fit = TypeVar("Fit")


def sums_over_split(
    run: Run,
    split: str,
    measures: Mapping[str, Measure],
    *,
    label: str,
    model_of: Callable[[Network], Network] = lambda model: model,
) -> tuple[dict[str, Any], int]:
    """Returns the sums of the measures over a split, each image at its native size, and the number of images.

    Args:
        run: whose network scores the images, whole or by `eval.tiles`.
        split: see `inference.evaluate`.
        measures: by name, as `Parts.eval_step` takes them.
        label: of the progress bar.
        model_of: the network of the run -> the one that takes its place.

    Raises:
        DataError: if the data is missing or empty, or its classes are not those of the run.
        OutOfMemoryError: if a batch does not fit into the device's memory.
    """
    require_single(run, f"A fit of {label}")
    config, source = run.config, open_split(run, split)
    if config.eval.tiles:
        predictor = make_predictor([run], tiles=config.eval.tiles, overlap=config.eval.overlap)
        members = tuple(dataclasses.replace(m, model=model_of(m.model)) for m in predictor.networks.members)
        predictor = dataclasses.replace(predictor, networks=dataclasses.replace(predictor.networks, members=members))
        with progress(f"{label} {split}", total=len(source)) as bar:
            timed = score_images(source, predictor.scores, run.parts.loss, measures=measures, progress=bar.update)
        return timed.result.measures, timed.result.images
    strategy = parallel.make_strategy("jit", {}, options=config.compile.options)
    model, state = fold_run(run)
    eval_step = strategy.compile_eval(run.parts.eval_step(measures, model=model_of(model)))
    devices = jax.device_count()
    loader = make_eval_loader(
        source,
        batch_size=-(-config.eval.batch_size // devices) * devices,
        size=config.data.size,
        fit=config.data.fit,
        multiple=config.eval.multiple,
    )
    lacking = naming_lack_of_memory("A batch of the evaluation", "give a smaller eval.batch_size")
    with lacking, progress(f"{label} {split}", total=len(source)) as bar:
        result = score(
            eval_step, strategy.put_state(state), loader, loss=run.parts.loss, strategy=strategy, progress=bar.update
        )
    return result.measures, result.images


def write_fit(run: Run, name: str, content: Mapping[str, Any]) -> Path:
    """Writes a file of JSON into the workdir of a run, atomically; returns its path.

    Raises:
        ConfigError: if it cannot be written.
    """
    path = run.workdir / name
    write_or_refuse(path, dict(content))
    return path


def fit_command(run: Run, option: str) -> str:
    """Returns the words for the command that makes a file, from its option and what this does: "--fit-x finds them"."""
    return f"jaxseg evaluate --workdir {shlex.quote(str(run.workdir))} {option}"


def read_fit(run: Run, name: str, option: str, *, holds: str, parse: Callable[[Any], Fit]) -> Fit:
    """Returns what a file in the workdir of a run holds, if it was made for this checkpoint of the run.

    Args:
        run: the run.
        name: of the file.
        option: see `fit_command`.
        holds: what the file holds, for messages.
        parse: the content -> the result; a KeyError, TypeError or ValueError of it says that the file holds none.

    Raises:
        ConfigError: if there is no such file, it cannot be read, or it was made for another checkpoint.
    """
    path, command = run.workdir / name, fit_command(run, option)
    if not path.is_file():
        raise ConfigError(f"There is no {path}: {command}.")
    try:
        content = read_json(path)
        value, step = parse(content), int(content["step"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ConfigError(f"{path} holds no {holds}; delete it, and {command}.") from error
    if step != run.step:
        raise ConfigError(
            f"{path} was made for the network after {counted(step, 'step')}, and this one has {run.step}; {command}."
        )
    return value
