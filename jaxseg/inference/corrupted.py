"""Scores a run on a split whose images are corrupted: what each corruption takes of its mIoU at each strength."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxseg import metrics
from jaxseg.config import set_key
from jaxseg.data.base import Source
from jaxseg.data.corruptions import (
    CORRUPTIONS,
    STRENGTHS,
    Corrupted,
    forget_programs,
    possible_corruptions,
    require_corruptions,
    require_stored,
)
from jaxseg.data.notes import note
from jaxseg.data.reading import Reading
from jaxseg.errors import ArgumentError, DataError, counted, naming_lack_of_memory
from jaxseg.inference.corruption_files import Baseline, file_of, require_own
from jaxseg.inference.evaluation import Evaluation
from jaxseg.inference.other_data import about_other, open_split, other_data
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.progress import progress
from jaxseg.inference.score_batches import batch_scorer
from jaxseg.inference.score_images import make_counter, score_images
from jaxseg.metrics.formatting import markdown_table, percent, plain
from jaxseg.run.load import Run
from jaxseg.run.workdir import write_or_refuse

ALL = "all"


class Scored(NamedTuple):
    """The scores of one corruption, for each strength, in [0, 1]; NaN where no class is true or predicted."""

    mean_iou: tuple[float, ...]
    pixel_accuracy: tuple[float, ...]


@dataclass(frozen=True, eq=False, repr=False)
class CorruptedScores:
    """The scores of a run on corrupted images; printed, they are a table.

    Attributes:
        evaluation: the scores on the images as they are.
        strengths: those that were scored.
        corruptions: {name: its scores}.
        seed: that of the corruptions.
        baseline: another network; None: none was given.
    """

    evaluation: Evaluation
    strengths: tuple[int, ...]
    corruptions: Mapping[str, Scored]
    seed: int
    baseline: Baseline | None = None

    @property
    def clean(self) -> float:
        """The mean IoU on the images as they are."""
        return self.evaluation.mean_iou

    @property
    def drops(self) -> dict[str, tuple[float, ...]]:
        """{corruption: what it takes of the mean IoU at each strength}, in shares of 1."""
        return {name: tuple(self.clean - x for x in scored.mean_iou) for name, scored in self.corruptions.items()}

    @property
    def mean_drop(self) -> float:
        """The mean over corruptions and strengths of what they take of the mean IoU."""
        return float(np.mean([*self.drops.values()]))

    @property
    def relative_errors(self) -> dict[str, float]:
        """{corruption: the sum over the strengths of 1 - mean IoU, over that of the baseline}; {} without one.

        It is the corruption error CE of Hendrycks and Dietterich 2019, section 4.1, of the error 1 - mean IoU.
        """
        if self.baseline is None:
            return {}
        pairs = {name: (scored.mean_iou, self.baseline.mean_iou[name]) for name, scored in self.corruptions.items()}
        return {name: _ratio(_error(own), _error(other)) for name, (own, other) in pairs.items()}

    @property
    def mean_relative_error(self) -> float:
        """The mean of `relative_errors`, mCE; NaN without a baseline."""
        return float(np.mean([*self.relative_errors.values()])) if self.baseline is not None else float("nan")

    def __str__(self) -> str:
        e, related = self.evaluation, self.relative_errors
        head = ["corruption", *(f"strength {s}" for s in self.strengths), "mean", "drop", *(["CE"] if related else [])]
        rows = [head]
        for name, scored in self.corruptions.items():
            numbers = [*scored.mean_iou, float(np.mean(scored.mean_iou)), float(np.mean(self.drops[name]))]
            rows.append([name, *map(percent, numbers), *([percent(related[name])] if related else [])])
        by_strength = np.mean([scored.mean_iou for scored in self.corruptions.values()], axis=0)
        numbers = [*by_strength, float(np.mean(by_strength)), self.mean_drop]
        rows.append(["mean", *map(percent, numbers), *([percent(self.mean_relative_error)] if related else [])])
        split = f"split {e.split}" + (f" of {e.run.config.data.dir}" if other_data(e.run) else "")
        foot = (
            f"mIoU of {counted(e.images, 'image')}, {split}, seed {self.seed}, in per cent: {percent(self.clean)} "
            f"without a corruption; drop: what the corruption takes of it, {percent(self.mean_drop)} points on average"
        )
        related_to = f"; CE: 100 - mIoU, in per cent of that of {self.baseline.workdir}" if self.baseline else ""
        return "\n".join([*markdown_table(rows), "", f"{foot}{related_to}"])

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Returns what corruptions-SPLIT.json holds; shares are of 1, None stands for NaN."""
        drops, related = self.drops, self.relative_errors
        rows = {
            name: {
                "mean_iou": [plain(x) for x in scored.mean_iou],
                "pixel_accuracy": [plain(x) for x in scored.pixel_accuracy],
                "drop": [plain(x) for x in drops[name]],
                **({"relative_error": plain(related[name])} if related else {}),
            }
            for name, scored in self.corruptions.items()
        }
        mean = {"mean_drop": plain(self.mean_drop)}
        if self.baseline is not None:
            mean |= {"mean_relative_error": plain(self.mean_relative_error)}
        report = self.evaluation.to_dict()
        kept = ("split", "step", "which", "images", "parameters", "config", "device", "versions")
        return {
            **{key: report[key] for key in kept},
            **about_other(self.evaluation.run),
            "classes": list(self.evaluation.run.classes),
            "support": [int(x) for x in self.evaluation.scores.support],
            "clean": {
                "mean_iou": plain(self.clean),
                "pixel_accuracy": plain(float(self.evaluation.scores.pixel_accuracy)),
            },
            "seed": self.seed,
            "strengths": list(self.strengths),
            "corruptions": rows,
            **mean,
            **({} if self.baseline is None else {"baseline": self.baseline.workdir}),
        }

    def write(self) -> Path:
        """Writes corruptions-SPLIT.json into the run's workdir, atomically; returns its path.

        Raises:
            ConfigError: if it cannot be written, or would replace a file that jaxseg did not write, or other scores.
        """
        e = self.evaluation
        file = file_of(e.run, e.split, e.predictor)
        if jax.process_index() == 0:
            require_own(file, e.run, list(self.corruptions), self.strengths, self.seed)
            write_or_refuse(file, self.to_dict())
        return file


def score_corrupted(
    evaluation: Evaluation,
    names: Sequence[str] | str = (ALL,),
    strengths: Sequence[int] = STRENGTHS,
    *,
    seed: int = 0,
    baseline: Baseline | None = None,
) -> CorruptedScores:
    """Returns the scores of a run on the corrupted images of a split, segmented as for the scores without corruptions.

    Each image has its own size, and the corruption is that of `data.corruptions.corrupt`. The network is one program
    for all of them, and each corruption one for each size of image.

    Args:
        evaluation: from `evaluate`, of the images as they are.
        names: corruptions, one or several, or "all", those that images of so many channels have.
        strengths: 1 to 5.
        seed: another one gives other noise.
        baseline: another network on the same images, see `read_baseline`.

    Raises:
        ArgumentError: for an unknown name or strength, or none.
        DataError: if an image has not 8 bits, no pixel of the split is labelled, or the baseline has other images.
    """
    run, split = evaluation.run, evaluation.split
    names, strengths = chosen(names, run.config.data.channels), require_strengths(strengths)
    support = tuple(int(x) for x in evaluation.scores.support)
    if not sum(support):
        raise DataError(f"The split {split} has no labelled pixel, so there is nothing to score.")
    if baseline is not None and baseline.support != support:
        raise DataError(
            f"The baseline in {baseline.workdir} was scored on other images or masks: the pixels of the classes are "
            "others there."
        )
    source, found = open_split(run, split), {}
    confusion = _scorer(run, evaluation.predictor)
    reading = Reading(timeout=run.config.data.timeout)
    lacking = naming_lack_of_memory("A corrupted image", "give a smaller eval.batch_size, --tiles or smaller images")
    total = len(names) * len(strengths) * len(source)
    with lacking, progress(f"corrupted {split}", total=total) as bar:
        for name in names:
            each = [
                metrics.scores(confusion(Corrupted(source, name, strength, seed, reading), bar.update))
                for strength in strengths
            ]
            forget_programs(name)  # one for each size of image
            found[name] = Scored(tuple(s.mean_iou for s in each), tuple(float(s.pixel_accuracy) for s in each))
    return CorruptedScores(evaluation, strengths, found, seed, baseline)


def chosen(names: Sequence[str] | str, channels: int) -> tuple[str, ...]:
    """Returns the corruptions of a list of names for images of so many channels, each once, in their own order.

    "all" leaves out those that such images do not have, which a note says.

    Raises:
        ArgumentError: for an unknown name, none, or a corruption that such images do not have.
    """
    names = [names] if isinstance(names, str) else names
    if not names:
        raise ArgumentError(f"A corruption is all or one of {', '.join(CORRUPTIONS)}, got none.")
    named = [name for name in names if name != ALL]
    require_corruptions(named, channels)
    if ALL in names:
        named = list(possible_corruptions(channels))
        if left := [name for name in CORRUPTIONS if name not in named]:
            note(f"Images with {counted(channels, 'channel')} have no {' and no '.join(left)}, which is left out.")
    return tuple(name for name in CORRUPTIONS if name in named)


def require_strengths(strengths: Sequence[int]) -> tuple[int, ...]:
    """Returns strengths in ascending order, each once; raises ArgumentError for one that is none, or for none."""
    wrong = [strength for strength in strengths if strength not in STRENGTHS]
    if wrong or not strengths:
        raise ArgumentError(f"A strength is 1, 2, 3, 4 or 5, got {', '.join(map(str, wrong)) or 'none'}.")
    return tuple(sorted({int(strength) for strength in strengths}))


def require_8_bits(run: Run, split: str) -> None:
    """Raises DataError if the first image of a split has not 8 bits, before anything is scored."""
    source, reading = open_split(run, split), Reading(timeout=run.config.data.timeout)
    require_stored(reading.example(source, 0)["image"], source.name(0))


def _scorer(run: Run, predictor: Predictor | None) -> Callable[[Source, Callable[[int], object]], np.ndarray]:
    """Returns (split, progress) -> its confusion matrix, of programs that all splits share.

    The limit of time is that of reading an image, and is the split's own: compiling a corruption takes longer.
    """
    if predictor is None:
        config = run.config.copy_and_resolve_references()
        set_key(config, "data.timeout", 0.0)
        in_batches = batch_scorer(run, config, {}, maps=False)
        return lambda source, update: in_batches(source, progress=update).confusion
    segment, loss, reading = predictor.scores, run.parts.loss, Reading()
    counter = make_counter(loss, {})

    def one_by_one(source: Source, update: Callable[[int], object]) -> np.ndarray:
        timed = score_images(source, segment, loss, reading=reading, progress=update, counter=counter)
        return timed.result.confusion

    return one_by_one


def _error(mean_iou: Sequence[float]) -> float:
    return float(np.sum(1.0 - np.asarray(mean_iou)))


def _ratio(error: float, other: float) -> float:
    return error / other if other > 0 else float("nan")
