"""The page of a search: the best against the start, the trials, and their scores by number and by value of each key."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxseg.pages.charts import Axis, Series, chart
from jaxseg.pages.frame import Section, commands, escape, facts, make_page
from jaxseg.pages.tables import Cell, bar, number, share, table, text
from jaxseg.sweep.search.best import is_comparison
from jaxseg.sweep.search.draw import best_so_far
from jaxseg.sweep.search.importance import ranked
from jaxseg.sweep.search.plan import Study, read_study, shown
from jaxseg.sweep.search.proposing import importances
from jaxseg.sweep.search.report import command_of, in_order
from jaxseg.sweep.search.spaces import Choice, is_log
from jaxseg.sweep.search.trials import Trial, Trials, best_of, name_of

_CURVES = 8
"""Trials whose curves are drawn at first."""
_STATES = ("complete", "pruned", "diverged", "failed", "unfinished")
_SCORE = Axis("mIoU in per cent", form="{:.2f} %")


def search_page(workdir: Path, program: str, again: str) -> str:
    """Returns the page of the search in `workdir`, of the trials that have started.

    Args:
        workdir: the folder of the search.
        program: what writes the page, see `pages.frame.is_page`.
        again: the command that makes it.

    Raises:
        ConfigError: if it holds no search.
    """
    study = read_study(workdir)
    trials = Trials(study, workdir).all()
    best = best_of(trials)
    sections = [
        Section("Best", "best", _best(study, trials, best)),
        Section("Trials", "trials", _trials(study, trials, best)),
        Section("Scores", "scores", _scores(study, trials)),
        Section("Keys", "keys", _keys(study, trials)),
        Section("Again", "again", _again(study, workdir, trials, again)),
    ]
    return make_page(program, f"Search {workdir.name}", _about(study, workdir, trials), sections)


def _about(study: Study, workdir: Path, trials: Sequence[Trial]) -> str:
    states = ((state, sum(trial.state == state for trial in trials)) for state in _STATES)
    rules = study.sampler + ("" if study.pruner == "none" else f", pruned by {study.pruner}")
    steps, whole = sum(trial.step for trial in trials), study.config({}).steps
    return (
        f"<p>The search in <code>{escape(workdir)}</code> for the mIoU on {escape(study.split)} after the last step "
        "of each trial. Trial 0 is the experiment as it is, the start.</p>"
        + facts(
            [
                ("trials", f"{len(trials)} of {study.trials}"),
                *((state, f"{count}") for state, count in states if count),
                ("sampler", rules),
                ("steps made", f"{steps:,}"),
                ("steps of a whole trial", f"{whole:,}"),
            ]
        )
    )


def _best(study: Study, trials: Sequence[Trial], best: Trial | None) -> str:
    if best is None:
        return "<p>No trial is complete yet.</p>"
    start = next((trial for trial in trials if trial.number == 0 and trial.score is not None), None)
    rows = [
        [
            Cell(f"<code>{escape(key)}</code>", key),
            _value(study, {}, key),
            _value(study, best.values, key),
            text("" if study.value(best.values, key) == study.value({}, key) else "changed"),
        ]
        for key in study.spaces
    ]
    found = [("best", f"trial {best.number}: {100 * (best.score or 0.0):.2f} %")]
    if start is not None and start.score is not None and best.score is not None:
        found.append(("start", f"{100 * start.score:.2f} %"))
        found.append(("difference", f"{100 * (best.score - start.score):+.2f} points"))
    note = (
        '<p class="note">The best was chosen by this score, so that it is higher than what to expect: compare it with '
        "the start on another split and with other seeds.</p>"
    )
    return facts(found) + note + table("The best and the start", ("key", "start", "best", "differs"), rows)


def _value(study: Study, values: Mapping[str, object], key: str) -> Cell:
    value = study.value(dict(values), key)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(escape(shown(value)), value if known else shown(value))


def _trials(study: Study, trials: Sequence[Trial], best: Trial | None) -> str:
    rows = []
    for trial in in_order(trials):
        named = " (start)" if trial.number == 0 else ""
        named += " (best)" if best is not None and trial.number == best.number else ""
        values = [_value(study, trial.values, key) for key in study.spaces]
        rows.append(
            [
                Cell(f"{trial.number}{named}", trial.number),
                text(trial.state),
                share(math.nan if trial.score is None else trial.score),
                share(trial.curve[-1][1] if trial.curve else math.nan),
                number(trial.step, "{:,d}"),
                *values,
            ]
        )
    columns = ("trial", "state", "mIoU %", "last evaluation %", "steps", *study.spaces)
    return table("Trials, the best first", columns, rows)


def _scores(study: Study, trials: Sequence[Trial]) -> str:
    best = best_so_far(trials)
    series = [
        Series(
            "best so far", [(n, 100 * score) for n, score in best], labels=[f"best up to trial {n}" for n, _ in best]
        ),
        *(_by_state(trials, state, lambda trial: float(trial.number)) for state in ("complete", "pruned", "diverged")),
    ]
    history = chart(
        "Scores of the trials",
        Axis("trial", form="{:.0f}"),
        _SCORE,
        series,
        "Of a pruned trial that of its last evaluation; a trial that diverged counts as 0.",
    )
    ordered = in_order(trials)
    curves = [
        Series(
            f"trial {trial.number}{'' if trial.state == 'complete' else f', {trial.state}'}",
            [(step, 100 * score) for step, score in trial.curve],
            hidden=place >= _CURVES,
            hue=place,
        )
        for place, trial in enumerate(ordered)
    ]
    evaluations = chart("Evaluations", Axis("step", form="{:.0f}"), _SCORE, curves)
    return f'<div class="charts">{history}{evaluations}</div>'


def _by_state(trials: Sequence[Trial], state: str, place: Callable[[Trial], float | None]) -> Series:
    chosen = [(trial, place(trial)) for trial in trials if trial.state == state]
    points = [(trial, at, _drawn(trial)) for trial, at in chosen if at is not None]
    return Series(
        state,
        [(at, 100 * score) for _, at, score in points if score is not None],
        "points",
        [f"trial {trial.number}, {trial.state}" for trial, _, score in points if score is not None],
        hue=1 + _STATES.index(state),
    )


def _drawn(trial: Trial) -> float | None:
    """Returns the score by which a trial is drawn; None of one without."""
    if trial.state == "pruned":
        return trial.curve[-1][1] if trial.curve else None
    return trial.worth


def _keys(study: Study, trials: Sequence[Trial]) -> str:
    explained, anova = ranked(study, trials), importances(study, trials)
    rows = []
    for key in sorted(explained, key=lambda key: (math.isnan(explained[key]), -explained[key], key)):
        cells = [Cell(f"<code>{escape(key)}</code>", key), number(explained[key]), bar(explained[key], *[math.nan] * 2)]
        rows.append(cells if anova is None else [*cells, number(anova[key])])
    columns = ("key", "ranks explained", "share", *(() if anova is None else ("PED-ANOVA",)))
    note = (
        '<p class="note">The share of the variance of the scores\' ranks that lies between thirds of the values of a '
        "key, or between its choices; – where there are too few trials. It describes the trials that were made.</p>"
    )
    charts = [_over(study, trials, key) for key in study.spaces]
    return table("Importance of the keys", columns, rows) + note + f'<div class="charts">{"".join(charts)}</div>'


def _over(study: Study, trials: Sequence[Trial], key: str) -> str:
    """Returns the chart of the scores over the values of a key."""
    space = study.spaces[key]
    choices = list(space.values) if isinstance(space, Choice) else []

    def place(trial: Trial) -> float | None:
        value = study.value(trial.values, key)
        if choices:
            return float(choices.index(value)) if value in choices else None
        return float(value) if isinstance(value, int | float) else None

    series = [_by_state(trials, state, place) for state in ("complete", "pruned", "diverged")]
    start = [trial for trial in trials if trial.number == 0]
    series.append(_by_state(start, "complete", place)._replace(name="the start", hue=7))
    axis = Axis(key, log=10 if is_log(space) else 0)
    note = ""
    if choices:
        axis = Axis(key, -0.5, len(choices) - 0.5, form="{:.0f}")
        note = ", ".join(f"{i}: {shown(value)}" for i, value in enumerate(choices)) + "."
    return chart(f"Scores over {key}", axis, _SCORE, series, note)


def _again(study: Study, workdir: Path, trials: Sequence[Trial], again: str) -> str:
    lines = [("The search, or what is left of it:", command_of(study, workdir)), ("This page:", again)]
    file = workdir / "best.py"
    if file.exists():  # once the search has ended
        lines.insert(1, ("The best by itself:", shlex.join(["jaxseg", "train", "--config", str(file)])))
        if is_comparison(file.read_text(encoding="utf-8", errors="replace")):
            words = ["jaxseg", "sweep", "--config", str(file), "--split", "test"]
            lines.insert(2, ("The best and the start:", shlex.join(words)))
    told = [trial for trial in trials if trial.error]
    rows = [[Cell(escape(name_of(trial.number)), trial.number), text(trial.state), text(trial.error)] for trial in told]
    ends = table("How trials ended", ("trial", "state", "why"), rows) if rows else ""
    return commands(lines) + ends
