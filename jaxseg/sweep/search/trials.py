"""What has become of each trial, from the files in its folder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from jaxseg.arguments import as_tuples
from jaxseg.errors import ConfigError, NotFiniteError
from jaxseg.files import read_json
from jaxseg.run.report import LOG_FILE, read_log
from jaxseg.run.workdir import write_json
from jaxseg.sweep.records import read_failure, read_scores
from jaxseg.sweep.search.plan import Study
from jaxseg.sweep.search.pruning import Verdict

TRIAL_FILE = "trial.json"
PRUNED_FILE = "pruned.json"

State: TypeAlias = Literal["complete", "pruned", "diverged", "failed", "unfinished"]


class Trial(NamedTuple):
    """One training of a search.

    Attributes:
        number: from 0, which is the experiment as it is.
        values: {key: value} of the searched keys; {} of number 0.
        state: "complete" with its last step scored, "pruned", "diverged" (loss, gradient or a parameter is not finite),
            "failed" for another error, or "unfinished".
        score: mIoU of the split after the last step, in [0, 1]; None unless complete.
        curve: (step, mIoU of the validation) of each evaluation.
        step: the last that was logged.
        error: the last line of what ended it; of a pruned trial why it was stopped.
    """

    number: int
    values: dict[str, Any]
    state: State
    score: float | None
    curve: tuple[tuple[int, float], ...]
    step: int
    error: str

    @property
    def ended(self) -> bool:
        """Whether the same trial would end the same way: it is not made again."""
        return self.state in ("complete", "pruned", "diverged")

    @property
    def worth(self) -> float | None:
        """The score, and 0, the least mIoU, of a training that diverged; None of others."""
        return 0.0 if self.state == "diverged" else self.score


def name_of(number: int) -> str:
    """Returns the name of a trial, which is also that of its folder."""
    return f"trial-{number:04d}"


@dataclass(frozen=True)
class Trials:
    """The trials of a search, read from its folder; those that have ended are read once, for they do not change."""

    study: Study
    workdir: Path
    _ended: dict[int, Trial] = field(default_factory=dict, repr=False)

    def read(self, number: int) -> Trial | None:
        """Returns a trial; None if it has not been started; raises as `read_trial` does."""
        if number in self._ended:
            return self._ended[number]
        trial = read_trial(self.study, self.workdir, number)
        if trial is not None and trial.ended:
            self._ended[number] = trial
        return trial

    def all(self) -> list[Trial]:
        """Returns the trials that have been started, by number."""
        names = [file.parent.name.removeprefix("trial-") for file in self.workdir.glob(f"trial-*/{TRIAL_FILE}")]
        numbers = sorted(int(name) for name in names if name.isdecimal())
        return [trial for number in numbers if (trial := self.read(number)) is not None]


def read_trial(study: Study, workdir: Path, number: int) -> Trial | None:
    """Returns a trial of the search in `workdir`; None if it has not been started.

    Raises:
        ConfigError: if its record cannot be read.
    """
    folder = workdir / name_of(number)
    file = folder / TRIAL_FILE
    try:
        values = {key: as_tuples(value) for key, value in read_json(file)["values"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{file} is not a trial that a search wrote: {error!r}.") from error
    log = read_log(folder / LOG_FILE) if (folder / LOG_FILE).exists() else []
    curve = tuple((record["step"], record["mean_iou"]) for record in log if _is_score(record))
    step = max((record["step"] for record in log), default=0)
    scores, failure, verdict = read_scores(folder, study.split), read_failure(folder), read_verdict(folder)
    state, error = "unfinished", ""
    if scores is not None:
        state = "complete"
    elif verdict is not None:
        state, error = "pruned", said(verdict)
    elif failure is not None:
        state, error = "diverged" if NotFiniteError.__name__ in failure else "failed", failure
    return Trial(number, values, state, None if scores is None else float(scores["mean_iou"]), curve, step, error)


def _is_score(record: Mapping[str, Any]) -> bool:
    """Whether a line of a log has the mIoU of an evaluation; that of a split without labels is null."""
    return record["split"] == "val" and isinstance(record["mean_iou"], float) and math.isfinite(record["mean_iou"])


def read_verdict(folder: Path) -> Verdict | None:
    """Returns why a trial was stopped early; None if it was not."""
    try:
        values = read_json(folder / PRUNED_FILE)
        return Verdict(int(values["step"]), float(values["score"]), float(values["needed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Records that a trial is stopped early, which holds from now on."""
    write_json(folder / PRUNED_FILE, verdict._asdict())


def said(verdict: Verdict) -> str:
    """Returns a verdict in words."""
    return (
        f"stopped at step {verdict.step} with mIoU {100 * verdict.score:.2f} %, "
        f"where {100 * verdict.needed:.2f} % was needed"
    )


def best_of(trials: list[Trial]) -> Trial | None:
    """Returns the complete trial with the highest score, of equal ones the first; None if none is complete."""
    complete = [trial for trial in trials if trial.score is not None]
    return max(complete, key=lambda trial: (trial.score, -trial.number)) if complete else None
