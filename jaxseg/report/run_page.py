"""The page of one run on a split."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.errors import counted
from jaxseg.pages.cards import gallery
from jaxseg.pages.frame import Section, commands, escape, facts, make_page
from jaxseg.pages.tables import share, table, text
from jaxseg.report import parts
from jaxseg.report.collecting import Collected, wrong_shares
from jaxseg.report.images import cards_of, chosen_images, class_groups, pictures_of, run_lines
from jaxseg.run.provenance import read_starts
from jaxseg.run.report import LOG_FILE, read_log
from jaxseg.state import count_parameters

PROGRAM = "jaxseg report"
PAGE = "report.html"
"""The page of a run, in its workdir."""


def run_page(found: Collected, again: str) -> str:
    """Returns the page of a run.

    Args:
        found: the run on a split.
        again: the command that makes the page.
    """
    evaluation, run, names = found.evaluation, found.run, found.run.classes
    interval = evaluation.interval
    assert interval is not None  # of one process
    result, calibration = evaluation.scores, evaluation.calibration
    low, high = 100 * float(interval.low[-1]), 100 * float(interval.high[-1])
    pairs = [
        ("mean IoU", f"{100 * result.mean_iou:.2f} %" + ("" if np.isnan(low) else f" ({low:.1f} to {high:.1f})")),
        ("pixel accuracy", f"{100 * result.pixel_accuracy:.2f} %"),
        ("loss", f"{evaluation.loss:.4f}"),
        ("calibration error", f"{100 * calibration.error:.2f} %"),
        ("images", f"{evaluation.images} of {evaluation.split}"),
        ("classes", str(len(names))),
        ("network", f"{run.config.model.name}, {count_parameters(run.state.params):,} parameters"),
        ("checkpoint", f"{run.which}, after {counted(run.step, 'step')}"),
    ]
    groups = chosen_images(found)
    lines, sorts = run_lines(found, groups)
    cards = cards_of(found, groups, pictures_of(groups, [found], errors=True), lines, sorts)
    choices = [("worst", "the worst"), ("median", "around the median"), *class_groups(groups, names), ("", "all here")]
    images = gallery(cards, ("truth", "prediction", "error"), choices, names, run.colors)
    sections = [
        Section(
            "Classes", "classes", parts.classes(result, interval, found.counts, names, run.colors, evaluation.unit)
        ),
        Section("Images", "images", KEYS + images + _all_images(found)),
        Section("Curves", "curves", parts.curves({run.workdir.name: log_of(run.workdir)})),
        Section("Confusion", "confusion", parts.confusion(evaluation.confusion, names)),
        Section("Calibration", "calibration", parts.calibration(calibration)),
        Section("Sizes of objects", "objects", parts.objects(found.objects, names, result.support)),
        Section("Configuration", "configuration", parts.config_table(run.config)),
        Section("Again", "again", _again(run.workdir, evaluation.split, again)),
    ]
    how = "" if evaluation.predictor is None else f", segmented {evaluation.predictor}"
    about = (
        f"<p>The run in <code>{escape(run.workdir)}</code> on the split {escape(evaluation.split)}{escape(how)}.</p>"
    )
    return make_page(PROGRAM, f"{run.workdir.name}: {run.config.model.name}", about + facts(pairs), sections)


KEYS = (
    "<p>The layers left and right of the divider lie over the image. In an image, or with one enlarged, the keys "
    "<kbd>L</kbd> and <kbd>R</kbd> show one layer alone, <kbd>B</kbd> both, and <kbd>M</kbd> hides them.</p>"
)


def log_of(workdir: Path) -> list[dict[str, Any]]:
    """Returns the lines of the log of a run; none where it has no log."""
    return read_log(workdir / LOG_FILE) if (workdir / LOG_FILE).is_file() else []


def _all_images(found: Collected) -> str:
    scores, wrong = found.scores, wrong_shares(found.counts)
    rows = [
        [text(found.names[i]), share(float(scores[i])), share(float(wrong[i]))]
        for i in np.argsort(scores, kind="stable")
    ]
    listed = table("Every image, the worst first", ("image", "mean IoU %", "wrong pixels %"), rows)
    chart = parts.histogram({found.run.workdir.name: scores})
    every = f"<details><summary>All {counted(len(rows), 'image')}</summary>{listed}</details>"
    return f'<div class="charts">{chart}</div>{every}'


def _again(workdir: Path, split: str, again: str) -> str:
    starts = read_starts(workdir)
    place = shlex.quote(str(workdir))
    lines = [("How the run was started:", start["command"]) for start in starts[:1] if _text(start, "command")]
    lines += [
        ("The run again, elsewhere, and the two compared:", f"jaxseg reproduce {place}"),
        ("The scores:", f"jaxseg evaluate --workdir {place} --split {shlex.quote(split)}"),
        ("This page:", again),
    ]
    return commands(lines) + _machine(starts)


def _machine(starts: Sequence[dict[str, Any]]) -> str:
    """Returns what the last start of a run recorded of its machine; the record may be of anyone."""
    rows = []
    for name in ("time", "python", "device", "packages", "git"):
        if starts and name in starts[-1]:
            value = starts[-1][name]
            each = value.items() if isinstance(value, dict) else [("", value)]
            rows += [(f"{name} {key}".strip(), inner) for key, inner in each if inner not in (None, "", [], {})]
    if not rows:
        return ""
    cells = [[text(name), text(str(value)[:200])] for name, value in rows]
    listed = table("What the last start recorded", ("what", "value"), cells, filtered=False)
    return f"<details><summary>Machine and versions</summary>{listed}</details>"


def _text(start: dict[str, Any], name: str) -> bool:
    return name in start and isinstance(start[name], str) and bool(start[name])
