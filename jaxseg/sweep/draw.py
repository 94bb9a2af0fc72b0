"""Draws the pictures of a sweep: curves with their deviation, and differences with their interval."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg.pictures.figure import DPI, plain_text, save_figure, shorten
from jaxseg.run.gradients import draw_layers
from jaxseg.sweep.statistics import Difference, spread

Log = Sequence[Mapping[str, Any]]


@plain_text()
def curves(
    logs: Mapping[str, Sequence[Log]],
    differences: Mapping[str, Difference],
    baselines: Mapping[str, str],
    split: str,
    path: Path,
) -> None:
    """Draws loss and mIoU over the steps, mean ± standard deviation over seeds, and the differences to the baselines.

    Args:
        logs: for each variant, the lines of `log.jsonl` of each of its runs.
        differences: for each compared variant, the difference of mIoU (of 1, not in per cent).
        baselines: for each compared variant, its baseline. With several baselines, variants of one baseline share a
            line style.
        split: the split that the differences were scored on.
        path: the PNG file.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = max(len(logs), 1)
    figure = Figure(figsize=(15.0, max(4.2, 1.4 + 0.32 * rows)), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, 3)
    others = list(dict.fromkeys(baselines.values()))
    styles = _styles(logs, baselines if len(others) > 1 else {})
    panels = (("train", "loss", "training loss"), ("val", "mean_iou", "validation mIoU in per cent"))
    several = any(len(runs) > 1 for runs in logs.values())
    shown = "mean ± standard deviation over the seeds" if several else "one run of each variant"
    for axis, (part, key, label) in zip(axes, panels):
        for name, (color, line) in styles.items():
            steps, means, deviations = band(logs[name], part, key)
            if steps:
                scale = 100 if key == "mean_iou" else 1
                means, deviations = [scale * m for m in means], [scale * d for d in deviations]
                axis.plot(steps, means, line, color=color, label=name, linewidth=1.6, marker=".")
                low = [m - d for m, d in zip(means, deviations)]
                high = [m + d for m, d in zip(means, deviations)]
                axis.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axis.set(xlabel="step", title=f"{label}\n{shown}")
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if not axis.lines:
            axis.text(0.5, 0.5, "nothing yet", ha="center", va="center", transform=axis.transAxes, color="grey")
    if axes[1].lines:  # below the curves; with many variants a column for each baseline
        handles = axes[1].get_legend_handles_labels()[0]
        ncols = len(handles) if len(styles) <= 6 else max(len(others), 3)
        figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=8, ncols=ncols)
    known = {name: difference for name, difference in differences.items() if difference.n}
    for place, (name, (mean, low, high, _)) in enumerate(known.items()):
        reach = [[0.0], [0.0]] if math.isnan(low) else [[100 * (mean - low)], [100 * (high - mean)]]
        axes[2].errorbar([100 * mean], [place], xerr=reach, fmt="o", capsize=4, color=styles[name][0])
    axes[2].axvline(0.0, color="0.4", linewidth=1, linestyle="--")
    base = others[0] if len(others) == 1 else "baseline"
    names = list(known) if len(others) < 2 else [f"{name} to {baselines[name]}" for name in known]
    axes[2].set_yticks(range(len(known)), names)
    axes[2].set_ylim(max(len(known), 1) - 0.5, -0.5)
    axes[2].grid(axis="x", alpha=0.3)
    bars = "95 % interval" if any(difference.n > 1 for difference in known.values()) else "one seed, no interval"
    title = f"difference to {shorten(base, 30)} on {shorten(split, 20)}\n{bars if known else 'nothing yet'}"
    axes[2].set(xlabel="points of mIoU", title=title)
    save_figure(figure, path)


def gradients(norms: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path) -> None:
    """Draws the norm of each layer's gradient over the depth.

    Args:
        norms: for each variant the norms at initialisation and at the last step, from the image to the logits; empty
            for a variant without runs.
        path: the PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 4.8), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, place, title in zip(axes, (0, 1), ("at initialisation", "at the last step")):
        for name, (color, line) in _styles(norms).items():
            if norms[name][place]:
                draw_layers(axis, norms[name][place], name, whole=True, color=color, linestyle=line)
        axis.set(title=f"gradient by layer, {title}", xlabel="depth: 0 the image, 1 the logits", ylabel="norm")
    handles = max((axis.get_legend_handles_labels()[0] for axis in axes), key=len)
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=8, ncols=5)
    save_figure(figure, path)


def _styles(names: Iterable[str], baselines: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """Returns the colour and the line style of each variant; with `baselines`, each baseline has one line style."""
    lines = ("-", "--", ":", "-.")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[baselines[name] if baselines and name in baselines else name].append(name)
    if not baselines or len(groups) > len(lines) or max(map(len, groups.values())) > 10:
        return {name: (f"C{i % 10}", lines[i // 10 % 4]) for i, name in enumerate(names)}
    return {name: (f"C{i}", line) for line, group in zip(lines, groups.values()) for i, name in enumerate(group)}


def band(logs: Sequence[Log], split: str, key: str) -> tuple[list[int], list[float], list[float]]:
    """Returns the steps at which any run logged a number, with its mean and standard deviation (0 for one run)."""
    found: dict[int, list[float]] = defaultdict(list)
    for record in _records(logs):
        if record["split"] == split and record[key] is not None:
            found[record["step"]].append(record[key])
    steps = sorted(found)
    spreads = [spread(found[step]) for step in steps]
    return steps, [s.mean for s in spreads], [0.0 if math.isnan(s.deviation) else s.deviation for s in spreads]


def _records(logs: Iterable[Log]) -> Iterable[Mapping[str, Any]]:
    return (record for log in logs for record in log)
