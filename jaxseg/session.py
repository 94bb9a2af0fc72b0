"""What a training has open while it runs, and what it does besides its steps: start, score, save, draw, end."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from jaxseg import metrics, pictures
from jaxseg.build import Parts
from jaxseg.config import ConfigDict, to_dict
from jaxseg.data import pipeline
from jaxseg.data.evaluation import label_sizes
from jaxseg.data.fingerprint import fingerprint
from jaxseg.data.images import read_image
from jaxseg.data.reading import Reading
from jaxseg.errors import ConfigError, counted
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.samples import distances, draw_samples
from jaxseg.inference.score import Result, score
from jaxseg.inference.score_images import score_images
from jaxseg.inference.segment import Segmentation, make_segmenter
from jaxseg.inference.tiled_evaluation import require_memory, tiled_predictor
from jaxseg.memory import NOT_CHECKED, shown
from jaxseg.optim import follows_progress
from jaxseg.parallel import Strategy
from jaxseg.run import gradients, messages
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.copies import Copies
from jaxseg.run.data import Problem, image_type, reading_of, train_batches
from jaxseg.run.drawing import drawing
from jaxseg.run.loop import require_finite_loss
from jaxseg.run.preflight import Ahead, ahead_of_evaluation, batch_shapes, described
from jaxseg.run.programs import Programs
from jaxseg.run.provenance import end_record, read_starts, run_record
from jaxseg.run.report import LOG_FILE, Reporter, read_log
from jaxseg.run.reporting import make_reporter
from jaxseg.run.stopping import judged, stops_early
from jaxseg.run.weights import Planned, initial_state, plan_weights
from jaxseg.run.workdir import CHECKPOINTS
from jaxseg.state import TrainState, keys_of_seed
from jaxseg.tuning import progress_of, with_progress


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
        copies: copies the checkpoints elsewhere, or None.
    """

    parts: Parts
    problem: Problem
    strategy: Strategy
    programs: Programs
    eval_step: Ahead
    segment: Callable[..., Segmentation]
    tiled: Predictor | None
    batches: Any
    validation: Any
    workdir: Path
    checkpoints: Checkpoints
    reporter: Reporter
    copies: Copies | None

    @property
    def config(self) -> ConfigDict:
        return self.parts.config

    def variables(self, state: TrainState) -> dict[str, Any]:
        """Returns the variables of the network alone, of a placed state."""
        return self.parts.deployed(self.strategy.get_state(state)).variables

    def evaluate(self, state: TrainState) -> Result:
        """Scores the validation split."""
        with self.reporter.scoring(self.problem.val) as scored:
            if self.tiled is None:
                loss, strategy = self.parts.loss, self.strategy
                return score(self.eval_step, state, self.validation, loss=loss, strategy=strategy, progress=scored)
            # On one device, as the program that was checked: on several each would score the same tiles.
            variables = jax.device_put(self.variables(state), jax.local_devices()[0])
            tiled = self.tiled.with_variables(variables).scores
            limit = Reading(timeout=self.config.data.timeout)
            return score_images(self.problem.val, tiled, self.parts.loss, reading=limit, progress=scored).result


def open_session(
    parts: Parts,
    problem: Problem,
    strategy: Strategy,
    programs: Programs,
    workdir: Path,
    stack: contextlib.ExitStack,
    began: float | None = None,
) -> Session:
    """Compiles the evaluation, and opens the data loaders, checkpoints and reporter; `stack` closes them.

    `began` is when this start began, by `time.perf_counter`; None: now.
    """
    config = parts.config
    batches = train_batches(config, problem.train)
    validation = pipeline.make_eval_loader(
        problem.val,
        batch_size=config.eval.batch_size,
        multiple=config.eval.multiple,
        size=config.data.size,
        fit=config.data.fit,
        reading=Reading(timeout=config.data.timeout),
    )
    checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=config.checkpoint.keep, config=to_dict(config))
    reporter = make_reporter(config, problem, workdir, began)
    copies = None
    if config.checkpoint.copy_to:  # entered before the checkpoints: these are closed first
        copies = stack.enter_context(Copies(config.checkpoint.copy_to, workdir))
    return Session(
        parts=parts,
        problem=problem,
        strategy=strategy,
        programs=programs,
        eval_step=ahead_of_evaluation(
            strategy.compile_eval(parts.eval_step()),
            config,
            rows_axis=0 if config.strategy == "jit" else 1,
            lowers_shapes=strategy.lowers_shapes,
        ),
        segment=make_segmenter(parts),
        tiled=tiled_predictor(parts) if config.eval.tiles else None,
        checkpoints=stack.enter_context(checkpoints),
        reporter=stack.enter_context(reporter),
        copies=copies,
        batches=stack.enter_context(batches),
        validation=validation,
        workdir=workdir,
    )


def start_or_resume(session: Session, planned: Planned | None, command: str) -> tuple[TrainState, jax.Array, int, bool]:
    """Returns the state of the newest checkpoint or an initial one, the PRNG key of all steps, the steps made, and
    whether `stop.patience` had ended the run.

    Data order, augmentation, dropout and initialisation all derive from one seed. `run.json` records the command.
    """
    parts = session.parts
    strategy = session.strategy
    reporter = session.reporter
    init_key, step_key = keys_of_seed(parts.config.seed)
    restored = session.checkpoints.restore(session.programs.state)
    start = 0 if restored is None else restored.step
    ended = restored is not None and stops_early(parts.config, restored.state)
    reporter.message(messages.opening_message(parts.config, session.problem, session.programs.state, start))
    if start < parts.config.steps and not ended:
        compile_steps(session)
    if restored is None:
        host_state, origins = initial_state(parts, init_key, planned or plan_weights(parts), session.programs.init)
        window = None
    else:
        host_state = restored.state
        origins = []  # the first start has recorded the weights
        if not restored.iterator_state:
            raise ConfigError(
                f"{session.workdir} holds a network that jaxseg shrink has made, and no training to resume; start a "
                f"new run from it with --config.model.weights={session.workdir}."
            )
        window = restored.log
        session.batches.set_state(restored.iterator_state)
        if session.copies:
            session.copies.start_missing(start)
    state = strategy.put_state(host_state)
    key = strategy.put_key(step_key)
    weights = [origin._asdict() for origin in origins]
    before = read_starts(session.workdir)[-1:] if start else []
    data = {
        "train": fingerprint(session.problem.train, reading=reading_of(parts.config)),
        "val": fingerprint(session.problem.val, reading=Reading(timeout=parts.config.data.timeout)),
    }
    run_record(session.workdir, parts.config, step=start, weights=weights, command=command, data=data)
    reporter.start(start, parts.config.steps, window)
    if moved := messages.moved_message(before[0] if before else None, parts.config):
        reporter.message(moved)
    for origin in origins:
        reporter.message(str(origin))
    return state, key, start, ended


def compile_steps(session: Session) -> None:
    """Compiles the training step and the evaluation of its largest batch, before anything is placed on a device.

    The evaluation is compiled here for its check alone: without one, at its first batch.

    Raises:
        ConfigError: if memory does not hold one of them; the message says what fits.
        OutOfMemoryError: if memory does not hold an evaluation in tiles.
    """
    strategy, config = session.strategy, session.config
    if not strategy.lowers_shapes:
        session.reporter.message(
            "with strategy=pmap on several hosts the step compiles when it first runs, and whether memory holds it is "
            "not checked before; strategy=jit is"
        )
        return
    session.reporter.message("compiling the step; this takes a while unless an earlier run has compiled the same one")
    began = time.monotonic()
    key = jax.eval_shape(jax.random.key, 0)
    batch = batch_shapes(session.parts, image_type(config, session.problem.train))
    shapes = strategy.placed_shapes(session.programs.state, batch, key)
    memory = described(session.programs.train_step.compile(*shapes), shapes, session.parts)
    if config.compile.memory != NOT_CHECKED:
        dtype = Reading(timeout=config.data.timeout).example(session.problem.val, 0)["image"].dtype
        if session.tiled is None:
            scored = session.validation.largest_shapes(dtype)
            session.eval_step.compile(*strategy.placed_shapes(session.programs.state, scored, key)[:2])
        else:
            sizes = label_sizes(session.problem.val)
            variables = jax.eval_shape(lambda state: session.parts.deployed(state).variables, session.programs.state)
            require_memory(session.tiled, max(sizes, key=math.prod), dtype, variables)
    seconds = time.monotonic() - began
    session.reporter.message(f"compiled the step in {seconds:.1f} s; it takes {shown(memory.total)} of memory")


def evaluate(session: Session, state: TrainState, step: int) -> tuple[Result, TrainState, bool]:
    """Scores the validation split and reports the scores; returns them, and what follows from them.

    That is the state, in which schedule.name=plateau may have lowered the learning rate, and whether `stop.patience`
    ends the run.
    """
    result = session.evaluate(state)
    if result.confusion.any():
        require_finite_loss(result.loss, step, session.checkpoints)
    more: dict[str, float] = distances(session.parts, lambda: session.variables(state), session.problem)
    more |= session.parts.sparsity(lambda: session.variables(state))
    config = session.config
    if not follows_progress(config):
        session.reporter.evaluation(step, metrics.scores(result.confusion), result.loss, "val", more)
        _write_report(session)
        return result, state, False
    before = progress_of(session.strategy.first(state.opt_state))
    after = judged(config, before, metrics.scores(result.confusion).mean_iou)
    more["evaluations_since_best"] = int(after.stale)
    session.reporter.evaluation(step, metrics.scores(result.confusion), result.loss, "val", more)
    _write_report(session)
    if after.share < before.share:
        patience = counted(config.schedule.patience, "evaluation")
        session.reporter.message(
            f"no higher mIoU in {patience}: the learning rate is {float(after.share):g} of its peak from here"
        )
    state = replace(state, opt_state=with_progress(state.opt_state, session.strategy.put_state(after)))
    return result, state, 0 < config.stop.patience <= after.stale and step < config.steps


def _write_report(session: Session) -> None:
    if session.config.log.report and jax.process_index() == 0:
        from jaxseg.report.live_page import write_live_page  # imports scipy.ndimage, which other trainings do not need

        with drawing(session.reporter):
            info = session.problem.train.info
            write_live_page(session.workdir, session.config, info.classes, info.colors)


def save(session: Session, state: TrainState, step: int, result: Result | None) -> None:
    """Saves the state, the data iterator and the reporter's sums; `result` is the evaluation of this step, or None."""
    quality = None if result is None else {"mean_iou": metrics.scores(result.confusion).mean_iou}
    host_state = session.strategy.get_state(state)
    window = session.reporter.open_window()
    if session.copies:
        session.checkpoints.wait()  # the copy waits for the checkpoint before this one
        if failure := session.copies.settle():
            session.reporter.message(f"warning: {failure}")
    session.checkpoints.save(step, host_state, session.batches.get_state(), quality, log=window)
    if session.copies:
        session.copies.start(step)


def require_copies(session: Session) -> None:
    """Waits until the last copy is complete, if there are any; raises CheckpointError if it failed."""
    if session.copies:
        session.copies.require_last()


def close(
    session: Session, state: TrainState, start: int, last: int, result: Result | None, began: float, program: str
) -> Result:
    """Draws the curves, reports the final scores and the files of the run; returns the last evaluation.

    Args:
        session: of the run.
        state: after the step `last`.
        start: the steps that were made before this start.
        last: the last step: that of the configuration, or one at which `stop.patience` ended the run.
        result: the evaluation of that state, or None.
        began: the time of the start.
        program: how the training was called.
    """
    config = session.config
    reporter = session.reporter
    if result is None:  # the run had ended before; its last evaluation is repeated
        result = session.evaluate(state)
        draw_predictions(session, state, last)
    if jax.process_index() == 0:
        with drawing(reporter):
            pictures.curves(read_log(session.workdir / LOG_FILE), session.workdir / "curves.png")
        with drawing(reporter):
            gradients.draw_run(session.parts, session.workdir)
    seconds = time.monotonic() - began
    scores = metrics.scores(result.confusion)
    early = messages.early_message(session.checkpoints.best_step(), last, config) if last < config.steps else ""
    if start < last:
        end_record(session.workdir, step=last, seconds=seconds, mean_iou=scores.mean_iou, early=early)
    reporter.final(last, scores)
    table = metrics.table(scores, session.problem.train.info.classes)
    reporter.message(f"Scores of the last step, {last}, on {config.data.val_split}:\n{table}")
    reporter.message(messages.steps_message(start, last, seconds))
    reporter.message(messages.closing_message(config, session.workdir, program))
    if early:
        reporter.message(early)
    return result


def draw_predictions(session: Session, state: TrainState, step: int) -> None:
    """Draws samples, and the first validation images with truth, prediction and error, to PNG files and TensorBoard."""
    if jax.process_count() > 1:  # one process cannot apply a state of several
        return
    variables = session.variables(state)
    draw_samples(session.parts, variables, session.workdir, session.reporter, step)
    source = session.problem.val
    reading = Reading(timeout=session.config.data.timeout)
    examples = [reading.example(source, index) for index in range(min(session.config.log.images, len(source)))]
    if not examples:
        return
    path = session.workdir / "predictions.png"
    with drawing(session.reporter):
        images, truths = ([example[name] for example in examples] for name in ("image", "label"))
        predictions = [session.segment(variables, image).classes for image in images]
        info = source.info
        pictures.prediction_sheet(images, truths, predictions, info.colors, info.classes, path, info.multilabel)
        session.reporter.picture(step, "predictions", read_image(path))
