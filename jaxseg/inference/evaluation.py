"""Scoring a split of the data with a trained run: the numbers, their table, and the files that keep them."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import jax
import numpy as np

from jaxseg import metrics, pictures
from jaxseg.arguments import Where, check_value
from jaxseg.config import to_dict
from jaxseg.data.reading import Reading
from jaxseg.errors import ConfigError, counted, naming_lack_of_memory
from jaxseg.inference import surface
from jaxseg.inference.alone import Alone, score_alone
from jaxseg.inference.crf import RefinedPredictor
from jaxseg.inference.image_totals import ImageTotals, groups_to_draw, interval_dict, interval_line, interval_of
from jaxseg.inference.other_data import about_other, on_other, open_split, other_data, require_own_name
from jaxseg.inference.predictor import Predictor, make_predictor
from jaxseg.inference.progress import progress
from jaxseg.inference.report_files import of_data, picture_file, scores_file
from jaxseg.inference.score import Result
from jaxseg.inference.score_batches import score_in_batches
from jaxseg.inference.score_images import score_images
from jaxseg.metrics.formatting import percent
from jaxseg.pictures import marks
from jaxseg.run.load import Run, require_one_class
from jaxseg.run.provenance import package_versions
from jaxseg.run.workdir import CONFIG_FILE, INFO_FILE, require_own_json, write_or_refuse
from jaxseg.state import count_parameters
from jaxseg.step import Measure

Boundary: TypeAlias = Annotated[
    float | bool | None,
    Where(lambda v: v is None or 0 <= v < math.inf, instead="True or a number of pixels of at least 0"),
]
Look: TypeAlias = Callable[[dict[str, np.ndarray]], object] | None
_DRAWN = 255  # classes of the largest picture of a confusion matrix


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The scores of a run on a split; printed, it is the table of classes.

    Attributes:
        run: the run that was scored.
        split: the split, as it was asked for.
        result: the sums over the split that every number here comes from.
        predictor: how images were segmented where this was asked for: in tiles, views, or by several runs; None: in
            batches, as training evaluates.
        seconds: the median time of an image with `predictor`; NaN without one, or of too few images.
        alone: what each run scores alone, in one view, where several predictions were averaged.
        counts: the pixels of each image, of which the intervals are made; None with several processes.
        groups: the group of each image, of `data.group`, which the intervals draw whole; (): images are drawn.
    """

    run: Run
    split: str
    result: Result
    predictor: Predictor | None = None
    seconds: float = math.nan
    alone: tuple["Alone", ...] = ()
    counts: metrics.ImageCounts | None = None
    groups: tuple[str, ...] = ()

    @functools.cached_property
    def interval(self) -> metrics.Interval | None:
        """The interval of the IoU of each class and of their mean, by the bootstrap over images; see `interval_of`."""
        return None if self.counts is None else interval_of(self.counts, self.groups)

    @property
    def unit(self) -> str:
        """What the intervals draw: "image", or "group"."""
        return "group" if self.groups else "image"

    @property
    def confusion(self) -> np.ndarray:
        """The pixels i64[k,k] of each true class (row) that were predicted as each class (column).

        Of more than `metrics.MOST_PAIRS` classes: i64[3,k], see `metrics.confusion_matrix`. Where a pixel may have
        several classes: i64[k+1,2,2], see `metrics.set_counts`."""
        return self.result.confusion

    @property
    def images(self) -> int:
        """How many images were scored."""
        return self.result.images

    @property
    def loss(self) -> float:
        """The loss of the configuration over the whole split; NaN where no pixel is labelled."""
        return self.result.loss

    @property
    def scores(self) -> metrics.Scores:
        """IoU, precision, recall and F1 of each class, and their means; shares of 1."""
        return metrics.scores(self.confusion)

    @property
    def mean_iou(self) -> float:
        """The mean IoU over the classes that occur in the truth or the prediction, in [0, 1]; NaN where none does."""
        return self.scores.mean_iou

    @property
    def levels(self) -> tuple[metrics.Scores, ...]:
        """The scores of the groups of classes at each level of `loss.hierarchy`, coarsest first."""
        levels = self.run.hierarchy.levels
        return tuple(metrics.scores(metrics.group_confusion(self.confusion, groups)) for groups in levels)

    @property
    def calibration(self) -> metrics.Calibration:
        """How well the predicted probabilities agree with how often they are right."""
        return metrics.calibration(self.result.measures["calibration"])

    @property
    def boundary(self) -> surface.SurfaceScores | None:
        """How far apart predicted and true boundaries are; None where this was not asked for."""
        measures = self.result.measures
        return surface.surface_scores(measures["boundary"]) if "boundary" in measures else None

    def __str__(self) -> str:
        run, interval = self.run, self.interval
        by_class = interval is not None and interval.images > 1 and len(interval.low) == len(run.classes) + 1
        ends = (interval.low, interval.high) if interval is not None and by_class else None
        lines = [metrics.table(self.scores, run.classes, ends)]
        if self.boundary is not None:
            lines += ["", surface.surface_table(self.boundary, run.classes)]
        what = f"{run.config.model.name} after {counted(run.step, 'step')} ({run.which} checkpoint)"
        lines += ["", f"{what}, split {self.split}{on_other(run)}:"]
        if self.confusion.sum():
            lines.append(f"{counted(self.images, 'image')}, loss {self.loss:.4f}, mIoU {100 * self.mean_iou:.2f} %")
            lines += [] if interval is None else [interval_line(interval, self.unit)]
            lines.append(f"expected calibration error {100 * self.calibration.error:.2f} %")
        else:
            lines.append(
                counted(self.images, "image") + (f", loss {self.loss:.4f}" if math.isfinite(self.loss) else "")
            )
            lines.append("The split has no labelled pixel, so there is nothing to score.")
        for level, (of_groups, names) in enumerate(zip(self.levels, run.hierarchy.names), start=1):
            each = ", ".join(f"{name} {percent(iou)}" for name, iou in zip(names, of_groups.iou))
            lines.append(f"level {level} of the hierarchy: mIoU {percent(of_groups.mean_iou)} % ({each})")
        if self.predictor is not None:
            lines.append(f"segmented {self.predictor}")
        for each in self.alone:
            gain, times = 100 * (self.mean_iou - each.mean_iou), self.seconds / each.seconds
            longer = "" if math.isnan(times) else f" and takes {times:.1f} times as long"
            ends = "" if each.gain is None else f" ({100 * each.gain[0]:+.2f} to {100 * each.gain[1]:+.2f})"
            lines.append(
                f"{each.workdir} alone, in one view: mIoU {100 * each.mean_iou:.2f} %; averaging changes it by "
                f"{gain:+.2f} points{ends}{longer}"
            )
        return "\n".join(lines)

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Returns what evaluate-SPLIT.json holds; shares are of 1, None stands for a number that no pixel decides."""
        boundary, classes = self.boundary, self.run.classes
        levels = [metrics.scores_dict(*each) for each in zip(self.levels, self.run.hierarchy.names)]
        return {
            "split": self.split,
            **about_other(self.run),
            "step": self.run.step,
            "which": self.run.which,
            "images": self.images,
            "parameters": count_parameters(self.run.state.params),
            "loss": self.loss if math.isfinite(self.loss) else None,
            **metrics.scores_dict(self.scores, classes),
            **({} if self.interval is None else {"intervals": interval_dict(self.interval, classes, self.unit)}),
            "calibration": metrics.calibration_dict(self.calibration),
            **({} if boundary is None else {"boundary": surface.surface_dict(boundary, classes)}),
            **({"levels": levels} if levels else {}),
            "confusion": self.confusion.tolist() if self.run.num_classes <= metrics.MOST_PAIRS else None,
            **self._prediction(),
            "config": to_dict(self.run.config),
            "config_source": [f"{self._config_folder}{file}" for file in (CONFIG_FILE, INFO_FILE)],
            "device": {"platform": jax.default_backend(), "count": jax.device_count()},
            "versions": package_versions(),
        }

    def _prediction(self) -> dict[str, Any]:
        """Returns the part of `to_dict` about the predictor."""
        if self.predictor is None:
            return {}
        networks, tiling = self.predictor.networks, self.predictor.tiling
        tiles = "" if tiling.tiles is None else tiling.tiles if tiling.tiles == "auto" else list(tiling.tiles)
        return {
            "tiles": tiles,
            "overlap": tiling.overlap if tiles else None,
            "average": "" if len(networks.views) == 1 else str(networks.views),
            "runs": len(networks.members),
            "crf": str(self.predictor.crf) if isinstance(self.predictor, RefinedPredictor) else "",
            "seconds_per_image": _or_none(self.seconds),
            "alone": [{**each._asdict(), "seconds": _or_none(each.seconds)} for each in self.alone],
        }

    @property
    def _config_folder(self) -> str:
        """Where the configuration lies in the workdir: in that of the first fold, of a folder of folds."""
        return f"{self.run.members[0].workdir.name}/" if self.run.members else ""

    def write_report(self) -> dict[str, Path]:
        """Writes evaluate-SPLIT.json and confusion-SPLIT.png into the run's workdir; returns {what: path}.

        Of more than 255 classes, or where a pixel may have several, there is no picture.

        A picture that cannot be drawn (not: written) is a warning, and no part of the result.

        Raises:
            ConfigError: if a file cannot be written, or would replace one that jaxseg did not write.
        """
        workdir, name = self.run.workdir, report_name(self.run, self.split, self.predictor)
        files, picture = {"scores": scores_file(workdir, name)}, picture_file(workdir, name)
        if jax.process_index() == 0:
            require_own_report(self.run, self.split, self.predictor)
            write_or_refuse(files["scores"], self.to_dict())
            try:
                if len(self.run.classes) <= _DRAWN and not self.run.parts.loss.multilabel:
                    with pictures.noting_errors(picture):
                        pictures.confusion_picture(self.confusion, self.run.classes, picture)
                        files["confusion"] = picture
            except OSError as error:
                raise ConfigError(f"{picture} cannot be written: {error.strerror or error}.") from error
        return files


def evaluate(
    run: Run, split: str = "val", *, boundary: Boundary = None, predictor: Predictor | None = None, look: Look = None
) -> Evaluation:
    """Returns the scores of a run on a split, each image at its native size, as training evaluates it.

    The network has its batch norms folded into its convolutions, so that a logit may differ from that of training's
    evaluation in its last digits.

    Args:
        run: from `load_run`.
        split: "train", "val" or "test"; for TFDS data also a slice, for a folder any split with images and masks; of a
            run with `data.fold` also "fold", the images that it leaves out.
        boundary: scores boundaries too: those that lie within this many pixels of each other match; True: within
            `surface.TOLERANCE` of the image's diagonal; None or False: no boundaries.
        predictor: segments the images, one at a time, in place of the run's network in batches; where it averages, each
            of its networks is scored alone too. None: that of `eval.tiles`, or the run's network; of a folder of folds,
            the average of theirs.
        look: called with the maps of each batch or image, see `score.score`, in a program of one process.

    Raises:
        ArgumentError: for an invalid `boundary`.
        DataError: if the data is missing or empty, has no such split, or its classes are not those of the run.
        OutOfMemoryError: if a batch does not fit into the device's memory.
    """
    tolerance = check_value("boundary", boundary, Boundary)
    with_boundary = tolerance is not None and tolerance is not False
    if with_boundary:
        require_one_class(run, "A score of boundaries")
    if isinstance(predictor, RefinedPredictor):
        require_one_class(run, "A dense CRF")
    config, source = run.config, open_split(run, split)
    sigmoids = run.parts.loss.one_vs_rest
    measures: dict[str, Measure] = {
        "calibration": metrics.set_calibration_stats
        if run.parts.loss.multilabel
        else functools.partial(metrics.calibration_stats, one_vs_rest=sigmoids)
    }
    boundaries = surface.SurfaceTotal(run.num_classes, None if isinstance(tolerance, bool) else tolerance)
    totals = ImageTotals(run.num_classes, run.parts.loss.multilabel)
    by_image = jax.process_count() == 1

    groups = groups_to_draw(source, config.data.group, split)

    def see(maps: dict[str, np.ndarray]) -> None:
        if by_image:
            totals.add(maps)
            if look is not None:
                look(maps)
        if with_boundary:
            boundaries.add(maps)

    predictor = needed_predictor(run, predictor)
    advice = "give a smaller eval.batch_size" + ("" if config.data.fit == "resize" else ", or images of fewer pixels")
    lacking = naming_lack_of_memory("A batch of the evaluation", advice)
    seconds, alone = math.nan, ()
    with lacking, progress(f"evaluate {split}", total=len(source)) as bar:
        if predictor is None:
            result = score_in_batches(run, config, source, measures, with_boundary or by_image, see, bar.update)
        else:
            reading = Reading(timeout=run.config.data.timeout)
            result, seconds = score_images(
                source,
                predictor.scores,
                run.parts.loss,
                reading=reading,
                measures=measures,
                see=see,
                progress=bar.update,
            )
            alone = score_alone(predictor, run, source, totals.counts(source) if by_image else None, groups)
    if with_boundary:
        result = result._replace(measures={**result.measures, "boundary": boundaries.sums})
    counts = totals.counts(source) if by_image else None
    return Evaluation(run, split, result, predictor, seconds, alone, counts, groups)


def needed_predictor(run: Run, predictor: Predictor | None = None) -> Predictor | None:
    """Returns what segments the images of a split one at a time: the given one, or that of `eval.tiles` or of a folder
    of folds; None: the run's network sees them in batches."""
    if predictor is None and (run.config.eval.tiles or run.members):
        return make_predictor([run], tiles=run.config.eval.tiles or None, overlap=run.config.eval.overlap)
    return predictor


def _or_none(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds


def report_name(run: Run, split: str, predictor: Predictor | None) -> str:
    """Returns the split in the names of the report's files: on which data, if on others, and how it was segmented."""
    return of_data(split, other_data(run)) + endings(predictor)


def endings(predictor: Predictor | None) -> str:
    """Returns how images were segmented, as the names of files have it: "-tiles-crf"; "" as training evaluates."""
    if predictor is None:
        return ""
    parts = {
        "tiles": predictor.tiling.tiles is not None,
        "average": len(predictor.networks.views) > 1,
        "runs": len(predictor.networks.members) > 1,
        "crf": isinstance(predictor, RefinedPredictor),
    }
    return "".join(f"-{name}" for name, holds in parts.items() if holds)


def require_own_report(run: Run, split: str, predictor: Predictor | None) -> None:
    """Raises ConfigError if a file of the name of a report's is no such file, so that it is not replaced.

    So it does for the scores on other data of the same name.
    """
    name = report_name(run, split, predictor)
    scores = scores_file(run.workdir, name)
    require_own_json(scores, ("split", "which", "confusion"))
    require_own_name(scores, about_other(run))
    marks.require_own_figure(picture_file(run.workdir, name), "move it out of the workdir")
