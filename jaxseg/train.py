"""Trains a segmentation network.

    python -m jaxseg.train --config experiments/resunet.py [--workdir DIR] [--config.KEY=VALUE ...]

The same command resumes a run that was stopped, and ends with bit-for-bit the same parameters as without the stop.
"""

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from jaxseg import build, compiler, metrics, parallel, pictures
from jaxseg.api.start import TrainModule
from jaxseg.arguments import expanded
from jaxseg.build import Parts
from jaxseg.config import ConfigDict, command, to_dict, validate
from jaxseg.data import pipeline
from jaxseg.data.images import read_image
from jaxseg.errors import naming_lack_of_memory
from jaxseg.inference.predictor import Predictor, tiled_predictor
from jaxseg.inference.samples import distances, draw_samples
from jaxseg.inference.score import Result, score
from jaxseg.inference.score_images import score_images
from jaxseg.inference.segment import Segmentation, make_segmenter
from jaxseg.parallel import Strategy
from jaxseg.run import gradients, messages
from jaxseg.run.check import check
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.data import (
    Problem,
    load_problem,
    record_data,
    train_batches,
    with_steps_of_epochs,
    with_stored_division,
)
from jaxseg.run.drawing import drawing
from jaxseg.run.lock import training_lock
from jaxseg.run.loop import asked_to_stop, require_finite, require_finite_loss, what_is_due
from jaxseg.run.programs import Programs, compiled_step, make_programs
from jaxseg.run.provenance import command_line, end_record, run_record
from jaxseg.run.quantised import require_float
from jaxseg.run.report import LOG_FILE, Reporter, read_log
from jaxseg.run.signals import stop_on_signal
from jaxseg.run.teacher import read_teacher, with_teacher
from jaxseg.run.weights import Planned, initial_state, plan_weights
from jaxseg.run.workdir import CHECKPOINTS, default_workdir, holds_checkpoint, make_workdir, write_config
from jaxseg.state import TrainState, keys_of_seed


def main(argv: Sequence[str] | None = None, program: str = messages.PROGRAM) -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def body() -> int:
        options, config = command.parse_command_line(argv, program, "Train a segmentation network.", _add_options)
        parallel.join_hosts(options.coordinator, options.processes, options.process)
        compiler.keep_programs(config.compile.cache)
        check(config, before_training=True)
        workdir = expanded(options.workdir) if options.workdir else default_workdir(options.config)
        train(config, workdir, f"{program} {shlex.join(argv)}", program)
        return 0

    return command.run_command(body)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        default="",
        help="for several hosts: the address of process 0, or auto (Slurm, Open MPI, Kubernetes, Cloud TPU); start the "
        "same command on each host",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="number of processes; auto needs none")
    parser.add_argument("--process", type=int, metavar="I", help="index of this process, 0 to N-1; auto needs none")


@dataclass(frozen=True)
class Session:
    """Everything that the training loop uses and does not change: all but the training state.

    Attributes:
        parts: the pure parts of the run.
        problem: its data.
        strategy: how the steps are compiled and the arrays placed on devices.
        programs: the initialisation and the training step.
        eval_step: the compiled step of evaluation.
        segment, tiled: apply the network to one image of any size; `tiled` in tiles, where `eval.tiles` is set.
        batches, validation: the data loaders of training and of evaluation.
        workdir: the directory of the run.
        checkpoints, reporter: write to this directory.
    """

    parts: Parts
    problem: Problem
    strategy: Strategy
    programs: Programs
    eval_step: Callable[..., Any]
    segment: Callable[..., Segmentation]
    tiled: Predictor | None
    batches: Any
    validation: Any
    workdir: Path
    checkpoints: Checkpoints
    reporter: Reporter

    @property
    def config(self) -> ConfigDict:
        return self.parts.config

    def variables(self, state: TrainState) -> dict[str, Any]:
        """Returns the variables of the network alone, of a placed state."""
        return self.parts.deployed(self.strategy.get_state(state)).variables

    def evaluate(self, state: TrainState) -> Result:
        """Scores the validation split."""
        if self.tiled is not None:
            tiled = self.tiled.with_variables(self.variables(state))
            return score_images(self.problem.val, tiled.scores, self.parts.loss).result
        return score(self.eval_step, state, self.validation, loss=self.parts.loss, strategy=self.strategy)


def train(config: ConfigDict, workdir: Path, resume: str, program: str = messages.PROGRAM) -> Result | None:
    """Trains, evaluates and reports; returns the last evaluation, or None if a signal stopped the run before its end.

    Args:
        config: a validated configuration.
        workdir: the directory of the run; if it holds a run, this run is resumed.
        resume: the command or call that starts this run; the message after a stop shows it.
        program: how the training was called, such as "jaxseg train"; the last message names commands of this form.

    Raises:
        ConfigError: if another process trains in the workdir, it holds a run with another configuration, the data do
            not agree with the configuration, or the weights to start from do not fit.
        DataError: if the data cannot be read.
        CheckpointError: if a checkpoint cannot be written, or belongs to another model.
        NotFiniteError: if the loss, the gradient or a parameter is NaN or infinite.
        OutOfMemoryError: if a step or an evaluation does not fit into the device's memory.
        SystemExit: if a signal comes before the first step or after the last save, when there is nothing to save.
    """
    began = time.monotonic()
    require_float(workdir, "training")
    if not holds_checkpoint(workdir):
        validate(config)
    config = with_stored_division(config, workdir)
    problem = load_problem(config)
    config, taught = read_teacher(with_steps_of_epochs(config, len(problem.train), workdir))
    strategy = build.make_strategy(config)
    parts = build.build_parts(config, problem.num_classes, axis_name=strategy.axis_name)
    parts = with_teacher(parts, taught, problem.train.info.classes)
    planned = None if holds_checkpoint(workdir) else plan_weights(parts)
    programs = make_programs(parts, strategy)
    workdir = make_workdir(workdir)

    with (
        naming_lack_of_memory("A training step or its evaluation", messages.LESS_MEMORY),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(training_lock(workdir))
        write_config(workdir, config)
        data = record_data(workdir, config, problem)
        if data.class_weights is not None or data.class_prior is not None or data.hierarchy.levels:
            parts = parts.with_loss_of_data(data.class_weights, data.class_prior, data.hierarchy.levels)
            programs = replace(programs, train_step=compiled_step(parts, strategy))
        session = open_session(parts, problem, strategy, programs, workdir, stack)
        stop = stack.enter_context(stop_on_signal())
        command = resume if program == messages.FROM_PYTHON else command_line() or resume
        state, key, start = start_or_resume(session, planned, command)
        result = None
        stop.finishing = "finishing this step, then saving"
        for step in range(start + 1, config.steps + 1):
            batch = next(session.batches)
            # The copy to the device overlaps with the step before, which the host has not waited for.
            placed = strategy.put_batch({name: batch[name] for name in ("image", "label")})
            called = time.monotonic()
            state, step_metrics = session.programs.train_step(state, placed, key)
            if step == start + 1:
                session.reporter.message(f"compiled the step in {time.monotonic() - called:.1f} s")
            # The reporter returns the metrics of the step before, so that the device never waits for the host.
            done = session.reporter.train(step, strategy.first(step_metrics), config.batch_size)
            require_finite(done, session.checkpoints)

            if step == config.steps:
                stop.finishing = "the last step is done; scoring and saving it, then the run ends"
            due = what_is_due(config, step, stop)
            if not due.anything:
                continue
            require_finite(session.reporter.flush(), session.checkpoints)  # before anything is saved
            if due.evaluation:
                result = evaluate(session, state, step)
            stopping = due.stop or (due.evaluation and asked_to_stop(config, step, stop))
            save(session, state, step, result if due.evaluation else None)
            if due.evaluation and not stopping:
                draw_predictions(session, state, step)
            if stopping and step < config.steps:
                session.checkpoints.wait()
                session.reporter.message(f"Stopped after step {step} as asked. To resume from there: {resume}")
                return None
        session.checkpoints.wait()
        stop.finishing = ""
        return close(session, state, start, result, began, program)


def open_session(
    parts: Parts,
    problem: Problem,
    strategy: Strategy,
    programs: Programs,
    workdir: Path,
    stack: contextlib.ExitStack,
) -> Session:
    """Compiles the evaluation, and opens the data loaders, checkpoints and reporter; `stack` closes them."""
    config = parts.config
    batches = train_batches(config, problem.train)
    validation = pipeline.make_eval_loader(
        problem.val,
        batch_size=config.eval.batch_size,
        multiple=config.eval.multiple,
        size=config.data.size,
        fit=config.data.fit,
    )
    checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=config.checkpoint.keep, config=to_dict(config))
    reporter = Reporter(
        workdir,
        every=config.log.every,
        tensorboard=config.log.tensorboard,
        classes=problem.train.info.classes,
        advice=messages.quicker(config),
    )
    return Session(
        parts=parts,
        problem=problem,
        strategy=strategy,
        programs=programs,
        eval_step=strategy.compile_eval(parts.eval_step()),
        segment=make_segmenter(parts),
        tiled=tiled_predictor(parts) if config.eval.tiles else None,
        checkpoints=stack.enter_context(checkpoints),
        reporter=stack.enter_context(reporter),
        batches=stack.enter_context(batches),
        validation=validation,
        workdir=workdir,
    )


def start_or_resume(session: Session, planned: Planned | None, command: str) -> tuple[TrainState, jax.Array, int]:
    """Returns the state of the newest checkpoint or an initial one, the PRNG key of all steps, and the steps made.

    Data order, augmentation, dropout and initialisation all derive from one seed. `run.json` records the command.
    """
    parts = session.parts
    strategy = session.strategy
    reporter = session.reporter
    init_key, step_key = keys_of_seed(parts.config.seed)
    restored = session.checkpoints.restore(session.programs.state)
    if restored is None:
        host_state, origins = initial_state(parts, init_key, planned or plan_weights(parts), session.programs.init)
        start = 0
        window = None
    else:
        host_state = restored.state
        origins = []  # the first start has recorded the weights
        start = restored.step
        window = restored.log
        session.batches.set_state(restored.iterator_state)
    state = strategy.put_state(host_state)
    key = strategy.put_key(step_key)
    weights = [origin._asdict() for origin in origins]
    run_record(session.workdir, parts.config, step=start, weights=weights, command=command)
    reporter.start(start, parts.config.steps, window)
    reporter.message(messages.opening_message(parts.config, session.problem, strategy.get_state(state), start))
    for origin in origins:
        reporter.message(str(origin))
    if start < parts.config.steps:
        reporter.message("compiling the step; this takes a while unless an earlier run has compiled the same one")
    return state, key, start


def evaluate(session: Session, state: TrainState, step: int) -> Result:
    """Scores the validation split and reports the scores."""
    result = session.evaluate(state)
    if result.confusion.any():
        require_finite_loss(result.loss, step, session.checkpoints)
    more = distances(session.parts, lambda: session.variables(state), session.problem)
    more |= session.parts.sparsity(lambda: session.variables(state))
    session.reporter.evaluation(step, metrics.scores(result.confusion), result.loss, "val", more)
    return result


def save(session: Session, state: TrainState, step: int, result: Result | None) -> None:
    """Saves the state, the data iterator and the reporter's sums; `result` is the evaluation of this step, or None."""
    quality = None if result is None else {"mean_iou": metrics.scores(result.confusion).mean_iou}
    host_state = session.strategy.get_state(state)
    window = session.reporter.open_window()
    session.checkpoints.save(step, host_state, session.batches.get_state(), quality, log=window)


def close(session: Session, state: TrainState, start: int, result: Result | None, began: float, program: str) -> Result:
    """Draws the curves, reports the final scores and the files of the run; returns the last evaluation."""
    config = session.config
    reporter = session.reporter
    if result is None:  # the run had ended before; its last evaluation is repeated
        result = session.evaluate(state)
        draw_predictions(session, state, config.steps)
    if jax.process_index() == 0:
        with drawing(reporter):
            pictures.curves(read_log(session.workdir / LOG_FILE), session.workdir / "curves.png")
        with drawing(reporter):
            gradients.draw_run(session.parts, session.workdir)
    seconds = time.monotonic() - began
    scores = metrics.scores(result.confusion)
    if start < config.steps:
        end_record(session.workdir, step=config.steps, seconds=seconds, mean_iou=scores.mean_iou)
    table = metrics.table(scores, session.problem.train.info.classes)
    reporter.message(f"Scores of the last step, {config.steps}, on {config.data.val_split}:\n{table}")
    reporter.message(messages.steps_message(start, config.steps, seconds))
    reporter.message(messages.closing_message(config, session.workdir, program))
    return result


def draw_predictions(session: Session, state: TrainState, step: int) -> None:
    """Draws samples, and the first validation images with truth, prediction and error, to PNG files and TensorBoard."""
    if jax.process_count() > 1:  # one process cannot apply a state of several
        return
    variables = session.variables(state)
    draw_samples(session.parts, variables, session.workdir, session.reporter, step)
    source = session.problem.val
    examples = [source[index] for index in range(min(session.config.log.images, len(source)))]
    if not examples:
        return
    path = session.workdir / "predictions.png"
    with drawing(session.reporter):
        images, truths = ([example[name] for example in examples] for name in ("image", "label"))
        predictions = [session.segment(variables, image).classes for image in images]
        pictures.prediction_sheet(images, truths, predictions, source.info.colors, source.info.classes, path)
        session.reporter.picture(step, "predictions", read_image(path))


sys.modules[__name__].__class__ = TrainModule  # jaxseg.train(...) works, as the module and its functions do

if __name__ == "__main__":
    sys.exit(main())
