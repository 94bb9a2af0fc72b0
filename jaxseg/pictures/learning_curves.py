"""The curves of a run: loss, mIoU and learning rate over the steps."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg.pictures.figure import DPI, save_figure


def curves(records: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Draws loss, mIoU and learning rate over the steps, one panel each; training and validation share a panel.

    Where the loss of the training has several parts, these are thin lines beside it.

    Args:
        records: the lines of `log.jsonl`: each has "step" and "split" ("train", or the evaluated split), and any of
            "loss", "loss/PART", "mean_iou" and "learning_rate"; other keys are ignored.
        path: the PNG file.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator

    records = list(records)
    figure = Figure(figsize=(13.5, 3.9), dpi=DPI, layout="constrained")
    panels = (("loss", "loss"), ("mean_iou", "mIoU in per cent"), ("learning_rate", "learning rate"))
    # Training first, so that it has the same colour in every run, also where an evaluation is logged first.
    splits = sorted(dict.fromkeys(record["split"] for record in records), key=lambda split: split != "train")
    parts = dict.fromkeys(key for r in records if r["split"] == "train" for key in r if key.startswith("loss/"))
    parts = list(parts) if len(parts) > 1 else []
    named: dict[str, Any] = {}  # lines by label; a label has the same colour in each panel
    for axis, (name, label) in zip(figure.subplots(1, 3), panels):
        for number, split in enumerate(splits):
            scale = 100 if name == "mean_iou" else 1
            points = [(r["step"], scale * r[name]) for r in records if r["split"] == split and _finite(r, name)]
            if points:
                steps, values = zip(*points)
                mark = "o" if len(points) == 1 or split != "train" else ""
                axis.plot(steps, values, color=f"C{number}", label=split, marker=mark, markersize=3.5, linewidth=1.6)
        for number, part in enumerate(parts if name == "loss" else (), start=len(splits)):
            points = [(r["step"], r[part]) for r in records if r["split"] == "train" and _finite(r, part)]
            if points:
                style = ":o" if len(points) == 1 else ":"
                label_of_part = part.removeprefix("loss/")
                axis.plot(*zip(*points), style, color=f"C{number}", label=label_of_part, markersize=2.5, linewidth=1.2)
        axis.set(xlabel="step", title=label)
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if not axis.lines:
            axis.text(0.5, 0.5, "nothing logged", ha="center", va="center", transform=axis.transAxes, color="grey")
        elif name == "mean_iou":
            axis.set_ylim(0.0, 100.0)
        elif name == "learning_rate":
            axis.set_ylim(bottom=0.0)
            axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        elif _spans_decades([float(v) for line in axis.lines for v in line.get_ydata()]):
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axis.yaxis.set_minor_formatter("")
        named = {str(line.get_label()): line for line in axis.lines} | named
    if named:  # below the panels, where no curve is
        order = [label for label in (*splits, *(part.removeprefix("loss/") for part in parts)) if label in named]
        handles, columns = [named[label] for label in order], min(len(order), 8)
        for text in figure.legend(handles, order, loc="outside lower center", frameon=False, ncols=columns).get_texts():
            text.set_parse_math(False)  # a split may have any name
    save_figure(figure, path)


def _spans_decades(values: Sequence[float]) -> bool:
    """Returns whether values are above 0 and a logarithmic axis of them has three labels or more (1, 2, 5, 10, ...)."""
    return min(values) > 0 and max(values) >= 10 * min(values)


def _finite(record: Mapping[str, Any], name: str) -> bool:
    return name in record and record[name] is not None and math.isfinite(record[name])
