"""The thresholds of a run's classes: found on a split, kept in its workdir, and applied where they are asked for."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import metrics
from jaxseg.errors import ConfigError, counted
from jaxseg.inference.fitted import fit_command, read_fit, sums_over_split, write_fit
from jaxseg.inference.other_data import about_other, on_other, require_own_name
from jaxseg.inference.predictor import Predictor
from jaxseg.metrics.formatting import markdown_table, nan_mean, percent, plain
from jaxseg.run.load import Run
from jaxseg.run.workdir import require_own_json

FILE = "thresholds.json"
"""The name of the file in the workdir."""

_OPTION = "--fit-thresholds finds them"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FoundThresholds:
    """Thresholds and the IoU of each class against all others with them; printed, it is a table.

    Attributes:
        run: the run.
        split: the split.
        images: how many images it has.
        values: the thresholds, and the IoU of each class at a probability of a half and at its threshold.
        found: whether they were found on this split; False: they were read, and this split scores them.
    """

    run: Run
    split: str
    images: int
    values: metrics.Thresholds
    found: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The classes with a threshold: all, or the second of a binary network."""
        return self.run.classes if self.run.num_classes > 1 else self.run.classes[1:]

    @property
    def probabilities(self) -> np.ndarray:
        """The thresholds f64[k] of the probabilities."""
        return 1.0 / (1.0 + np.exp(-self.values.logits))

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("class against all others", "threshold", "IoU at 0.5", "IoU at threshold")]
        for name, t, *pair in zip(self.names, self.probabilities, self.values.before, self.values.after):
            rows.append((name, f"{t:.4f}", *map(percent, pair)))
        rows.append(("mean", "", *(percent(nan_mean(each)) for each in (self.values.before, self.values.after))))
        how = "found" if self.found else "scored"
        where = f"{how} on {counted(self.images, 'image')} of split {self.split}{on_other(self.run)}; IoU in percent"
        return "\n".join([*markdown_table(rows), "", where])

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Returns what thresholds.json holds."""
        of_class = dict(zip(self.names, self.probabilities.tolist()))
        pairs = {"before": self.values.before, "after": self.values.after}
        return {
            "thresholds": of_class,
            "logits": self.values.logits.tolist(),
            "step": self.run.step,
            "which": self.run.which,
            "split": self.split,
            **about_other(self.run),
            "images": self.images,
            "iou": {when: {n: plain(v) for n, v in zip(self.names, values)} for when, values in pairs.items()},
        }

    def write(self) -> Path:
        """Writes thresholds.json into the workdir of the run, atomically; returns its path.

        Raises:
            ConfigError: if it cannot be written, or would replace a file that jaxseg did not write, or one of
                other data.
        """
        require_own(self.run)
        return write_fit(self.run, FILE, self.to_dict())


def require_own(run: Run) -> None:
    """Raises ConfigError if the workdir of a run has a thresholds.json that jaxseg did not write, or of other data."""
    require_own_json(run.workdir / FILE, ("thresholds", "step"))
    require_own_name(run.workdir / FILE, about_other(run))


def fit(run: Run, split: str = "val") -> FoundThresholds:
    """Returns the threshold of each class with the best IoU of the class against all others on a split.

    Args:
        run: from `load_run` or `load`; its classes have a sigmoid each, or it is binary.
        split: "val" or "test"; see `inference.evaluate`.

    Raises:
        ConfigError: if the probabilities of the run are a softmax, or the split has no labelled pixel.
        DataError: if the data is missing or empty, or its classes are not those of the run.
    """
    require_sigmoids(run)
    stats, images = _stats(run, split)
    if not stats.sum():
        raise ConfigError(f"The split {split} has no labelled pixel, so there are no thresholds to find.")
    return FoundThresholds(run, split, images, metrics.best_thresholds(stats))


def score(run: Run, split: str = "val") -> FoundThresholds:
    """Returns the IoU of each class on a split with the thresholds in the run's workdir; raises as `fit` and `read`."""
    logits = np.array(read(run))
    stats, images = _stats(run, split)
    halves, own = (metrics.threshold_iou(stats, each) for each in (np.zeros_like(logits), logits))
    return FoundThresholds(run, split, images, metrics.Thresholds(logits, halves, own), found=False)


def _stats(run: Run, split: str) -> tuple[np.ndarray, int]:
    stats = functools.partial(metrics.threshold_stats, multilabel=run.parts.loss.multilabel)
    sums, images = sums_over_split(run, split, {"thresholds": stats}, label="thresholds")
    return np.asarray(sums["thresholds"]), images


def require_sigmoids(run: Run) -> None:
    """Raises ConfigError if the classes of a run compete in a softmax, of which the largest is the answer."""
    if run.num_classes > 1 and not run.parts.loss.one_vs_rest:
        raise ConfigError(
            f"The run in {run.workdir} was trained with a softmax (loss.terms={run.config.loss.terms}), whose classes "
            "have no thresholds of their own; train with loss.terms=binary_cross_entropy for one sigmoid a class."
        )


def read(run: Run) -> tuple[float, ...]:
    """Returns the thresholds of the logits in a run's workdir, one for each logit.

    Raises:
        ConfigError: if there are none, they cannot be read, are those of other classes, or were found for another
            checkpoint, or the run has a softmax.
    """
    require_sigmoids(run)
    names, values = read_fit(run, FILE, _OPTION, holds="thresholds", parse=_parse)
    path, command = run.workdir / FILE, fit_command(run, _OPTION)
    wanted = list(run.classes if run.num_classes > 1 else run.classes[1:])
    if names != wanted or len(values) != len(wanted):
        raise ConfigError(
            f"{path} holds thresholds for {counted(len(values), 'class')} ({', '.join(names)}), and the run has "
            f"{counted(len(wanted), 'class')} with one ({', '.join(wanted)}); {command}."
        )
    return tuple(values)


def _parse(content: Any) -> tuple[list[str], list[float]]:
    """Returns the names of the classes and the thresholds of their logits."""
    return list(content["thresholds"]), [float(value) for value in content["logits"]]


def with_thresholds(predictor: Predictor, runs: Sequence[Run]) -> Predictor:
    """Returns a predictor with the thresholds in the workdir of its run.

    A pixel gets the class whose logit is farthest above its threshold, and IGNORE, for "no class", where none is above.
    A binary network gives class 1 above the threshold and class 0 elsewhere. Where a pixel may have several classes, it
    gets all that are above their thresholds.

    Raises:
        ConfigError: for several runs, whose thresholds differ, and as `read` does.
    """
    if len(runs) > 1:
        raise ConfigError(
            f"Thresholds are those of one run, and {counted(len(runs), 'run')} are averaged; give one --workdir."
        )
    return dataclasses.replace(predictor, networks=dataclasses.replace(predictor.networks, thresholds=read(runs[0])))
