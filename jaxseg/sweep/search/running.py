"""Runs the trials of a search: which is next, and which is stopped early."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jaxseg import files
from jaxseg.config import ConfigDict
from jaxseg.errors import ConfigError
from jaxseg.run.report import LOG_FILE
from jaxseg.run.workdir import holds_checkpoint, prepare_workdir, read_config, write_or_refuse
from jaxseg.sweep.plan import WITHOUT_LOCKS, PlannedRun, locked
from jaxseg.sweep.records import write_failure
from jaxseg.sweep.search.plan import Study, with_own_copies
from jaxseg.sweep.search.proposing import proposed
from jaxseg.sweep.search.pruning import Verdict, bracket_of, by_halving, by_median, rungs_of_brackets
from jaxseg.sweep.search.trials import TRIAL_FILE, Trial, Trials, name_of, said, write_verdict

_CLAIM = ".claim"


class TrialRun(PlannedRun):
    """A trial as the sweep's runner knows it; its variant is its name."""

    @property
    def name(self) -> str:
        return self.variant


def numbers_of(study: Study, shard: Sequence[int]) -> range:
    """Returns the numbers of the trials of a part (i, n) of the search, i from 1; each is in one of the n parts."""
    part, parts = shard
    return range(part - 1, study.trials, parts)


def runs_of(trials: Trials, shard: Sequence[int], claims: contextlib.ExitStack) -> Iterator[PlannedRun]:
    """Yields the trials that are to be made, each when it is asked for, with its folder and configuration written.

    A trial that another process makes is left to it; the locks that say so are held until `claims` ends. A trial whose
    proposed values do not go together is recorded as one that failed.

    Raises:
        ConfigError: if a file of the search cannot be read or written.
    """
    for number in numbers_of(trials.study, shard):
        run = _claimed(trials, number, claims)
        if run is not None:
            yield run


def _claimed(trials: Trials, number: int, claims: contextlib.ExitStack) -> PlannedRun | None:
    """Returns a trial for this process alone; None if it has ended, or another process makes it."""
    folder = trials.workdir / name_of(number)
    with locked(trials.workdir):  # values are proposed by one process at a time, which sees those of all others
        trial = trials.read(number)
        if trial is not None and trial.ended:
            return None
        try:
            claims.enter_context(files.locked(folder / _CLAIM, wait=False, without=WITHOUT_LOCKS))
        except BlockingIOError:
            return None
        except OSError as error:
            raise ConfigError(f"{folder} cannot be locked for the trial: {error.strerror or error}.") from error
        trial = trials.read(number)  # the process that had it may have ended it meanwhile
        if trial is not None and trial.ended:
            return None
        values = trial.values if trial else proposed(trials.study, number, trials.all())
        if trial is None:
            write_or_refuse(folder / TRIAL_FILE, {"number": number, "values": values})
        try:
            config = _config(trials.study, values, folder)
        except ConfigError as error:
            write_failure(folder, str(error))
            return None
    prepare_workdir(folder, config)
    return TrialRun(name_of(number), config.seed, folder, config)


def _config(study: Study, values: dict[str, object], folder: Path) -> ConfigDict:
    """Returns the configuration of a trial: that which it was started with, if it has made steps."""
    return read_config(folder) if holds_checkpoint(folder) else with_own_copies(study.config(values), folder.name)


def pruner(trials: Trials) -> Callable[[PlannedRun], str]:
    """Returns the function that stops trials of the search early, for `pool.run_all`."""
    sizes: dict[str, int] = {}  # of the logs at the last look

    def look(run: PlannedRun) -> str:
        log = run.workdir / LOG_FILE
        size = log.stat().st_size if log.exists() else 0
        if size == (sizes[run.variant] if run.variant in sizes else 0):
            return ""
        sizes[run.variant] = size
        own = trials.read(int(run.variant.removeprefix("trial-")))
        if own is None or own.ended or not own.curve or own.curve[-1][0] >= run.config.steps:
            return ""
        before = [trial for number in range(own.number) if (trial := trials.read(number)) is not None]
        verdict = verdict_of(trials.study, own, before, run.config)
        if verdict is None:
            return ""
        write_verdict(run.workdir, verdict)
        return said(verdict)

    return look if trials.study.pruner != "none" else lambda run: ""


def verdict_of(study: Study, own: Trial, before: Sequence[Trial], config: ConfigDict) -> Verdict | None:
    """Returns why a trial is to be stopped early, or None.

    Args:
        study: the search, whose pruner decides.
        own: the trial.
        before: the trials of smaller numbers.
        config: the configuration of the trial.
    """
    if study.pruner == "median":
        ended = [trial.curve for trial in before if trial.state == "complete"]
        return by_median(own.curve, ended, study.startup, study.prune_from)
    brackets = rungs_of_brackets(config.steps, max(config.eval.every, study.prune_from))
    if not brackets:
        return None
    name = f"search-{study.seed}"
    bracket = bracket_of(own.number, name, len(brackets))
    rivals = [trial.curve for trial in before if bracket_of(trial.number, name, len(brackets)) == bracket]
    return by_halving(own.curve, rivals, brackets[bracket])
