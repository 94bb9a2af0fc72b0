"""The part of the command `jaxseg sweep` that makes a search."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxseg.data import make_source
from jaxseg.data.sources import split_of_data
from jaxseg.errors import counted
from jaxseg.run.signals import stop_on_signal
from jaxseg.sweep.pool import Environment, run_all
from jaxseg.sweep.progress import Progress
from jaxseg.sweep.search.plan import SEARCH_FILE, Study, check_parts, refuse_others, write_study
from jaxseg.sweep.search.proposing import require_sampler
from jaxseg.sweep.search.report import write_search_report
from jaxseg.sweep.search.running import numbers_of, pruner, runs_of
from jaxseg.sweep.search.trials import Trials


def search(
    study: Study,
    workdir: Path,
    shard: tuple[int, int],
    environments: Callable[[], Sequence[Environment]],
    arguments: Sequence[str],
) -> int:
    """Makes the trials of a part of a search, and reports all; returns the exit status: 1 if a trial failed.

    A trial that diverges is a result, and no failure.

    Args:
        study: from `load_study`.
        workdir: the folder of the search.
        shard: (i, n): the i-th of n parts, from 1.
        environments: gives the variables of the processes that may run at a time; see `pool.places`.
        arguments: of the command line, for the records of the runs.

    Raises:
        ConfigError: before anything is written, if the search cannot be made.
        DataError: if the data are missing or have no such split.
    """
    require_sampler(study)
    refuse_others(study, workdir)
    mine = numbers_of(study, shard)
    trials = Trials(study, workdir)
    ended = sum((trial := trials.read(number)) is not None and trial.ended for number in mine)
    if ended < len(mine):
        if not (workdir / SEARCH_FILE).exists():
            check_parts(study)
        start = study.config({})
        make_source(start, split_of_data(start, study.split))
    places = environments() if ended < len(mine) else []
    write_study(study, workdir)
    with (
        stop_on_signal() as stop,
        contextlib.ExitStack() as claims,
        Progress(workdir.name, study.split, len(mine), ended, len(places)) as progress,
    ):
        stop.finishing = "the trials under way finish their step and save"
        runs = runs_of(trials, shard, claims) if places else iter(())
        run_all(runs, study.split, ["jaxseg.sweep", *arguments], places, progress, stop, pruner(trials))
    report_search(workdir)
    if stop.signal is not None:
        print("Stopped as asked; the same command resumes the search.", file=sys.stderr)
        return 128 + stop.signal
    states = [trial.state for number in mine if (trial := trials.read(number)) is not None]
    if failed := states.count("failed"):
        print(f"error: {failed} of {counted(len(mine), 'trial')} failed; the report says why.", file=sys.stderr)
    return int(bool(failed))


def report_search(workdir: Path) -> int:
    """Writes the report of the search in `workdir`, and prints its table and its files."""
    files = write_search_report(workdir)
    print(files["table"].read_text(encoding="utf-8"))
    for name, path in files.items():
        print(f"{name + ':':<16}{path}")
    return 0
