"""The audit of a split: two passes over its images, one at a time, and the rankings that come out."""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxseg.audit.confident import class_sums, confident_classes, confident_counts, joint, thresholds
from jaxseg.audit.judges import Judges, data_of, make_judges
from jaxseg.audit.regions import Doubt, find_doubts
from jaxseg.audit.scores import ImageScores, image_scores, pixel_scores
from jaxseg.data.base import Source
from jaxseg.errors import ArgumentError, ConfigError, counted
from jaxseg.inference.predictor import Predictor, make_predictor
from jaxseg.losses.possible import known_array
from jaxseg.metrics.formatting import markdown_table
from jaxseg.run.load import Run, require_one_class, single_runs
from jaxseg.types import IGNORE


class ImageRow(NamedTuple):
    """An image of the ranking.

    Attributes:
        index: its place in the split.
        name: its name.
        judges: how many runs judged it.
        scores: its scores.
    """

    index: int
    name: str
    judges: int
    scores: ImageScores


class RegionRow(NamedTuple):
    """A region of the ranking: the image that it lies in, and what it is."""

    index: int
    name: str
    doubt: Doubt


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """The rankings of a split, the likeliest wrong first; printed, it is a summary.

    Attributes:
        judges: the runs.
        source: the split.
        split: its name.
        images: the images with a label that some run judged.
        regions: the regions whose label is likely wrong.
        thresholds: f64[k], of confident learning.
        joint: f64[k,k], the estimated joint distribution of labels (rows) and true classes (columns).
        left_out: how many images no run may judge.
        unlabelled: how many have no labelled pixel.
    """

    judges: Judges
    source: Source
    split: str
    images: tuple[ImageRow, ...]
    regions: tuple[RegionRow, ...]
    thresholds: np.ndarray
    joint: np.ndarray
    left_out: int
    unlabelled: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.judges.runs[0].classes

    @property
    def wrong_share(self) -> float:
        """The estimated share of the labelled pixels whose label is wrong, in [0, 1]."""
        return float(self.joint.sum() - np.trace(self.joint))

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("image", "score", "doubted %", "shift", "loss", "likeliest region")]
        best: dict[int, Doubt] = {}
        for region in self.regions:
            best.setdefault(region.index, region.doubt)
        for row in self.images[:10]:
            s = row.scores
            moved = f"{s.down:+d}, {s.right:+d}" if s.shift else "-"
            what = self.words(best[row.index]) if row.index in best else "-"
            rows.append((row.name, f"{s.score:.3f}", f"{100 * s.doubted:.2f}", moved, f"{s.loss:.3f}", what))
        names, off = self.classes, self.joint * (1 - np.eye(len(self.joint)))
        shown = sorted(np.ndindex(off.shape), key=lambda place: -off[place])[:3]
        pairs = ", ".join(f"{names[i]} that is {names[j]} {100 * off[i, j]:.2f} %" for i, j in shown if off[i, j])
        foot = [
            f"{counted(len(self.images), 'image')} of split {self.split}, {counted(len(self.regions), 'region')}; "
            f"an estimated {100 * self.wrong_share:.2f} % of the pixels have a wrong label"
            + (f" ({pairs})" if pairs else "")
        ]
        if self.left_out:
            foot.append(f"{counted(self.left_out, 'image')} left out: every run was trained on them.")
        if self.unlabelled:
            foot.append(f"{counted(self.unlabelled, 'image')} left out: no pixel is labelled.")
        return "\n".join([*markdown_table(rows), "", *foot])

    __repr__ = __str__

    def words(self, doubt: Doubt) -> str:
        """Returns "disc, likely ring, 120 pixels"."""
        given, suggested = self.classes[doubt.given], self.classes[doubt.suggested]
        return f"{given}, likely {suggested}, {counted(doubt.area, 'pixel')}"


def audit(
    runs: Sequence[Run],
    split: str = "train",
    *,
    predictor: Predictor | None = None,
    regions: int = 1000,
    gradient: bool = True,
) -> Audit:
    """Returns the images and regions of a split in the order of how likely their label is wrong.

    One image at a time is in memory, with its probabilities; of the regions the best `regions` are kept, as the pixels
    inside their boxes.

    Args:
        runs: one run, or several of which each was trained without a fold of the split (`data.fold`); an image is
            judged by those that were not trained on it, whose probabilities are averaged.
        split: "train", "val" or "test"; see `inference.evaluate`.
        predictor: how the runs see images, such as in tiles or in several views; None: whole and in one view.
        regions: how many regions are kept.
        gradient: whether to compute the norm of the gradient in the last layer, a second pass through the networks.

    Raises:
        ArgumentError: if there is no run, or `regions` is below 1.
        ConfigError: if the runs do not fit together, or no image is labelled and judged.
        DataError: if the data is missing or empty, or its classes are not those of the runs.
        OutOfMemoryError: if an image does not fit into memory.
    """
    if not runs or regions < 1:
        raise ArgumentError(f"An audit needs at least one run and one region, got {len(runs)} and {regions}.")
    runs = single_runs(runs)
    require_one_class(runs[0], "An audit")
    judges = make_judges(runs, make_predictor(runs) if predictor is None else predictor, split)
    _, source = data_of(runs, split)
    names = [source.name(i) for i in range(len(source))]
    chosen = {i: found for i, name in enumerate(names) if (found := judges.of(name))}
    k = len(runs[0].classes)
    sums, labelled = None, []
    for i, _, label, shares in _judged(judges, source, chosen, f"thresholds {split}"):
        if (label != IGNORE).any():
            labelled.append(i)
        of_image = class_sums(shares, label)
        sums = of_image if sums is None else sums + of_image
    if sums is None or not labelled:
        raise ConfigError(f"No image of the split {split} is labelled and judged by a run: there is nothing to audit.")
    limits, counts = thresholds(sums), np.zeros((k, k), np.int64)
    rows: list[ImageRow] = []
    best: list[tuple[float, int, RegionRow]] = []
    order = itertools.count(0, -1)  # of equal scores the first stays
    for i, image, label, shares in _judged(judges, source, {j: chosen[j] for j in labelled}, f"audit {split}"):
        pixels = pixel_scores(shares, label, limits)
        counts += confident_counts(confident_classes(shares, limits), label, k)
        norm = judges.gradient(image, label, chosen[i]) if gradient else float("nan")
        rows.append(ImageRow(i, names[i], len(chosen[i]), image_scores(pixels, shares, label, norm)))
        for doubt in find_doubts(pixels, shares, label):
            entry = (doubt.score, next(order), RegionRow(i, names[i], doubt))
            (heapq.heappush if len(best) < regions else heapq.heappushpop)(best, entry)
    return Audit(
        judges,
        source,
        split,
        tuple(sorted(rows, key=lambda row: -row.scores.score)),
        tuple(row for _, _, row in sorted(best, reverse=True)),
        limits,
        joint(counts, sums.pixels),
        left_out=len(source) - len(chosen),
        unlabelled=len(chosen) - len(labelled),
    )


def _judged(
    judges: Judges, source: Source, chosen: dict[int, tuple[int, ...]], what: str
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (index, image, label u8[h,w], probabilities f32[h,w,k]) of the images, with a bar of progress."""
    for i in tqdm(chosen, desc=what, unit="image", disable=None):
        example = source[i]
        image, label = np.asarray(example["image"]), known_array(np.asarray(example["label"]), len(source.info.classes))
        yield i, image, label, judges.probabilities(image, chosen[i])
