"""Writes the report of a sweep from the files of its runs, finished or not.

`table.md`, `table.csv`, `results.jsonl` and the pictures are the same after a second sweep into a folder of the same
name on the same machine; times are in `timing.md` and `timing.csv`.
"""

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg.errors import counted
from jaxseg.files import write_text
from jaxseg.pictures import noting_errors
from jaxseg.sweep import draw
from jaxseg.sweep.outputs import require_own_report
from jaxseg.sweep.plan import Plan, locked, read_plan
from jaxseg.sweep.results import MUCH, Row, environments, gather, mean_gradients, minutes, step_seconds
from jaxseg.sweep.statistics import LEVEL, Difference, Spread


def write_report(workdir: Path) -> dict[str, Path]:
    """Writes the report of the sweep in `workdir` into it; returns {what: path}.

    Raises:
        ConfigError: if it holds no sweep, or a picture of someone else that the report would replace.
        OSError: if it cannot be written.
    """
    read_plan(workdir)  # raises before the folder of something else is locked
    require_own_report(workdir)
    with locked(workdir):
        return _write_report(read_plan(workdir), workdir)


def _write_report(plan: Plan, workdir: Path) -> dict[str, Path]:
    rows = gather(plan, workdir)
    texts = {
        "table": ("table.md", table(plan, rows, workdir)),
        "numbers": ("table.csv", _csv(plan, rows)),
        "runs": ("results.jsonl", _results(plan, rows)),
        "times": ("timing.md", timing(plan, rows, workdir)),
        "run times": ("timing.csv", _timing_csv(rows)),
    }
    files = {what: workdir / name for what, (name, _) in texts.items()}
    for name, text in texts.values():
        write_text(workdir / name, text)
    with noting_errors(workdir / "plot.png"):
        draw.curves(
            {row.name: [result.log for result in row.results] for row in rows},
            {row.name: row.difference for row in rows if row.difference is not None},
            plan.baselines,
            plan.split,
            workdir / "plot.png",
        )
        files["plot"] = workdir / "plot.png"
    if any(result.gradients for row in rows for result in row.results):
        files["gradient norms"] = workdir / "gradients.csv"
        norms = {
            row.name: mean_gradients([result.gradients for result in row.results], row.cost.layers) for row in rows
        }
        with noting_errors(workdir / "gradients.png"):
            draw.gradients(norms, workdir / "gradients.png")
            files["gradients"] = workdir / "gradients.png"
        write_text(files["gradient norms"], _gradients_csv(norms, {row.name: row.cost.layers for row in rows}))
    return files


def table(plan: Plan, rows: Sequence[Row], workdir: Path) -> str:
    """Returns `table.md` of the sweep in `workdir`."""
    several = not isinstance(plan.baseline, str)
    other = "the variant named after it" if several else f"`{plan.baseline}`"
    lines = [
        f"# {Path(plan.experiment).stem}",
        "",
        f"mIoU on {plan.split} after the last step, in per cent: mean ± standard deviation over the seeds. Difference "
        f"to {other} in points, seed by seed, with its {LEVEL:.0%} t interval; one that holds 0 is not "
        "separable from noise. It covers what the seed changes, the order of the images and the initialisation, and is "
        "not corrected for the number of comparisons.",
        "",
        "| variant | seeds | mIoU | difference | parameters | MFLOPs | config |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        done, all_ = row.spread.n, len(plan.seeds)
        cells = (
            f"`{row.name}`" + (" (baseline)" if plan.is_baseline(row.name) else ""),
            (f"{done}" if done == all_ else f"{done} of {all_}")
            + (f", {len(row.failures)} failed" if row.failures else ""),
            _mean(row.spread),
            _interval(row.difference, plan.baseline_of(row.name) if several else "", done),
            _parameters(row),
            f"{row.cost.flops / 1e6:,.1f}" if row.cost.flops else "",
            row.cost.config[:8],
        )
        lines.append(f"| {' | '.join(cells)} |")
    if any(row.resized for row in rows):
        lines += [
            "",
            f"† More than {MUCH:.0%} more or fewer parameters than {'its' if several else 'the'} baseline: the "
            "variants also differ in size.",
        ]
    ended, wanted = sum(row.spread.n for row in rows), len(rows) * len(plan.seeds)
    if ended < wanted:
        broken = sum(len(row.failures) for row in rows)
        scored = f"{ended} of {counted(wanted, 'run')} {'has' if ended == 1 else 'have'} scores"
        lines += ["", f"Partial: {scored}" + (f", {broken} failed." if broken else ".")]
    failures = [f"- `{row.name}` seed {seed}: {error}" for row in rows for seed, error in row.failures.items()]
    lines += ["", "Failed:", "", *failures] if failures else []
    lines += ["", f"    {plan.command(workdir)}", "", "What the variants change:", ""]
    lines += [f"- `{name}`: {_changes(changes)}{_from(plan, name)}" for name, changes in plan.variants.items()]
    where = environments(rows)
    mixed = (
        f"Run on {counted(len(where), 'kind')} of machine or versions, so the differences include that of the machines:"
    )
    lines += ["", mixed if len(where) > 1 else "Run on:", "", *(f"- {line}" for line in where)] if ended else []
    return "\n".join(lines) + "\n"


def _from(plan: Plan, variant: str) -> str:
    return f"; from the last weights of `{start}`, of the same seed" if (start := plan.start_of(variant)) else ""


def _mean(scores: Spread) -> str:
    if not scores.n:
        return ""
    return f"{100 * scores.mean:.2f}" + (f" ± {100 * scores.deviation:.2f}" if scores.n > 1 else "")


def _interval(difference: Difference | None, other: str, runs: int) -> str:
    if difference is None or not difference.n:
        return ""
    mean, low, high = (100 * value for value in difference[:3])
    interval = f" [{low:+.2f}, {high:+.2f}]" if difference.n > 1 else ""
    paired = f" over {counted(difference.n, 'seed')}" if difference.n < runs else ""
    return f"{mean:+.2f}{interval}{paired}" + (f" to `{other}`" if other else "")


def _parameters(row: Row) -> str:
    share = f" ({row.larger:+.1%})" if row.cost.parameters and row.larger else ""
    share = "" if math.isnan(row.larger) else share
    return (f"{row.cost.parameters:,}" if row.cost.parameters else "") + share + (" †" if row.resized else "")


def _changes(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}={json.dumps(value)}`" for key, value in changes.items()) or "nothing"


def _csv(plan: Plan, rows: Sequence[Row]) -> str:
    names = ("variant", "baseline", "runs", "planned", "mean_iou", "deviation")
    names += ("difference", "low", "high", "paired", "parameters", "flops", "resized", "config")
    lines = [
        (
            row.name,
            plan.baseline_of(row.name),
            row.spread.n,
            len(plan.seeds),
            row.spread.mean,
            row.spread.deviation,
            *(row.difference or ("", "", "", "")),
            row.cost.parameters or "",
            row.cost.flops or "",
            row.resized,
            row.cost.config,
        )
        for row in rows
    ]
    return _to_csv([names, *lines])


def _to_csv(lines: Iterable[Sequence[Any]]) -> str:
    """Returns lines of comma-separated values; NaN is left empty."""
    text = io.StringIO()
    for line in lines:
        values = ["" if isinstance(value, float) and math.isnan(value) else value for value in line]
        csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _results(plan: Plan, rows: Sequence[Row]) -> str:
    """Returns one line of JSON for each run: its variant, and its scores or its error."""
    lines = []
    for row in rows:
        about = {
            "variant": row.name,
            "baseline": plan.baseline_of(row.name),
            "split": plan.split,
            "config": row.cost.config,
            "parameters": row.cost.parameters,
            "flops": row.cost.flops,
        }
        for result in row.results:
            kept = ("step", "images", "loss", "mean_iou", "pixel_accuracy", "classes", "device", "versions")
            about_run = {"seed": result.seed, "git": result.starts[-1]["git"] if result.starts else None}
            lines.append({**about, **about_run, **{name: result.scores[name] for name in kept}})
        lines += [{**about, "seed": seed, "error": error} for seed, error in row.failures.items()]
    return "".join(json.dumps(line) + "\n" for line in lines)


def timing(plan: Plan, rows: Sequence[Row], workdir: Path) -> str:
    """Returns `timing.md`: medians over the runs of a variant."""
    lines = ["Medians over the runs of each variant, with whatever else the machine did at the time.", ""]
    spent = [minutes(result) for row in rows for result in row.results]
    total = counted(round(math.fsum(spent)), "minute") if spent and not any(map(math.isnan, spent)) else ""
    lines += ["| variant | runs | ms a step | images/s | minutes a run |", "|---|---|---|---|---|"]
    for row in rows:
        if row.results:
            batch = row.results[0].scores["config"]["batch_size"]
            seconds = statistics.median(map(step_seconds, row.results))
            whole = [value for value in map(minutes, row.results) if not math.isnan(value)]
            took = f"{statistics.median(whole):.1f}" if whole else "resumed"
            rate = ("", "") if math.isnan(seconds) else (f"{1000 * seconds:.1f}", f"{batch / seconds:.1f}")
            cells = (f"`{row.name}`", len(row.results), *rate, took)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", f"Training of {counted(len(spent), 'ended run')}: {total}, one after the other."] if total else []
    return (
        "\n".join([*lines, "", f"    {plan.command(workdir)}", "", *(f"- {line}" for line in environments(rows))])
        + "\n"
    )


def _gradients_csv(norms: Mapping[str, tuple[list[float], list[float]]], layers: Mapping[str, Sequence[str]]) -> str:
    lines = [
        (name, number, layer, *means)
        for name, both in norms.items()
        if all(both)
        for number, (layer, *means) in enumerate(zip(layers[name], *both))
    ]
    return _to_csv([("variant", "depth", "layer", "at_initialisation", "at_the_last_step"), *lines])


def _timing_csv(rows: Sequence[Row]) -> str:
    names = ("variant", "seed", "seconds_a_step", "minutes", "started")
    lines = [
        (row.name, result.seed, step_seconds(result), minutes(result), *(start["time"] for start in result.starts[:1]))
        for row in rows
        for result in row.results
    ]
    return _to_csv([names, *lines])
