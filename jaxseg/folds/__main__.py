"""Trains a network once for each fold of the training images, and scores each image by the run that never saw it.

    jaxseg train --config FILE --folds 5 [--fold I] [--workdir DIR] [--shard I/N] [--jobs N] [--config.KEY=VALUE ...]

The same command goes on with folds that were interrupted, and repeats none that has ended. The run of fold I is in
DIR/fold-I. `--fold I` trains that one alone, on another machine, say; once DIR has all of them, the command without it
summarises them: DIR/table.md, DIR/scores.json, and DIR/oof/ with the class map of every image by the run that was
trained without it, and scores.csv. `jaxseg predict --workdir DIR` averages the runs of all folds.

`--config.data.group` keeps images of one patient or scene in one fold. See docs/cross-validation.md.
"""

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax

from jaxseg.arguments import Count, at_least, expanded
from jaxseg.config import ConfigDict, command, with_values
from jaxseg.data.folds import HELD_OUT
from jaxseg.errors import ConfigError, counted
from jaxseg.folds.plan import divide, require_same_folds, require_single_values, runs_of, with_stored_folds, write_plan
from jaxseg.folds.summary import summarise, write_summary
from jaxseg.run.check import check
from jaxseg.run.signals import stop_on_signal
from jaxseg.run.workdir import default_workdir, make_workdir, prepare_workdir
from jaxseg.sweep.options import add_shares, option
from jaxseg.sweep.plan import PlannedRun
from jaxseg.sweep.pool import cache_of, places, run_all
from jaxseg.sweep.progress import Progress
from jaxseg.sweep.records import read_scores


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.folds") -> int:
    """Runs the command line; returns the exit status: 1 if a run failed, 128 + the signal's number after one."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def body() -> int:
        description = "Train a network once for each fold of the training images."
        options, config = command.parse_command_line(argv, program, description, add_options)
        return _train(options, config, argv)

    return command.run_command(body)


def add_options(parser: ArgumentParser) -> None:
    """Adds the options of folds to a parser with those of a training."""
    parser.add_argument(
        "--folds",
        metavar="N",
        type=option(Annotated[int, at_least(2)], int),
        required=True,
        help="parts of the training images; each is left out by one run",
    )
    parser.add_argument(
        "--fold", metavar="I", type=option(Count, int), help="train the run of this fold alone, from 1 (default: all)"
    )
    add_shares(parser)


def _train(options: Namespace, config: ConfigDict, argv: Sequence[str]) -> int:
    # The devices are for the runs; this process reads masks and computes shapes, on the CPU.
    jax.config.update("jax_platforms", "cpu")
    folds = options.folds
    require_single_values(config)
    if options.fold is not None and not 1 <= options.fold <= folds:
        raise ConfigError(f"--fold {options.fold} is not in 1 to {folds}, the folds of --folds {folds}.")
    if options.fold is not None and options.shard:
        raise ConfigError("--fold trains one fold, and --shard a part of them; give one of the two.")
    if config.data.multilabel:
        raise ConfigError("--folds divides images by their one class a pixel; data.multilabel has no folds.")
    default = default_workdir(options.config)
    workdir = (expanded(options.workdir) if options.workdir else default.with_name(f"{default.name}-folds")).absolute()
    config = with_stored_folds(config, workdir)
    require_same_folds(workdir, folds, config)
    check(with_values(config, {"data.fold": f"1/{folds}"}))
    division = divide(config, folds, workdir)
    if division.about:
        print(division.about, flush=True)
    make_workdir(workdir)
    write_plan(workdir, options.config, folds, config, division)
    runs = runs_of(config, division, folds, workdir)
    chosen = _chosen(runs, options)
    waiting = [run for run in chosen if read_scores(run.workdir, HELD_OUT) is None]
    environments = [{**cache_of(workdir), **place} for place in places(options.jobs)] if waiting else []
    for run in chosen:
        prepare_workdir(run.workdir, run.config)
    finished = len(chosen) - len(waiting)
    with (
        stop_on_signal() as stop,
        Progress(workdir.name, HELD_OUT, len(chosen), finished, len(environments)) as progress,
    ):
        stop.finishing = "the runs under way finish their step and save"
        failed = run_all(waiting, HELD_OUT, ["jaxseg.folds", *argv], environments, progress, stop)
    again = f"jaxseg train {shlex.join(argv)}"
    if stop.signal is not None:
        print("Stopped as asked; the same command goes on.", file=sys.stderr)
        return 128 + stop.signal
    if failed:
        print(
            f"error: {len(failed)} of {counted(len(chosen), 'fold')} failed; {failed[0].workdir}/console.txt says why.",
            file=sys.stderr,
        )
        return 1
    return _report(runs, workdir, config, again)


def _chosen(runs: Sequence[PlannedRun], options: Namespace) -> Sequence[PlannedRun]:
    if options.fold is not None:
        return [runs[options.fold - 1]]
    part, parts = options.shard or (1, 1)
    return runs[part - 1 :: parts]


def _report(runs: Sequence[PlannedRun], workdir: Path, config: ConfigDict, again: str) -> int:
    """Summarises the runs if all have ended, else says which have not."""
    lacking = [run.variant for run in runs if read_scores(run.workdir, HELD_OUT) is None]
    if lacking:
        done = f"{len(runs) - len(lacking)} of {counted(len(runs), 'fold')} have scores"
        print(
            f"{done}; there is no summary before those of {', '.join(lacking)}. Once {workdir} has them all, the "
            "command without --fold and --shard makes it."
        )
        return 0
    summary = summarise(runs, bool(config.data.group))
    print(summary)
    for name, path in write_summary(summary, runs, workdir, again).items():
        print(f"{name + ':':<13}{path}")
    print(f"predict:     jaxseg predict --workdir {shlex.quote(str(workdir))} IMAGES... --out preds/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
