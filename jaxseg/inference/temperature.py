"""The temperature of a run: fitted on a split, kept in its workdir, and applied where it is asked for."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxseg import metrics
from jaxseg.errors import ConfigError, counted
from jaxseg.inference.fitted import fit_command, read_fit, sums_over_split, write_fit
from jaxseg.inference.other_data import about_other, on_other, require_own_name
from jaxseg.inference.predictor import Predictor
from jaxseg.metrics.formatting import markdown_table, nan_mean, percent, plain
from jaxseg.run.load import Run, require_one_class
from jaxseg.run.workdir import require_own_json
from jaxseg.state import Network
from jaxseg.types import PyTree

FILE = "temperature.json"
"""The name of the file in the workdir."""


@dataclasses.dataclass(frozen=True)
class ScaledModel:
    """A model in inference whose logits are divided by a temperature; its classes stay the same."""

    model: Network
    temperature: float

    def apply(self, variables: Mapping[str, PyTree], image: jax.Array, **arguments: Any) -> Any:
        """f32[b,h,w,c] -> (logits, out)."""
        logits, out = self.model.apply(variables, image, **arguments)
        return logits / self.temperature, out


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Scaling:
    """The temperature of a run and what it changes on the split that it was fitted on; printed, it is a table.

    Attributes:
        run: the run.
        split: the split.
        images: how many images it has.
        fitted: the temperature and the NLL before and after.
        error_before, error_after: the expected calibration error of the predicted class (`metrics.calibration`).
        classes_before, classes_after: f64[k], that of each class (`metrics.class_calibration`).
    """

    run: Run
    split: str
    images: int
    fitted: metrics.Temperature
    error_before: float
    error_after: float
    classes_before: np.ndarray
    classes_after: np.ndarray

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("calibration error", "before", "after")]
        for name, *pair in zip(self.run.classes, self.classes_before, self.classes_after):
            rows.append((name, *map(percent, pair)))
        means = map(nan_mean, (self.classes_before, self.classes_after))
        rows.append(("mean of the classes", *map(percent, means)))
        rows.append(("predicted class", percent(self.error_before), percent(self.error_after)))
        rows.append(("NLL (nats)", f"{self.fitted.nll_before:.4f}", f"{self.fitted.nll_after:.4f}"))
        limit = ", the limit of what is tried" if self.fitted.at_limit else ""
        where = (
            f"fitted on {counted(self.images, 'image')} of split {self.split}{on_other(self.run)}; errors in percent"
        )
        return "\n".join([*markdown_table(rows), "", f"temperature {self.fitted.value:.4f}{limit}, {where}"])

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Returns what temperature.json holds."""
        names = self.run.classes
        pairs = (self.classes_before, self.classes_after)
        before, after = ({n: plain(e) for n, e in zip(names, errors)} for errors in pairs)
        return {
            "temperature": self.fitted.value,
            "step": self.run.step,
            "which": self.run.which,
            "split": self.split,
            **about_other(self.run),
            "images": self.images,
            "nll": {"before": self.fitted.nll_before, "after": self.fitted.nll_after},
            "calibration_error": {"before": plain(self.error_before), "after": plain(self.error_after)},
            "class_calibration_error": {"before": before, "after": after},
        }

    def write(self) -> Path:
        """Writes temperature.json into the workdir of the run, atomically; returns its path.

        Raises:
            ConfigError: if it cannot be written, or would replace a file that jaxseg did not write, or one of
                other data.
        """
        require_own(self.run)
        return write_fit(self.run, FILE, self.to_dict())


def require_own(run: Run) -> None:
    """Raises ConfigError if the workdir of a run has a temperature.json that jaxseg did not write, or of other data."""
    require_own_json(run.workdir / FILE, ("temperature", "step", "split"))
    require_own_name(run.workdir / FILE, about_other(run))


def fit(run: Run, split: str = "val") -> Scaling:
    """Returns the temperature that minimises the NLL of a split, which the run was not trained on as a rule.

    It passes over the split twice: for the temperature, and for the calibration with it.

    Args:
        run: from `load_run` or `load`.
        split: "val" or "test"; see `inference.evaluate`.

    Raises:
        ConfigError: if the split has no labelled pixel.
        DataError: if the data is missing or empty, or its classes are not those of the run.
        OutOfMemoryError: if a batch does not fit into the device's memory.
    """
    require_one_class(run, "A temperature")
    sigmoids = run.parts.loss.one_vs_rest
    of = functools.partial(functools.partial, one_vs_rest=sigmoids)
    before, images = sums_over_split(
        run,
        split,
        {
            "temperature": of(metrics.temperature_stats),
            "calibration": of(metrics.calibration_stats),
            "classes": of(metrics.class_calibration_stats),
        },
        label="temperature",
    )
    fitted = metrics.fit_temperature(before["temperature"])
    if math.isnan(fitted.value):
        raise ConfigError(f"The split {split} has no labelled pixel, so there is nothing to fit a temperature to.")
    after, _ = sums_over_split(
        run,
        split,
        {"calibration": of(metrics.calibration_stats), "classes": of(metrics.class_calibration_stats)},
        label="temperature",
        model_of=lambda model: ScaledModel(model, fitted.value),
    )
    errors = [metrics.calibration(sums["calibration"]).error for sums in (before, after)]
    classes = [metrics.class_calibration(sums["classes"]) for sums in (before, after)]
    return Scaling(run, split, images, fitted, errors[0], errors[1], classes[0], classes[1])


def read(run: Run) -> float:
    """Returns the temperature in a run's workdir.

    A prediction uses it only where it is asked to, so that the probabilities of a run mean the same with and without
    the file.

    Raises:
        ConfigError: if there is none, it cannot be read, or it was made for another checkpoint.
    """
    value = read_fit(
        run,
        FILE,
        "--fit-temperature fits one",
        holds="temperature",
        parse=lambda content: float(content["temperature"]),
    )
    if not 0 < value < math.inf:
        raise ConfigError(
            f"{run.workdir / FILE} holds the temperature {value}, where a number above 0 is needed; "
            f"{fit_command(run, '--fit-temperature fits one')}."
        )
    return value


def scaled(predictor: Predictor, runs: Sequence[Run]) -> Predictor:
    """Returns a predictor whose networks divide their logits by the temperatures in the workdirs of their runs.

    Raises:
        ConfigError: as `read` does.
    """
    members = tuple(
        dataclasses.replace(member, model=ScaledModel(member.model, read(run)))
        for member, run in zip(predictor.networks.members, runs)
    )
    return dataclasses.replace(predictor, networks=dataclasses.replace(predictor.networks, members=members))
