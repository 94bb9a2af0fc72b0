"""Trains and scores all variants and seeds of an ablation, or the trials of a search, and reports them in one table.

    python -m jaxseg.sweep experiments/ablations/residual.py [--workdir DIR] [--config.KEY=VALUE ...]
    python -m jaxseg.sweep experiments/search.py [--search] [--trials N]
    python -m jaxseg.sweep --workdir DIR --report

The same command resumes an interrupted sweep: it does not repeat finished runs, and resumes an unfinished run from its
checkpoint. The workdir of a run is DIR/VARIANT/seed-N, as jaxseg.train writes it; of a search, DIR/trial-NNNN.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax

from jaxseg.arguments import Count, expanded, one_or_more
from jaxseg.build import Parts, build_parts
from jaxseg.config import ConfigDict
from jaxseg.config.command import help_text, load_file, run_command
from jaxseg.config.parser import CommandParser, add_experiment, experiment_of, split_overrides
from jaxseg.data import make_source
from jaxseg.data.sources import split_of_data
from jaxseg.errors import ConfigError, counted
from jaxseg.run.check import check
from jaxseg.run.signals import stop_on_signal
from jaxseg.run.weights import require_fit
from jaxseg.run.workdir import default_workdir, prepare_workdir
from jaxseg.sweep.options import add_shares, option
from jaxseg.sweep.plan import Plan, PlannedRun, folder, load_plan, refuse_others, runs_of, write_plan
from jaxseg.sweep.pool import Environment, cache_of, places, run_all
from jaxseg.sweep.progress import Progress
from jaxseg.sweep.records import has_trained, read_scores
from jaxseg.sweep.report import write_report
from jaxseg.sweep.search.command import report_search, search
from jaxseg.sweep.search.plan import SEARCH_FILE, asks_for_search, load_study
from jaxseg.sweep.stored import stored_division, with_stored_steps
from jaxseg.sweep.variants import Seeds


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.sweep") -> int:
    """Runs the command line; returns the exit status: 1 if a run failed, 128 + the signal's number if one stopped it.

    `program` is how the command is called, for the usage line.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(program)
    words, keys = split_overrides(argv)
    options, rest = parser.parse_known_args(words)
    overrides = [*rest, *keys]
    if options.file is not None:
        options.config = experiment_of(parser, options)
    return run_command(lambda: _sweep(options, overrides, argv))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description=(__doc__ or "").partition("\n")[0],
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_experiment(parser)
    parser.add_argument("--workdir", metavar="DIR", default="", help="folder of the sweep (default runs/ABLATION)")
    parser.add_argument(
        "--only", metavar="VARIANT,...", type=option(_Names, _split), default=(), help="run only these variants"
    )
    parser.add_argument(
        "--seeds", metavar="N,...", type=option(Seeds, _split_numbers), help="seeds in place of the file's"
    )
    parser.add_argument(
        "--search", action="store_true", help="make the file's search() (default: its sweep(), or the one it has)"
    )
    parser.add_argument(
        "--trials", metavar="N", type=option(Count, int), help="of a search: trials in place of the file's"
    )
    parser.add_argument("--split", metavar="SPLIT", help="the split to score (default val)")
    add_shares(parser)
    parser.add_argument("--report", action="store_true", help="run nothing; report the finished runs")
    return parser


_Names = Annotated[tuple[str, ...], one_or_more("names, with commas between them")]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _split_numbers(text: str) -> list[int]:
    return [int(part) for part in _split(text)]


def _sweep(options: argparse.Namespace, overrides: Sequence[str], argv: Sequence[str]) -> int:
    # The devices are for the runs; this process only computes shapes, on the CPU.
    jax.config.update("jax_platforms", "cpu")
    if options.report:
        others = (options.config, options.only, options.seeds, options.split, options.shard, options.jobs, overrides)
        others += (options.search, options.trials)
        if not options.workdir or any(others):
            raise ConfigError("--report takes --workdir, the folder of the sweep, and nothing else.")
        workdir = expanded(options.workdir).absolute()
        return report_search(workdir) if (workdir / SEARCH_FILE).exists() else _report(workdir)
    if options.config is None:
        raise ConfigError(
            "--config FILE is needed, or FILE alone: the ablation or search to run; or --report, to report what "
            "--workdir holds."
        )
    workdir = (expanded(options.workdir) if options.workdir else default_workdir(options.config)).absolute()
    if asks_for_search(load_file(options.config)[0], options.search, options.config):
        return _search(options, overrides, argv, workdir)
    if options.trials:
        raise ConfigError("--trials is of a search, and this is a sweep; --search makes the search of the file.")
    if (workdir / SEARCH_FILE).exists():
        raise ConfigError(f"{workdir} holds a search; give another --workdir for the sweep.")
    overrides = stored_division(workdir, overrides)
    plan = with_stored_steps(load_plan(options.config, overrides, options.seeds, options.split or "val"), workdir)
    runs = runs_of(plan, workdir, options.only, options.shard or (1, 1))
    refuse_others(plan, workdir)
    waiting = [run for run in runs if read_scores(run.workdir, plan.split) is None]
    _check(waiting, plan)
    _require_starts(waiting, plan, workdir)
    environments = [{**cache_of(workdir), **place} for place in places(options.jobs)] if waiting else []
    # Every check is done before anything is written.
    for run in runs:
        prepare_workdir(run.workdir, run.config)
    write_plan(plan, workdir)
    finished = len(runs) - len(waiting)
    with (
        stop_on_signal() as stop,
        Progress(workdir.name, plan.split, len(runs), finished, len(environments)) as progress,
    ):
        stop.finishing = "the runs under way finish their step and save"
        failed = run_all(waiting, plan.split, ["jaxseg.sweep", *argv], environments, progress, stop)
    _report(workdir)
    if stop.signal is not None:
        print("Stopped as asked; the same command resumes the sweep.", file=sys.stderr)
        return 128 + stop.signal
    if failed:
        print(f"error: {len(failed)} of {counted(len(runs), 'run')} failed; the report says why.", file=sys.stderr)
    return int(bool(failed))


def _search(options: argparse.Namespace, overrides: Sequence[str], argv: Sequence[str], workdir: Path) -> int:
    if options.only or options.seeds:
        raise ConfigError("--only and --seeds are of a sweep; a search has --trials.")
    study = load_study(options.config, overrides, options.trials, options.split or "val")

    def environments() -> list[Environment]:
        return [{**cache_of(workdir), **place} for place in places(options.jobs)]

    return search(study, workdir, options.shard or (1, 1), environments, argv)


def _check(runs: Sequence[PlannedRun], plan: Plan) -> None:
    """Checks one run of each variant as training would, and its start, so that errors come before the first run.

    Raises:
        ConfigError: naming the variant.
        DataError: if the data are missing or have no such split.
    """
    for run in {run.variant: run for run in runs}.values():
        try:
            check(run.config, weights=not run.start)  # those of an earlier run are not there yet
        except ConfigError as error:
            raise ConfigError(f"Variant {run.variant!r}: {error}") from error
        source = make_source(run.config, split_of_data(run.config, plan.split))
        if start := plan.start_of(run.variant):
            other = plan.config(start, run.seed)
            classes = len(make_source(other, split_of_data(other, plan.split)).info.classes)
            try:
                require_fit(_parts(run.config, len(source.info.classes)), _parts(other, classes))
            except ConfigError as error:
                raise ConfigError(f"Variant {run.variant!r} starts from {start!r}: {error}") from error


def _parts(config: ConfigDict, classes: int) -> Parts:
    return build_parts(config, config.model.num_classes or classes)


def _require_starts(runs: Sequence[PlannedRun], plan: Plan, workdir: Path) -> None:
    """Raises ConfigError if a run starts from another that has not ended and that this call leaves out."""
    coming = {run.name for run in runs}
    for run in runs:
        start = plan.start_of(run.variant)
        if start and run.start not in coming and not has_trained(folder(workdir, start, run.seed)):
            raise ConfigError(
                f"{run.name} starts from the weights of {run.start}, which has not ended; give --only={start} too."
            )


def _report(workdir: Path) -> int:
    files = write_report(workdir)
    print(files["table"].read_text(encoding="utf-8"))
    for name, path in files.items():
        print(f"{name + ':':<16}{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
