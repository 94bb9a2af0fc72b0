"""Writes what a search has found from the files of its trials, ended or not.

`trials.md`, `trials.json`, `search.png` and `best.py` have no times: the same trials give the same files.
"""

import math
import os
import shlex
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxseg.errors import ConfigError, counted
from jaxseg.files import write_text
from jaxseg.pictures import noting_errors
from jaxseg.run.workdir import write_json
from jaxseg.sweep.plan import locked
from jaxseg.sweep.search import draw
from jaxseg.sweep.search.best import best_file, is_edited
from jaxseg.sweep.search.importance import ranked
from jaxseg.sweep.search.plan import PICTURE, Study, read_study, refuse_others, shown
from jaxseg.sweep.search.proposing import importances, write_journal
from jaxseg.sweep.search.trials import Trial, Trials, best_of, name_of


def write_search_report(workdir: Path) -> dict[str, Path]:
    """Writes the report of the search in `workdir` into it; returns {what: path}.

    Raises:
        ConfigError: if it holds no search, or a picture of someone else that the report would replace.
        OSError: if it cannot be written.
    """
    refuse_others(read_study(workdir), workdir)  # raises before the folder of something else is locked
    with locked(workdir):
        return _write_report(read_study(workdir), workdir)


def _write_report(study: Study, workdir: Path) -> dict[str, Path]:
    trials = Trials(study, workdir).all()
    explained, anova, best = ranked(study, trials), importances(study, trials), best_of(trials)
    files = {"table": workdir / "trials.md", "numbers": workdir / "trials.json"}
    write_text(files["table"], table(study, trials, explained, anova, workdir))
    write_json(files["numbers"], numbers(study, trials, explained, anova))
    with noting_errors(workdir / PICTURE):
        draw.picture(study, trials, explained, anova, workdir / PICTURE)
        files["picture"] = workdir / PICTURE
    if best is not None:
        files["best"] = workdir / "best.py"
        text = best_file(study, best, len(trials))
        if _may_replace(files["best"]):
            write_text(files["best"], text)
        elif files["best"].read_bytes() != text.encode():
            warnings.warn(
                f"{files['best']} is kept as it is, since it was edited or is of an earlier version: trial "
                f"{best.number} is the best of {counted(len(trials), 'trial')} now. Without the file the report writes "
                "it anew.",
                stacklevel=3,
            )
    if study.sampler == "tpe":
        files["journal"] = workdir / "study.journal"
        part = workdir / f".study.{uuid.uuid4().hex[:12]}.part"
        try:
            write_journal(study, trials, str(part))
            os.replace(part, files["journal"])
        except ConfigError:  # without Optuna, where a report alone is asked for
            del files["journal"]
        finally:
            for left in workdir.glob(f"{part.name}*"):
                left.unlink()
    return files


def _may_replace(file: Path) -> bool:
    """Returns whether `best.py` is missing, or still what a report has written."""
    return not file.exists() or not is_edited(file.read_bytes().decode(errors="replace"))


def table(
    study: Study,
    trials: Sequence[Trial],
    explained: Mapping[str, float],
    anova: Mapping[str, float] | None,
    workdir: Path,
) -> str:
    """Returns `trials.md` of the search in `workdir`."""
    states = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "diverged")}
    broken = [trial for trial in trials if trial.state == "failed"]
    left = study.trials - sum(states.values()) - len(broken)
    parts = [f"{states['complete']} complete", f"{states['pruned']} pruned", f"{states['diverged']} diverged"]
    parts += [f"{len(broken)} failed"] if broken else []
    parts += [f"{left} not made yet"] if left > 0 else []
    planned = study.config({}).steps
    lines = [
        f"# Search of {Path(study.experiment.partition(':')[0]).stem}",
        "",
        f"mIoU on {study.split} after the last step, in per cent; the best is chosen by it, so that its score here is "
        "higher than what to expect. Trial 0 is the experiment as it is.",
        "",
        f"{counted(max(study.trials, len(trials)), 'trial')}: {', '.join(parts)}. Steps made: "
        f"{sum(trial.step for trial in trials):,} (a whole trial from the start has {planned:,}).",
        "",
        f"| trial | mIoU | {' | '.join(f'`{key}`' for key in study.spaces)} |",
        f"|---|---|{'---|' * len(study.spaces)}",
    ]
    for trial in in_order(trials):
        values = [shown(study.value(trial.values, key)).replace("|", "\\|") for key in study.spaces]
        lines.append(f"| {trial.number} | {_result(trial)} | {' | '.join(values)} |")
    lines += ["", *_importance_table(explained, anova), ""]
    if broken:
        lines += ["Failed:", "", *(f"- `{name_of(trial.number)}`: {_short(trial.error, workdir)}" for trial in broken)]
        lines.append("")
    return "\n".join([*lines, f"    {command_of(study, workdir)}", ""])


def _short(error: str, workdir: Path) -> str:
    return error.replace(f"{workdir}{os.sep}", "").replace("\n", " ")


def in_order(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials with the best first, then those without a score, which got farthest first."""

    def rank(trial: Trial) -> tuple[bool, float, int, int]:
        return trial.score is None, -(trial.score or 0.0), -trial.step, trial.number

    return sorted(trials, key=rank)


def _result(trial: Trial) -> str:
    if trial.score is not None:
        return f"{100 * trial.score:.2f}"
    if trial.state == "pruned" and trial.curve:
        return f"pruned at {trial.curve[-1][0]}: {100 * trial.curve[-1][1]:.2f}"
    return trial.state


def _importance_table(explained: Mapping[str, float], anova: Mapping[str, float] | None) -> list[str]:
    lines = [
        "Share of the scores' ranks that each key explains, by thirds of its values or by choice"
        + ("" if anova is None else ", and its share by PED-ANOVA")
        + ":",
        "",
        "| key | ranks explained |" + ("" if anova is None else " PED-ANOVA |"),
        "|---|---|" + ("" if anova is None else "---|"),
    ]
    for key in sorted(explained, key=lambda key: (math.isnan(explained[key]), -explained[key], key)):
        share = "too few trials" if math.isnan(explained[key]) else f"{explained[key]:.2f}"
        lines.append(f"| `{key}` | {share} |" + ("" if anova is None else f" {anova[key]:.2f} |"))
    return lines


def numbers(
    study: Study, trials: Sequence[Trial], explained: Mapping[str, float], anova: Mapping[str, float] | None
) -> dict[str, object]:
    """Returns `trials.json`: the trials with values, state, score and curve, the best, and the importances."""
    best = best_of(list(trials))
    return {
        "experiment": study.experiment,
        "split": study.split,
        "sampler": study.sampler,
        "pruner": study.pruner,
        "seed": study.seed,
        "best": None if best is None else best.number,
        "trials": [
            {
                "number": trial.number,
                "values": {key: study.value(trial.values, key) for key in study.spaces},
                "state": trial.state,
                "mean_iou": trial.score,
                "step": trial.step,
                "curve": [list(point) for point in trial.curve],
                "error": trial.error,
            }
            for trial in trials
        ],
        "ranks_explained": {key: None if math.isnan(share) else share for key, share in explained.items()},
        "ped_anova": None if anova is None else dict(anova),
    }


def command_of(study: Study, workdir: Path) -> str:
    """Returns the command that makes the search in `workdir`, a path from the current folder if it lies there."""
    workdir = workdir.relative_to(Path.cwd()) if workdir.is_relative_to(Path.cwd()) else workdir
    split = [] if study.split == "val" else [f"--split={study.split}"]
    words = [study.experiment, "--search", "--workdir", str(workdir), f"--trials={study.trials}", *split]
    return f"python -m jaxseg.sweep --config {shlex.join([*words, *study.overrides])}"
