"""What the folds of a cross-validation say together: scores over folds, and out-of-fold scores of all images."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg import metrics
from jaxseg.data.folds import HELD_OUT
from jaxseg.errors import ConfigError, counted
from jaxseg.files import write_atomically, write_text
from jaxseg.inference.image_totals import interval_dict, interval_line, interval_of
from jaxseg.inference.out_of_fold import FOLDER, SCORES, OutOfFold, joined, map_files, read_out_of_fold, write_scores
from jaxseg.metrics.formatting import markdown_table, percent, plain
from jaxseg.metrics.intervals import iou_and_mean
from jaxseg.run.workdir import write_json
from jaxseg.sweep.plan import PlannedRun
from jaxseg.sweep.records import read_scores
from jaxseg.sweep.statistics import Spread, spread


class Summary(NamedTuple):
    """The scores of all folds.

    Attributes:
        classes: the names of the classes.
        of_folds: f64[f,k+1], the IoU of each class and their mean, of each fold's run on its own images.
        found: the predictions of all images.
        grouped: whether the interval draws groups.
    """

    classes: tuple[str, ...]
    of_folds: np.ndarray
    found: OutOfFold
    grouped: bool

    @property
    def spreads(self) -> list[Spread]:
        """Mean and standard deviation of each class and the mean IoU over the folds that have the class."""
        return [spread([float(value) for value in column if not math.isnan(value)]) for column in self.of_folds.T]

    @property
    def pooled(self) -> np.ndarray:
        """f64[k+1], the IoU of each class and their mean over the pixels of all images."""
        return iou_and_mean(self.found.counts.total())

    @property
    def unit(self) -> str:
        """What the interval draws."""
        return "group" if self.grouped else "image"

    @property
    def interval(self) -> metrics.Interval:
        """The interval of `pooled` by the bootstrap over images or groups."""
        return interval_of(self.found.counts, self.found.groups if self.grouped else ())

    def __str__(self) -> str:
        interval, pooled = self.interval, self.pooled
        known = len(interval.low) == len(pooled)  # of many classes the mean alone has one
        rows: list[Sequence[str]] = [("class", "mean ± sd over folds", "out of fold", f"{interval.level:.0%} interval")]
        names = [*(name.replace("|", "\\|") for name in self.classes), "mean"]
        for i, (name, each) in enumerate(zip(names, self.spreads)):
            mean = "-" if not each.n else percent(each.mean) + (f" ± {percent(each.deviation)}" if each.n > 1 else "")
            place = i if known else (0 if name == names[-1] else None)
            low, high = (math.nan, math.nan) if place is None else (interval.low[place], interval.high[place])
            between = "-" if math.isnan(low) else f"{percent(low)} to {percent(high)}"
            rows.append((name, mean, percent(pooled[i]), between))
        images, folds = counted(self.found.counts.images, "image"), len(self.of_folds)
        return "\n".join(
            [
                *markdown_table(rows),
                "",
                f"IoU of {images}, each by the run of {folds} that was trained without it (last checkpoint).",
                f"Out of fold, mIoU {percent(pooled[-1])} %; {interval_line(interval, self.unit)}",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers in the types of JSON; shares of 1, None where a class has none."""
        folds = [{"mean_iou": plain(row[-1]), "iou": list(map(plain, row[:-1]))} for row in self.of_folds]
        spreads = [{"mean": plain(each.mean), "sd": plain(each.deviation), "folds": each.n} for each in self.spreads]
        pooled = list(map(plain, self.pooled))
        return {
            "classes": list(self.classes),
            "images": self.found.counts.images,
            "folds": folds,
            "over_folds": {"mean_iou": spreads[-1], "iou": dict(zip(self.classes, spreads))},
            "out_of_fold": {"mean_iou": pooled[-1], "iou": dict(zip(self.classes, pooled))},
            "intervals": interval_dict(self.interval, self.classes, self.unit),
        }


def summarise(runs: Sequence[PlannedRun], grouped: bool) -> Summary:
    """Returns the summary of finished runs, one for each fold.

    Raises:
        ConfigError: if the out-of-fold predictions of a run are not there whole.
    """
    parts, rows, classes = [], [], ()
    for run in runs:
        scores = read_scores(run.workdir, HELD_OUT)
        assert scores is not None  # it has finished
        try:
            parts.append(read_out_of_fold(run.workdir))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"The out-of-fold predictions of {run.workdir} cannot be read ({error}); remove its sweep-fold.json "
                "and give the command again, to make them once more."
            ) from error
        classes = tuple(row["name"] for row in scores["classes"])
        rows.append(iou_and_mean(parts[-1].counts.total()))
    return Summary(classes, np.stack(rows), joined(parts), grouped)


def write_summary(summary: Summary, runs: Sequence[PlannedRun], workdir: Path, command: str) -> dict[str, Path]:
    """Writes table.md, scores.json and oof/ with the class map of each image and scores.csv; returns {what: path}.

    Raises:
        ConfigError: if they cannot be written.
    """
    files = {"table": workdir / "table.md", "numbers": workdir / "scores.json", "out of fold": workdir / FOLDER}
    try:
        write_text(files["table"], f"# {workdir.name}\n\n{summary}\n\n    {command}\n")
        write_json(files["numbers"], {**summary.to_dict(), "command": command})
        write_scores(workdir / FOLDER / SCORES, summary.found, summary.classes)
        of_fold = {int(run.workdir.name.rpartition("-")[2]): run.workdir for run in runs}
        # Names that are distinct within each fold need not be so among all.
        for file, own, fold in zip(map_files(summary.found.names), summary.found.files, summary.found.folds):
            with (of_fold[fold] / FOLDER / own).open("rb") as made:
                write_atomically(workdir / FOLDER / file, lambda out: shutil.copyfileobj(made, out))
    except OSError as error:
        raise ConfigError(f"The summary cannot be written in {workdir}: {error.strerror or error}.") from error
    return files
