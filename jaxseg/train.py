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
from dataclasses import replace
from pathlib import Path

from jaxseg import build, compiler
from jaxseg.api.start import TrainModule
from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict, command, validate
from jaxseg.errors import ConfigError, naming_lack_of_memory, some
from jaxseg.inference.score import Result
from jaxseg.run import garbage, hosts, messages
from jaxseg.run.check import check
from jaxseg.run.copies import bring_back, small_files, taking_back
from jaxseg.run.data import (
    load_problem,
    record_data,
    require_hierarchy,
    with_steps_of_epochs,
    with_stored_division,
)
from jaxseg.run.lock import training_lock
from jaxseg.run.loop import asked_to_stop, require_finite, what_is_due
from jaxseg.run.preflight import ahead_of_training
from jaxseg.run.programs import make_programs
from jaxseg.run.provenance import command_line
from jaxseg.run.quantised import require_float
from jaxseg.run.signals import stop_on_signal
from jaxseg.run.store import naming_copies
from jaxseg.run.stored_encoder import with_stored_encoder
from jaxseg.run.teacher import read_teacher, record_teacher, with_teacher
from jaxseg.run.weights import locate_weights, plan_weights
from jaxseg.run.workdir import default_workdir, holds_checkpoint, make_workdir, write_config
from jaxseg.session import close, draw_predictions, evaluate, open_session, require_copies, save, start_or_resume


def main(argv: Sequence[str] | None = None, program: str = messages.PROGRAM) -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called."""
    argv = list(sys.argv[1:] if argv is None else argv)
    stopped = 0
    started = garbage.look_rarely()

    def body() -> int:
        nonlocal stopped
        options, config = command.parse_command_line(argv, program, "Train a segmentation network.", _add_options)
        if options.folds is not None:
            raise ConfigError("--folds trains several runs: give jaxseg train, or python -m jaxseg.folds.")
        if options.fold is not None:
            raise ConfigError(f"--fold {options.fold} is one of several folds; give --folds N too.")
        hosts.join_hosts(options.coordinator, options.processes, options.process)
        compiler.keep_programs(config.compile.cache)
        check(config, before_training=True)
        workdir = expanded(options.workdir) if options.workdir else default_workdir(options.config)
        result = train(config, workdir, f"{program} {shlex.join(argv)}", program, started=started)
        stopped = options.stopped_status if result is None else 0
        return 0

    try:
        return hosts.run_to_the_end(lambda: command.run_command(body)) or stopped
    finally:
        started()


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        default="",
        help="for several hosts: the address of process 0, or auto (Slurm, Open MPI, Kubernetes, Cloud TPU); start the "
        "same command on each host",
    )
    parser.add_argument(
        "--folds",
        metavar="N",
        help="cross-validation: a run for each of N parts of the training images, which it leaves out; has options of "
        "its own, see jaxseg train --folds N --help",
    )
    parser.add_argument("--fold", metavar="I", help="with --folds: train the run of this fold alone")
    parser.add_argument("--processes", type=int, metavar="N", help="number of processes; auto needs none")
    parser.add_argument("--process", type=int, metavar="I", help="index of this process, 0 to N-1; auto needs none")
    parser.add_argument(
        "--stopped-status",
        type=int,
        choices=range(256),
        default=0,
        metavar="N",
        help="exit status of a run that a signal stopped before its end and that saved (default 0); a script can so "
        "tell it from one that is complete",
    )


def train(
    config: ConfigDict,
    workdir: Path,
    resume: str,
    program: str = messages.PROGRAM,
    until: int | None = None,
    started: Callable[[], None] = lambda: None,
) -> Result | None:
    """Trains, evaluates and reports; returns the last evaluation, or None if the run stopped before its end.

    Args:
        config: a validated configuration.
        workdir: the directory of the run; if it holds a run, this run is resumed.
        resume: the command or call that starts this run; the message after a stop shows it.
        program: how the training was called, such as "jaxseg train"; the last message names commands of this form.
        until: the step after which the run stops, as after a signal, if it has not made as many; None: its end.
        started: called after the first step of this call.

    Raises:
        ConfigError: if another process trains in the workdir, it holds a run with another configuration, the data do
            not agree with the configuration, the weights to start from do not fit, or a step takes more memory than
            there is (`compile.memory`), which is known before the first.
        DataError: if the data cannot be read.
        CheckpointError: if a checkpoint cannot be written, or belongs to another model.
        NotFiniteError: if the loss, the gradient or a parameter is NaN or infinite.
        HostError: if another process of this run ends.
        OutOfMemoryError: if a step or an evaluation does not fit into the device's memory.
        SystemExit: if a signal comes before the first step or after the last save, when there is nothing to save.
    """
    began, clock = time.monotonic(), time.perf_counter()
    brought, before = [], {}
    if config.checkpoint.copy_to:
        with stop_on_signal(), hosts.naming_lost_hosts(workdir):
            before = small_files(workdir)
            brought = bring_back(config.checkpoint.copy_to, workdir)
    require_float(workdir, "training")
    if not holds_checkpoint(workdir):
        validate(config)
        locate_weights(config)
    config = with_stored_encoder(with_stored_division(config, workdir), workdir)
    problem = load_problem(config)
    config, taught = read_teacher(with_steps_of_epochs(config, len(problem.train), workdir))
    strategy = build.make_strategy(config)
    parts = build.build_parts(config, problem.num_classes, axis_name=strategy.axis_name)
    parts = with_teacher(parts, taught, problem.train.info.classes)
    fresh = not holds_checkpoint(workdir)
    if fresh:
        require_hierarchy(parts, problem)
    planned = plan_weights(parts) if fresh else None
    programs = make_programs(parts, strategy)
    workdir = make_workdir(workdir)

    with (
        hosts.naming_lost_hosts(workdir),
        naming_lack_of_memory("A training step or its evaluation", lambda: messages.less_memory(workdir, resume)),
        naming_copies(config.checkpoint.copy_to, workdir),
        contextlib.ExitStack() as stack,
    ):
        stop = stack.enter_context(stop_on_signal())
        stack.enter_context(training_lock(workdir))
        with taking_back(config.checkpoint.copy_to, workdir, brought, before):
            write_config(workdir, config)
        data = record_data(workdir, config, problem)
        record_teacher(workdir, config, taught)
        if data.class_weights is not None or data.class_prior is not None or data.hierarchy.levels:
            parts = parts.with_loss_of_data(data.class_weights, data.class_prior, data.hierarchy.levels)
            programs = replace(programs, train_step=ahead_of_training(parts, strategy))
        session = open_session(parts, problem, strategy, programs, workdir, stack, clock)
        stop.say = session.reporter.notice
        stack.enter_context(hosts.naming_lost_hosts(workdir))  # before anything waits for the others to close its files
        command = resume if program == messages.FROM_PYTHON else command_line() or resume
        if brought:
            session.reporter.message(f"read the checkpoints of {config.checkpoint.copy_to}: {some(map(str, brought))}")
        state, key, start, ended = start_or_resume(session, planned, command)
        if until is not None and until <= start < config.steps and not ended:
            return None
        result, last = None, start if ended else config.steps
        stop.finishing = "finishing this step, then saving"
        for step in range(start + 1, last + 1):
            batch = next(session.batches)
            # The copy to the device overlaps with the step before, which the host has not waited for.
            placed = strategy.put_batch({name: batch[name] for name in ("image", "label")})
            state, step_metrics = session.programs.train_step(state, placed, key)
            if step == start + 1:
                started()
            # The reporter returns the metrics of the step before, so that the device never waits for the host.
            done = session.reporter.train(step, strategy.first(step_metrics), config.batch_size)
            require_finite(done, session.checkpoints)

            if step == config.steps:
                stop.finishing = "the last step is done; scoring and saving it, then the run ends"
            due = what_is_due(config, step, stop, until)
            if not due.anything:
                continue
            require_finite(session.reporter.flush(), session.checkpoints)  # before anything is saved
            if due.evaluation:
                result, state, ended = evaluate(session, state, step)
            stopping = due.stop or (due.evaluation and asked_to_stop(config, step, stop))
            save(session, state, step, result if due.evaluation else None)
            if due.evaluation and not stopping:
                draw_predictions(session, state, step)
            if ended:  # by `stop.patience`
                last = step
                break
            if stopping and step < config.steps:
                session.checkpoints.wait()
                session.reporter.message(f"Stopped after step {step} as asked. To resume from there: {resume}")
                require_copies(session)
                return None
        session.checkpoints.wait()
        stop.finishing = ""
        result = close(session, state, start, last, result, began, program)
        require_copies(session)
        return result


sys.modules[__name__].__class__ = TrainModule  # jaxseg.train(...) works, as the module and its functions do

if __name__ == "__main__":
    sys.exit(main())
