"""Draws the picture of a search: the best score so far, what each key explains, and the scores over its values."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg.pictures.figure import DPI, plain_text, save_figure, shorten
from jaxseg.sweep.search.plan import Study, shown
from jaxseg.sweep.search.spaces import Choice, is_log
from jaxseg.sweep.search.trials import Trial

_COLUMNS = 4
_GREY = "0.6"


@plain_text()
def picture(
    study: Study,
    trials: Sequence[Trial],
    explained: Mapping[str, float],
    anova: Mapping[str, float] | None,
    path: Path,
) -> None:
    """Draws the trials of a search into a PNG file.

    Args:
        study: the search.
        trials: those that have been started, by number.
        explained: for each key the share of the ranks that it explains, NaN for too few trials.
        anova: for each key its share by PED-ANOVA, or None.
        path: the file.
    """
    from matplotlib.figure import Figure

    rows = 1 + math.ceil(len(study.spaces) / _COLUMNS)
    figure = Figure(figsize=(15.0, 1.0 + 3.4 * rows), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(rows, _COLUMNS)
    _best_so_far(figure.add_subplot(grid[0, :2]), study, trials)
    _importances(figure.add_subplot(grid[0, 2:]), explained, anova)
    for place, key in enumerate(study.spaces):
        _scores_over(figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS]), study, trials, key)
    save_figure(figure, path)


def best_so_far(trials: Sequence[Trial]) -> list[tuple[int, float]]:
    """Returns (number, highest score of the complete trials up to it), from the first complete trial on."""
    best, found = -math.inf, []
    for trial in trials:
        best = max(best, -math.inf if trial.score is None else trial.score)
        if math.isfinite(best):
            found.append((trial.number, best))
    return found


def _best_so_far(axis: Any, study: Study, trials: Sequence[Trial]) -> None:
    from matplotlib.ticker import MaxNLocator

    line = best_so_far(trials)
    axis.step([n for n, _ in line], [100 * best for _, best in line], where="post", color="C0", label="best so far")
    complete = [(trial.number, 100 * trial.score) for trial in trials if trial.score is not None]
    axis.plot([n for n, _ in complete], [score for _, score in complete], "o", color="C0", label="complete")
    pruned = [(trial.number, 100 * trial.curve[-1][1]) for trial in trials if trial.state == "pruned" and trial.curve]
    if pruned:
        axis.plot([n for n, _ in pruned], [score for _, score in pruned], "x", color=_GREY, label="pruned, last score")
    diverged = [trial.number for trial in trials if trial.state == "diverged"]
    if diverged:
        axis.plot(diverged, [0.0] * len(diverged), "v", color="C3", label="diverged")
    if complete and complete[0][0] == 0:
        axis.axhline(complete[0][1], color=_GREY, linestyle="--", linewidth=1, label="the start")
    axis.set(xlabel="trial", title=f"mIoU on {shorten(study.split, 20)} in per cent")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    if trials:
        axis.legend(frameon=False, fontsize=8)


def _importances(axis: Any, explained: Mapping[str, float], anova: Mapping[str, float] | None) -> None:
    keys = sorted(explained, key=lambda key: (-_known(explained[key]), key))
    kinds = [("ranks explained by thirds or choices", explained)]
    if anova is not None:
        kinds.append(("PED-ANOVA", anova))
    height = 0.8 / len(kinds)
    for place, (name, shares) in enumerate(kinds):
        at = [i + (place - (len(kinds) - 1) / 2) * height for i in range(len(keys))]
        axis.barh(at, [_known(shares[key]) for key in keys], height, label=name, color=f"C{place}")
    axis.set_yticks(range(len(keys)), [shorten(key, 40) for key in keys])
    axis.set_ylim(len(keys) - 0.5, -0.5)
    axis.set_xlim(0, 1)
    known = any(not math.isnan(share) for share in explained.values())
    axis.set(title="importance of the keys" + ("" if known else "\ntoo few trials yet"))
    axis.grid(axis="x", alpha=0.3)
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)


def _known(share: float) -> float:
    return 0.0 if math.isnan(share) else share


def _scores_over(axis: Any, study: Study, trials: Sequence[Trial], key: str) -> None:
    space = study.spaces[key]
    values = list(space.values) if isinstance(space, Choice) else []
    for trial in trials:
        value, worth = study.value(trial.values, key), trial.worth
        if worth is None or (values and value not in values) or (not values and not isinstance(value, int | float)):
            continue
        at = values.index(value) if values else value
        axis.plot([at], [100 * worth], "s" if trial.number == 0 else "o", color="C3" if trial.number == 0 else "C0")
    if values:
        axis.set_xticks(range(len(values)), [shorten(shown(value), 18) for value in values], rotation=20, fontsize=8)
        axis.set_xlim(-0.5, len(values) - 0.5)
    elif is_log(space):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")  # without formulas, as all text here
        axis.xaxis.set_minor_formatter("")
    axis.set_title(shorten(key, 34) + "\nred square: the start", fontsize=9)
    axis.grid(alpha=0.3)
