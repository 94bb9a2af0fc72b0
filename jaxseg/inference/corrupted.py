"""Scores a run on a split whose images are corrupted: what each corruption takes of its mIoU at each strength."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxseg import metrics
from jaxseg.arguments import expanded
from jaxseg.data.base import Source
from jaxseg.data.corruptions import CORRUPTIONS, STRENGTHS, Corrupted, possible_corruptions, require_corruptions
from jaxseg.data.notes import note
from jaxseg.data.reading import Reading
from jaxseg.errors import ArgumentError, ConfigError, DataError, counted
from jaxseg.files import read_json
from jaxseg.inference.evaluation import Evaluation, report_name
from jaxseg.inference.other_data import open_split, other_data, require_own_name
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.progress import progress
from jaxseg.inference.report_files import corruptions_file
from jaxseg.inference.score_batches import batch_scorer
from jaxseg.inference.score_images import make_counter, score_images
from jaxseg.metrics.formatting import markdown_table, percent, plain
from jaxseg.run.load import Run
from jaxseg.run.workdir import require_own_json, write_or_refuse

ALL = "all"
_KEYS = ("split", "clean", "strengths", "corruptions")  # of the file


class Scored(NamedTuple):
    """The scores of one corruption, for each strength, in [0, 1]; NaN where no class is true or predicted."""

    mean_iou: tuple[float, ...]
    pixel_accuracy: tuple[float, ...]


class Baseline(NamedTuple):
    """The scores of another network, to which the errors of a run are related.

    Attributes:
        workdir: of its run.
        support: the true pixels of each class of its split.
        mean_iou: {corruption: the mean IoU of each strength}.
    """

    workdir: str
    support: tuple[int, ...]
    mean_iou: Mapping[str, tuple[float, ...]]


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
        kept = ("split", "other_data", "step", "which", "images", "parameters", "config", "device", "versions")
        return {
            **{key: report[key] for key in kept if key in report},
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
            ConfigError: if it cannot be written, or would replace a file that jaxseg did not write.
        """
        e = self.evaluation
        file = file_of(e.run, e.split, e.predictor)
        if jax.process_index() == 0:
            require_own(file, e.run)
            write_or_refuse(file, self.to_dict())
        return file


def score_corrupted(
    evaluation: Evaluation,
    names: Sequence[str] = (ALL,),
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
        names: corruptions, or "all", those that images of so many channels have.
        strengths: 1 to 5.
        seed: another one gives other noise.
        baseline: another network on the same images, see `read_baseline`.

    Raises:
        ArgumentError: for an unknown name or strength.
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
    confusion = _scorer(run, evaluation.predictor)
    source, found = open_split(run, split), {}
    total = len(names) * len(strengths) * len(source)
    with progress(f"corrupted {split}", total=total) as bar:
        for name in names:
            each = [
                metrics.scores(confusion(Corrupted(source, name, strength, seed), bar.update)) for strength in strengths
            ]
            found[name] = Scored(tuple(s.mean_iou for s in each), tuple(float(s.pixel_accuracy) for s in each))
    return CorruptedScores(evaluation, strengths, found, seed, baseline)


def chosen(names: Sequence[str], channels: int) -> tuple[str, ...]:
    """Returns the corruptions of a list of names for images of so many channels, each once, in their own order.

    "all" leaves out those that such images do not have, which a note says.

    Raises:
        ArgumentError: for an unknown name, or a corruption that such images do not have.
    """
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


def file_of(run: Run, split: str, predictor: Predictor | None = None) -> Path:
    """Returns the path of corruptions-SPLIT.json of a run, with the name that its other scores have."""
    return corruptions_file(run.workdir, report_name(run, split, predictor))


def require_own(file: Path, run: Run) -> None:
    """Raises ConfigError if there is a file of the name of the scores that is none of ours, or on other data."""
    require_own_json(file, _KEYS)
    require_own_name(file, run, other_data(run))


def read_baseline(
    workdir: str | Path, file: Path, names: Sequence[str], strengths: Sequence[int], seed: int = 0
) -> Baseline:
    """Returns the scores of another run, which it has in a file of the same name.

    Args:
        workdir: of the other run.
        file: of the run to score, of `file_of`.
        names, strengths, seed: of the scores, which the other must have too; see `chosen`.

    Raises:
        ConfigError: if it has none, they lack some of these, or the file cannot be read.
    """
    there = expanded(workdir) / file.name
    command = f"jaxseg evaluate --workdir {shlex.quote(str(workdir))} --corruptions"
    if not there.is_file():
        raise ConfigError(f"The baseline has no {there}; score it on the same split first: {command} all.")
    require_own_json(there, _KEYS)
    try:
        content = read_json(there)
        known = [int(strength) for strength in content["strengths"]]
        rows = {name: row["mean_iou"] for name, row in content["corruptions"].items()}
        wanted = [name for name in names if name not in rows]
        if wanted or not set(strengths) <= set(known) or content["seed"] != seed:
            raise ConfigError(
                f"{there} has the corruptions {', '.join(rows)} at the strengths {', '.join(map(str, known))} with "
                f"seed {content['seed']}, and the scores here have others; score the baseline with the same: {command} "
                f"{' '.join(names)} --strengths {' '.join(map(str, strengths))} --seed {seed}."
            )
        places = [known.index(strength) for strength in strengths]
        mean_iou = {name: tuple(float(rows[name][place]) for place in places) for name in names}
        return Baseline(str(workdir), tuple(int(x) for x in content["support"]), mean_iou)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ConfigError(f"{there} is not a file of scores that jaxseg wrote: {error}.") from error


def _scorer(run: Run, predictor: Predictor | None) -> Callable[[Source, Callable[[int], object]], np.ndarray]:
    """Returns (split, progress) -> its confusion matrix, of programs that all splits share."""
    if predictor is None:
        in_batches = batch_scorer(run, run.config, {}, maps=False)
        return lambda source, update: in_batches(source, progress=update).confusion
    segment, loss, reading = predictor.scores, run.parts.loss, Reading(timeout=run.config.data.timeout)
    counter = make_counter(loss, {})

    def one_by_one(source: Source, update: Callable[[int], object]) -> np.ndarray:
        timed = score_images(source, segment, loss, reading=reading, progress=update, counter=counter)
        return timed.result.confusion

    return one_by_one


def _error(mean_iou: Sequence[float]) -> float:
    return float(np.sum(1.0 - np.asarray(mean_iou)))


def _ratio(error: float, other: float) -> float:
    return error / other if other > 0 else float("nan")
