"""Finding the settings of a dense CRF on a split of the data, by a grid."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import metrics
from jaxseg.errors import ArgumentError, counted, nearest
from jaxseg.inference.crf import colors, numbers, refiner, to_logits
from jaxseg.inference.other_data import about_other, open_split, other_data, require_own_name
from jaxseg.inference.predictor import make_predictor
from jaxseg.inference.progress import each
from jaxseg.inference.report_files import of_data, scores_file
from jaxseg.metrics.formatting import markdown_table
from jaxseg.nn.crf import CRF
from jaxseg.nn.ops.dense_crf import kernel_radius
from jaxseg.run.load import Run, require_one_class, require_single
from jaxseg.run.workdir import require_own_json, write_or_refuse

GRID: dict[str, tuple[float, ...]] = {
    "appearance_weight": (2.0, 4.0, 8.0),
    "appearance_xy": (30.0, 50.0, 80.0),
    "appearance_rgb": (3.0, 5.0, 10.0),
}
"""What `search_crf` tries by default: around the ranges of Chen et al. 2015, section 4.1, in fewer steps."""


class Trial(NamedTuple):
    """What one setting of the CRF scored.

    Attributes:
        crf: the settings; None: without a CRF.
        mean_iou: over all images, in [0, 1].
        pixel_accuracy: over all images, in [0, 1].
        confusion: i64[k,k]; see `metrics.confusion_matrix`.
    """

    crf: CRF | None
    mean_iou: float
    pixel_accuracy: float
    confusion: np.ndarray


class CRFSearch(NamedTuple):
    """The result of `search_crf`; printed, it is a table.

    Attributes:
        split: the split.
        images: how many images were scored.
        trials: the network alone first, then each setting, by falling mIoU.
    """

    split: str
    images: int
    trials: tuple[Trial, ...]

    @property
    def best(self) -> CRF | None:
        """The settings with the highest mIoU; None where no CRF scores higher than the network alone."""
        alone, *others = self.trials
        return others[0].crf if others and others[0].mean_iou > alone.mean_iou else None

    def to_dict(self) -> dict[str, Any]:
        """Returns what a JSON file of it holds."""
        rows = [
            {"crf": None if t.crf is None else str(t.crf), "mean_iou": t.mean_iou, "pixel_accuracy": t.pixel_accuracy}
            for t in self.trials
        ]
        best = None if self.best is None else str(self.best)
        return {"split": self.split, "images": self.images, "best": best, "trials": rows}

    def __str__(self) -> str:
        names = _differing([trial.crf for trial in self.trials if trial.crf is not None])
        rows: list[tuple[str, ...]] = [(*names, "mIoU", "pixel accuracy")]
        for crf, mean_iou, accuracy, _ in self.trials:
            cells = [f"{getattr(crf, name):g}" if crf else "no CRF" if i == 0 else "" for i, name in enumerate(names)]
            rows.append((*cells, f"{100 * mean_iou:.2f}", f"{100 * accuracy:.2f}"))
        best = "No CRF scores higher than the network alone." if self.best is None else f"best: --crf {self.best}"
        return "\n".join([*markdown_table(rows), "", f"{counted(self.images, 'image')}, split {self.split}", best])


def _differing(settings: Sequence[CRF]) -> list[str]:
    """Returns the names of the numbers that are not the same in all settings; one name at least."""
    names = [*(name for name in settings[0].numbers), "iterations"]
    several = [name for name in names if len({getattr(crf, name) for crf in settings}) > 1]
    return several or names[:1]


def file_of(run: Run, split: str) -> Path:
    """Returns the path of crf-SPLIT.json of a run, which says on which data, if on others than its own."""
    name = scores_file(run.workdir, of_data(split, other_data(run))).name
    return run.workdir / name.replace("evaluate-", "crf-", 1)


def require_own(run: Run, split: str) -> None:
    """Raises ConfigError if there is a file of the name of the table that is none of ours, or on other data."""
    file = file_of(run, split)
    require_own_json(file, ("split", "best", "trials"))
    require_own_name(file, about_other(run))


def write_table(run: Run, found: CRFSearch) -> Path:
    """Writes crf-SPLIT.json into the workdir of a run, atomically; returns its path.

    Raises:
        ConfigError: if it cannot be written, or would replace a file that jaxseg did not write or one on other data.
    """
    require_own(run, found.split)
    file = file_of(run, found.split)
    write_or_refuse(file, found.to_dict() | about_other(run))
    return file


def parse_grid(text: str) -> dict[str, tuple[float, ...]]:
    """Returns the grid that a text such as "appearance_weight=3-4-5,appearance_xy=50" names.

    Raises:
        ArgumentError: for another text.
    """
    grid = {}
    for part in text.split(","):
        name, _, values = (each.strip() for each in part.partition("="))
        try:
            grid[name] = tuple(float(value) for value in values.split("-"))
        except ValueError:
            raise ArgumentError(
                f"A grid is NAME=VALUE-VALUE-... with commas between, such as appearance_xy=30-50-80, got {part!r}."
            ) from None
    return grid


def search_crf(
    run: Run,
    split: str = "val",
    grid: Mapping[str, Sequence[float]] | None = None,
    *,
    start: CRF | str = "deeplab-v1",
    images: int = 100,
) -> CRFSearch:
    """Scores every setting of a grid on a split, each image once at its own size, as `jaxseg.evaluate` scores it.

    Chen et al. 2015 search so on 100 images of the validation split. A split that is used for this is no test.

    Args:
        run: from `load_run`.
        split: "train", "val", "test" or another split of the data.
        grid: {number of the CRF: values}; default: `GRID`.
        start: the settings of all else.
        images: images of the split that are scored, evenly spaced.

    Raises:
        ArgumentError: for an unknown name or an invalid value in the grid.
        DataError: if the data is missing, or has no such split.
        OutOfMemoryError: if a CRF over an image would take more memory than there is.
    """
    require_one_class(run, "A dense CRF")
    require_single(run, "A search of a dense CRF")
    settings = grid_settings(CRF.parse(start) if isinstance(start, str) else start, GRID if grid is None else grid)
    radius = max(kernel_radius(crf.smooth_xy) for crf in settings)
    config, source = run.config, open_split(run, split)
    chosen = sorted({i * len(source) // images for i in range(images)})
    tiles, overlap = config.eval.tiles, config.eval.overlap
    segment, k = make_predictor([run], tiles=tiles, overlap=overlap), metrics.num_confusion_classes(run.num_classes)
    totals = np.zeros((1 + len(settings), 3 if k > metrics.MOST_PAIRS else k, k), np.int64)
    for index in each(chosen, f"CRF on {split}"):
        example = source[index]
        image, label = np.asarray(example["image"]), np.asarray(example["label"])[None]
        shares = np.asarray(segment(image, probabilities=True).probabilities)[None]
        image = colors(image[None])
        logits = jnp.asarray(to_logits(shares))
        totals[0] += _confusion(logits, label, k)
        for place, crf in enumerate(settings, start=1):
            refined = refiner(crf, image, logits.shape[-1], radius)(logits, image, numbers(crf))
            totals[place] += _confusion(to_logits(np.asarray(refined)), label, k)
    trials = []
    for crf, confusion in zip((None, *settings), totals, strict=True):
        scores = metrics.scores(confusion)
        trials.append(Trial(crf, float(scores.mean_iou), float(scores.pixel_accuracy), confusion))
    alone, *others = trials
    return CRFSearch(split, len(chosen), (alone, *sorted(others, key=lambda trial: -trial.mean_iou)))


def grid_settings(start: CRF, grid: Mapping[str, Sequence[float]]) -> list[CRF]:
    """Returns `start` with every combination of the values of a grid; raises ArgumentError for an unknown name."""
    names = (*start.numbers, "iterations")
    for name in grid:
        if name not in names:
            raise ArgumentError(f"{name} is no number of a CRF.{nearest(name, names)}")
    combinations = itertools.product(*grid.values())
    made = [dict(zip(grid, values, strict=True)) for values in combinations]
    return [_replaced(start, values) for values in made]


def _replaced(crf: CRF, values: Mapping[str, float]) -> CRF:
    whole = {name: int(value) if name == "iterations" else value for name, value in values.items()}
    return dataclasses.replace(crf, **whole)


def _confusion(logits: Any, label: np.ndarray, k: int) -> np.ndarray:
    return np.asarray(_confusion_program()(logits, label, k), np.int64)


@functools.cache
def _confusion_program() -> Callable[..., jax.Array]:
    def confusion(logits: jax.Array, label: jax.Array, k: int) -> jax.Array:
        return metrics.confusion_matrix(metrics.predict_classes(logits), metrics.class_indices(label), k)

    return jax.jit(confusion, static_argnums=2)
