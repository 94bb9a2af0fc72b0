"""The page of a sweep: its variants and their differences, the score of every seed, curves and classes."""

import math
from collections.abc import Sequence
from pathlib import Path

from jaxseg.errors import counted
from jaxseg.pages.charts import Axis, Series, chart
from jaxseg.pages.frame import Section, commands, escape, make_page
from jaxseg.pages.tables import Cell, number, share, table, text
from jaxseg.sweep.plan import Plan, read_plan
from jaxseg.sweep.results import Row, environments, gather
from jaxseg.sweep.statistics import LEVEL

_CURVES = 8
"""Variants whose curves are drawn at first."""


def sweep_page(workdir: Path, program: str, again: str) -> str:
    """Returns the page of the sweep in `workdir`, of the runs that have ended.

    Args:
        workdir: the folder of the sweep.
        program: what writes the page, see `pages.frame.is_page`.
        again: the command that makes it.

    Raises:
        ConfigError: if it holds no sweep.
    """
    plan = read_plan(workdir)
    rows = gather(plan, workdir)
    ended, wanted = sum(row.spread.n for row in rows), len(rows) * len(plan.seeds)
    about = (
        f"<p>The sweep in <code>{escape(workdir)}</code>: {counted(len(rows), 'variant')}, "
        f"{ended} of {counted(wanted, 'run')} with scores on the split {escape(plan.split)}.</p>"
    )
    sections = [
        Section("Variants", "variants", _variants(plan, rows)),
        Section("Seeds and curves", "curves", _charts(plan, rows)),
        Section("Classes", "classes", _classes(rows)),
        Section("Again", "again", _again(plan, workdir, rows, again)),
    ]
    return make_page(program, f"Sweep {workdir.name}", about, sections)


def _variants(plan: Plan, rows: Sequence[Row]) -> str:
    columns = ("variant", "no.", "changes", "seeds", "mIoU %", "± over seeds", "difference", "from", "to")
    lines = []
    for place, row in enumerate(rows, 1):
        base = plan.is_baseline(row.name)
        difference = (math.nan,) * 3 if row.difference is None else row.difference[:3]
        changes = ", ".join(f"{key}={value!r}" for key, value in plan.variants[row.name].items())
        failed = f", {len(row.failures)} failed" if row.failures else ""
        lines.append(
            [
                Cell(f"{escape(row.name)}{' (baseline)' if base else ''}", row.name),
                number(place, "{:d}"),
                Cell(f"<code>{escape(changes or 'nothing')}</code>", changes),
                text(f"{row.spread.n} of {len(plan.seeds)}{failed}"),
                share(row.spread.mean),
                share(row.spread.deviation),
                *(number(100 * value, "{:+.2f}") for value in difference),
                number(row.cost.parameters or math.nan, "{:,.0f}"),
                number(row.cost.flops / 1e6 if row.cost.flops else math.nan, "{:,.1f}"),
            ]
        )
    note = (
        f"<p>Differences to the baseline are in points, seed by seed, with their {LEVEL:.0%} t interval: one that "
        "holds 0 is not separable from noise. It covers what the seed changes, and is not corrected for the number of "
        "comparisons.</p>"
    )
    return table("Variants", (*columns, "parameters", "MFLOPs"), lines) + note


def _charts(plan: Plan, rows: Sequence[Row]) -> str:
    points = [
        Series(
            row.name,
            [(place, 100 * float(result.scores["mean_iou"])) for result in row.results],
            "points",
            [f"seed {result.seed}" for result in row.results],
        )
        for place, row in enumerate(rows, 1)
    ]
    variants = Axis("no. of the variant", 0.5, len(rows) + 0.5, form="{:.0f}")
    seeds = chart("The score of every seed", variants, Axis("mIoU in per cent", form="{:.2f} %"), points)
    charts = [seeds]
    for key, name, scale in (("mean_iou", "mIoU", 100), ("loss", "loss", 1)):
        lines = []
        for place, row in enumerate(rows):
            for result in row.results:
                curve = [
                    (r["step"], scale * r[key])
                    for r in result.log
                    if "split" in r and r["split"] != "train" and key in r and isinstance(r[key], int | float)
                ]
                hidden = place >= _CURVES
                lines.append(Series(f"{row.name}, seed {result.seed}", curve, hidden=hidden, hue=place))
        charts.append(
            chart(
                f"{name} of evaluations",
                Axis("step", form="{:.0f}"),
                Axis(f"{name}{' in per cent' if scale == 100 else ''}"),
                lines,
            )
        )
    return f'<div class="charts">{"".join(charts)}</div>'


def _classes(rows: Sequence[Row]) -> str:
    """Returns the mean IoU over the seeds by class and variant."""
    done = [row for row in rows if row.results]
    if not done:
        return "<p>No run has scores yet.</p>"
    by_variant = [[_by_class(result.scores["classes"]) for result in row.results] for row in done]
    names = list(dict.fromkeys(name for runs in by_variant for run in runs for name in run))
    lines = []
    for name in names:
        cells = [text(name)]
        for runs in by_variant:
            known = [value for run in runs if name in run and (value := run[name]) is not None]
            cells.append(share(math.fsum(known) / len(known) if known else math.nan))
        lines.append(cells)
    return table("Mean IoU over the seeds, by class, in per cent", ("class", *(row.name for row in done)), lines)


def _by_class(classes: Sequence[dict]) -> dict[str, float | None]:
    return {str(each["name"]): each["iou"] for each in classes}


def _again(plan: Plan, workdir: Path, rows: Sequence[Row], again: str) -> str:
    listed = commands([("The sweep, or what is left of it:", plan.command(workdir)), ("This page:", again)])
    failures = [
        [text(row.name), number(seed, "{:d}"), text(error)] for row in rows for seed, error in row.failures.items()
    ]
    if failures:
        listed += table("Runs that failed", ("variant", "seed", "error"), failures)
    where = "".join(f"<li>{escape(line)}</li>" for line in environments(rows))
    return listed + (f"<details><summary>Run on</summary><ul>{where}</ul></details>" if where else "")
