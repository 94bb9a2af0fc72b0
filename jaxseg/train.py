"""Trains a segmentation network: the whole story, top to bottom.

    python -m jaxseg.train --config experiments/resunet.py [--workdir DIR] [--config.KEY=VALUE ...]

Starting the same command again resumes the run where it was cut off, and ends in bit-for-bit the same parameters.
"""

import argparse
import shlex
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxseg import build, compiler, metrics, optim, parallel, pictures
from jaxseg.adversarial import segmenter_of
from jaxseg.config import ConfigDict, command, to_dict
from jaxseg.data import pipeline, sources
from jaxseg.data.images import read_image
from jaxseg.errors import ConfigError, DataError, NotFiniteError
from jaxseg.inference.score import Result, score
from jaxseg.inference.segment import Segmentation, make_segmenter
from jaxseg.inference.trained import TrainedRun, load
from jaxseg.run import gradients
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.provenance import end_record, run_record
from jaxseg.run.report import LOG_FILE, Reporter, StepMetrics, read_log
from jaxseg.run.signals import stop_on_signal
from jaxseg.run.weights import initial_state, plan_weights
from jaxseg.run.workdir import CHECKPOINTS, data_record, default_workdir, holds_checkpoint, prepare_workdir
from jaxseg.state import TrainState, count_parameters, init_state
from jaxseg.step import make_eval_step, make_train_step


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.train") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def body() -> int:
        options, config = command.parse_command_line(argv, program, "Train a segmentation network.", _add_options)
        parallel.join_hosts(options.coordinator, options.processes, options.process)
        compiler.keep_programs(config.compile.cache)
        build.check(config)
        workdir = Path(options.workdir) if options.workdir else default_workdir(options.config)
        train(config, workdir, f"{program} {shlex.join(argv)}")
        return 0

    return command.run_command(body)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", default="",
        help="several hosts: where process 0 listens, or auto (Slurm, Open MPI, Kubernetes, Cloud TPU); start the same "
        "command on each",
    )  # fmt: skip
    parser.add_argument("--processes", type=int, metavar="N", help="how many processes there are, without auto")
    parser.add_argument("--process", type=int, metavar="I", help="which of them this is, 0 to N-1, without auto")


def train_experiment(
    experiment: str | Path | ConfigDict, workdir: str | Path | None = None, **overrides: Any
) -> TrainedRun:
    """Trains as the command line does, or resumes; returns the run with its best checkpoint, ready to predict.

    `jaxseg.train(...)` calls this. A run that a signal stops is returned with what it has saved.

    Args:
        experiment: `FILE.py[:ARG]`, or a configuration that starts from `jaxseg.config.default_config()`.
        workdir: where the run is kept; None: runs/EXPERIMENT, as the command line has it.
        **overrides: configuration keys, as `**{"data.dir": "photos"}` or `data__dir="photos"`; text is read as on the
            command line.

    Raises:
        JaxsegError: whatever the command line prints as an error.
    """
    config = command.configure(experiment, overrides)
    if workdir is None and isinstance(experiment, ConfigDict):
        raise ConfigError("Give a workdir: a configuration has no file that the default could be named after.")
    workdir = default_workdir(str(experiment)) if workdir is None else Path(workdir).expanduser()
    compiler.keep_programs(config.compile.cache)
    build.check(config)
    train(config, workdir, "call jaxseg.train with the same arguments")
    return load(workdir)


def train(config: ConfigDict, workdir: Path, resume: str) -> Result | None:
    """Trains, evaluates and reports; returns the last evaluation, or None when a signal stopped the run before the end.

    Args:
        config: a validated configuration.
        workdir: where the run is kept; a run that is there already is resumed.
        resume: the command that starts this run, to say how a run that was stopped goes on.

    Raises:
        ConfigError: if the workdir holds a run of another configuration, the data disagree with this one, or the
            weights to start from do not fit.
        DataError: if the data cannot be read.
        CheckpointError: if a checkpoint cannot be written, or is another model's.
        NotFiniteError: if the loss or the gradient stops being finite.
        SystemExit: by a signal before the first step or after the last is saved, when there is nothing to save.
    """
    began = time.monotonic()
    problem = build.load_problem(config)
    info, num_classes = problem.train.info, problem.num_classes
    planned = None if holds_checkpoint(workdir) else plan_weights(config, num_classes)
    workdir = prepare_workdir(workdir, config)
    class_weights = data_record(
        workdir,
        classes=info.classes,
        colors=info.colors,
        num_classes=num_classes,
        weigh=lambda: build.class_weights(config, num_classes, problem.train),
    ).class_weights

    # The pure parts: model, loss and optimiser, and the steps made of them.
    strategy = build.make_strategy(config)
    axis = strategy.axis_name
    model = build.make_model(config, num_classes, axis)
    loss = build.make_loss(config, num_classes, class_weights)
    tx, schedule = optim.from_config(config)
    prepare = build.make_prepare(config)
    train_step = strategy.compile_train(
        make_train_step(
            build.make_learner(config, model),
            tx,
            build.make_objective(config, loss),
            augment=build.make_augment(config),
            accumulate=config.accumulate,
            ema_decay=config.ema.decay,
            aux_weight=build.aux_weight(config),
            schedule=schedule,
            gradients=config.log.gradients,
            remat=config.remat,
            axis_name=axis,
        ),
        remat=config.remat,
    )
    eval_step = strategy.compile_eval(make_eval_step(model, loss, prepare=prepare, axis_name=axis))
    segment = make_segmenter(model, config)

    # The data. Order, augmentation, dropout and initialisation all derive from one seed.
    shape = {"size": config.data.size, "fit": config.data.fit}
    batches = pipeline.make_train_loader(
        problem.train,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.data.workers,
        prefetch=config.data.prefetch,
        channels=config.data.channels,
        **shape,
    )
    validation = pipeline.make_eval_loader(
        problem.val, batch_size=config.eval.batch_size, multiple=config.eval.multiple, **shape
    )
    init_key, step_key = jax.random.split(jax.random.key(config.seed))

    def init(key: jax.Array) -> TrainState:
        image_shape = (*build.input_size(config), config.data.channels)
        learner = build.make_learner(config, build.make_model(config, num_classes))
        return init_state(learner, tx, key, image_shape, ema=config.ema.decay > 0)

    with (
        Checkpoints(workdir / CHECKPOINTS, keep=config.checkpoint.keep, config=to_dict(config)) as checkpoints,
        Reporter(workdir, every=config.log.every, tensorboard=config.log.tensorboard, classes=info.classes) as reporter,
        batches,
        stop_on_signal() as stop,
    ):
        restored = checkpoints.restore(jax.eval_shape(init, init_key))
        if restored is None:
            state, origins = initial_state(init, tx, init_key, planned or plan_weights(config, num_classes))
            state, start, planned, window = strategy.put_state(state), 0, None, None
        else:
            origins = []  # whatever the run started from, it has moved on
            state, start, window = strategy.put_state(restored.state), restored.step, restored.log
            batches.set_state(restored.iterator_state)
        key = strategy.put_key(step_key)
        run_record(workdir, config, step=start, weights=[origin._asdict() for origin in origins])
        reporter.start(start, config.steps, window)
        reporter.message(
            f"{config.model.name}: {count_parameters(segmenter_of(strategy.get_state(state)).params):,} parameters; "
            f"{config.data.source}: {len(problem.train)} training and {len(problem.val)} validation images, "
            f"{len(info.classes)} classes; {jax.device_count()} {jax.default_backend()} device(s), {config.strategy}"
            + (f"; going on after step {start}" if start else "")
        )
        for origin in origins:
            reporter.message(str(origin))
        if start < config.steps:
            reporter.message("compiling the step, which takes longest where no earlier start has done it")

        result = None
        stop.finishing = "finishing this step, then saving"
        for step in range(start + 1, config.steps + 1):
            batch = next(batches)
            # On its way to the device while that is busy with the step before, which nothing has waited for yet.
            placed = strategy.put_batch({name: batch[name] for name in ("image", "label")})
            state, step_metrics = train_step(state, placed, key)
            # Metrics are read one step late, while the device is busy with this one.
            _require_finite(reporter.train(step, strategy.first(step_metrics), config.batch_size), checkpoints)

            last = step == config.steps
            if last:
                stop.finishing = "this was the last step; it is scored and saved, which ends the run"
            evaluating = last or step % config.eval.every == 0
            asking = jax.process_count() == 1 or step % config.log.every == 0  # several hosts must ask at one step
            stopping = asking and stop.agreed()
            if not (evaluating or stopping or step % config.checkpoint.every == 0):
                continue
            _require_finite(reporter.flush(), checkpoints)  # nothing broken is ever saved
            quality = None
            if evaluating:
                result = score(eval_step, state, validation, loss=loss, strategy=strategy)
                _require_finite_evaluation(result, step, checkpoints)
                scores = metrics.scores(result.confusion)
                quality = {"mean_iou": scores.mean_iou}
                reporter.evaluation(step, scores, result.loss)
                stopping = stopping or (asking and stop.agreed())
            window = reporter.open_window()
            checkpoints.save(step, strategy.get_state(state), batches.get_state(), quality, log=window)
            if evaluating and not stopping:
                _draw_predictions(config, problem, segment, strategy.get_state(state), workdir, reporter, step)
            if stopping and not last:
                checkpoints.wait()
                reporter.message(f"Stopped after step {step} as asked. To go on from there: {resume}")
                return None
        checkpoints.wait()
        stop.finishing = ""

        if result is None:  # the run had ended before: score it again, to close with the same words
            result = score(eval_step, state, validation, loss=loss, strategy=strategy)
            _draw_predictions(config, problem, segment, strategy.get_state(state), workdir, reporter, config.steps)
        _draw(reporter, lambda: pictures.curves(read_log(workdir / LOG_FILE), workdir / "curves.png"))
        _draw(reporter, lambda: gradients.draw_run(config, num_classes, workdir))
        seconds = time.monotonic() - began
        if start < config.steps:
            end_record(workdir, step=config.steps, seconds=seconds, mean_iou=metrics.scores(result.confusion).mean_iou)
        table = metrics.table(metrics.scores(result.confusion), info.classes)
        reporter.message(f"Scores of the last step, {config.steps}, on {config.data.val_split}:\n{table}")
        if start < config.steps:
            reporter.message(f"{config.steps - start} steps in {seconds / 60:.1f} minutes, compilation included\n")
        else:
            reporter.message(
                f"This run had ended before, after {start} steps: it was only scored again. A longer one has another "
                "learning rate from its first step on: set steps and give another --workdir.\n"
            )
        reporter.message(_closing_words(config, workdir))
    return result


def _require_finite(done: StepMetrics | None, checkpoints: Checkpoints) -> None:
    """Stops the run where the metrics of a step, or the parameters after it, are NaN or infinite."""
    if done is not None and not done.finite:
        what = f"loss {done.loss}, norm of the gradient {done.grad_norm}, norm of the parameters {done.param_norm}"
        raise NotFiniteError(f"The training diverged at step {done.step} ({what}); {_what_to_try(checkpoints)}")


def _require_finite_evaluation(result: Result, step: int, checkpoints: Checkpoints) -> None:
    """Stops the run where the validation loss is NaN or infinite though there are labelled pixels."""
    if result.confusion.sum() and not np.isfinite(result.loss):
        raise NotFiniteError(f"The validation loss is {result.loss} at step {step}; {_what_to_try(checkpoints)}")


def _what_to_try(checkpoints: Checkpoints) -> str:
    checkpoints.wait()
    good = checkpoints.latest_step()
    where = "there is no checkpoint yet" if good is None else f"the last good checkpoint is {checkpoints.path(good)}"
    return (
        f"{where}. Try a lower optimizer.learning_rate, a longer schedule.warmup, optimizer.clip=1, or dtype=float32, "
        "in a new workdir."
    )


def _draw_predictions(
    config: ConfigDict,
    problem: build.Problem,
    segment: Callable[..., Segmentation],
    state: TrainState,
    workdir: Path,
    reporter: Reporter,
    step: int,
) -> None:
    """Draws the first validation images beside truth, prediction and error: predictions.png, and TensorBoard."""
    examples = [problem.val[index] for index in range(min(config.log.images, len(problem.val)))]
    if not examples or jax.process_count() > 1:  # one host alone cannot run a state that is spread over several
        return
    path, info = workdir / "predictions.png", problem.val.info

    def draw() -> None:
        images, truths = [example["image"] for example in examples], [example["label"] for example in examples]
        predictions = [segment(state.variables, image).classes for image in images]
        pictures.prediction_sheet(images, truths, predictions, info.colors, info.classes, path)
        reporter.picture(step, "predictions", read_image(path))

    _draw(reporter, draw)


def _draw(reporter: Reporter, draw: Callable[[], None]) -> None:
    """Draws a picture; one that cannot be written costs a message, never the run."""
    if jax.process_index() == 0:
        try:
            draw()
        except (OSError, MemoryError) as error:
            reporter.message(f"warning: a picture could not be made: {error}.")


def _closing_words(config: ConfigDict, workdir: Path) -> str:
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


class TrainModule(types.ModuleType):
    """This module, which can be called: `jaxseg.train(...)` is `jaxseg.train.train_experiment(...)`.

    Importing the module, which `python -m jaxseg.train` and `from jaxseg import train` do, sets the attribute `train`
    of the package to the module. A function of that name would work only until then; so the module itself is callable.
    """

    def __call__(
        self, experiment: str | Path | ConfigDict, workdir: str | Path | None = None, **overrides: Any
    ) -> TrainedRun:
        return train_experiment(experiment, workdir, **overrides)


TrainModule.__call__.__doc__ = train_experiment.__doc__
sys.modules[__name__].__class__ = TrainModule

if __name__ == "__main__":
    sys.exit(main())
