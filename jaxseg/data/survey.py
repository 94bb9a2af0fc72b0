"""What a split holds: everything that is wrong in it, the shares of its classes, and the statistics of its images."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jaxseg.config import ConfigDict
from jaxseg.data import base
from jaxseg.data.base import Source
from jaxseg.data.folder import FolderSource, find_faults
from jaxseg.data.folds import without_fold
from jaxseg.data.mask_fit import Fit, mask_fit
from jaxseg.data.multilabel import MultilabelSource
from jaxseg.data.near_duplicates import Sketch, sketch
from jaxseg.data.pages import takes_pages
from jaxseg.data.proposals import proposals_of
from jaxseg.data.sources import (
    as_learned,
    chosen_labelled,
    compares_images,
    learns_without_labels,
    loss_of,
    make_source,
    uses_unlabelled,
)
from jaxseg.data.values import values_of
from jaxseg.data.weak.source import AnnotatedSource
from jaxseg.data.weak.weakened import WeakenedSource
from jaxseg.errors import DataError, OutOfMemoryError, counted
from jaxseg.losses.possible import known_array
from jaxseg.sets import known_counts, pixel_counts
from jaxseg.types import ignore_in

_RARE = 1e-3  # a class with a smaller share of the pixels may come from noise
_OBJECTS = 12  # so many classes, each in at most as many images as the one before it, may be numbers of objects
_DARK = 0.25  # images whose largest value is a smaller share of what their type holds use a part of it alone


class Example(NamedTuple):
    """Numbers of one example, of the image in [0, 1].

    Attributes:
        size: (height, width).
        pixels: i64[256], or i64[65536] of labels of 16 bits, pixels of each label value; where a pixel may have several
            classes, i64[k+2] of `sets.pixel_counts`.
        among: how many pixels each of these is counted among: all, or where a class may be unknown alone those of
            `sets.known_counts`.
        mean, square: f64[c], means of the values and of their squares.
        largest: the largest value as stored; with `data.range` that in [0, 1].
        bits: 8 or 16, those of a stored value; 0 with `data.range`.
        sketch: of the image, for near-duplicates.
        fit: of the mask to the image; None: it says nothing.
        arrays: the example itself, if it is kept for the picture; else None.
    """

    size: tuple[int, ...]
    pixels: np.ndarray
    among: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    largest: float
    bits: int
    sketch: Sketch
    fit: Fit | None
    arrays: base.Example | None


@dataclass
class Report:
    """The contents of a split.

    Attributes:
        split: its name.
        images: how many examples could be read.
        problems: one sentence for each thing that is wrong.
        remarks: one sentence for each thing that may be wrong.
        sizes: how many images have each (height, width).
        pixels, among: as of `Example`, in all of them; ignored pixels last.
        present: of the same shape, images in which each label value occurs.
        readable: indices of the examples that could be read.
        sketches: of the examples that could be read, for near-duplicates.
        misfits: (index, fit) of the examples whose mask fits the image clearly better in another form.
        kept: {index: example} of some of these.
        unlabelled: names of the examples of which every pixel is ignored, in every class.
        keeping: how many images keep their labels (`data.labelled`); None: all.
        joining: how many proposals join (`data.proposals`).
        largest: {8 or 16 bits, or 0 with `data.range`: the largest value in images of so many bits}.
        mean, square: f64[c], sums over images of the means of the values in [0, 1] and of their squares.
        source: the split itself; None if it could not be opened.
    """

    split: str
    images: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    sizes: Counter = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((), np.int64))
    among: np.ndarray = field(default_factory=lambda: np.zeros((), np.int64))
    present: np.ndarray = field(default_factory=lambda: np.zeros((), np.int64))
    readable: list[int] = field(default_factory=list)
    sketches: list[Sketch] = field(default_factory=list)
    misfits: list[tuple[int, Fit]] = field(default_factory=list)
    kept: dict[int, base.Example] = field(default_factory=dict)
    unlabelled: list[str] = field(default_factory=list)
    keeping: int | None = None
    joining: int = 0
    largest: dict[int, float] = field(default_factory=dict)
    mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    square: np.ndarray = field(default_factory=lambda: np.zeros(1))
    source: Source | None = None

    @property
    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the standard deviation f64[c] of the images in [0, 1]; each image counts the same."""
        mean = self.mean / self.images
        return mean, np.sqrt(np.maximum(self.square / self.images - mean**2, 0))


def survey(config: ConfigDict, split: str, keep: int = 0) -> Report:
    """Reads all examples of one split of the data of `config`, each once; keeps `keep` of them, evenly spaced."""
    report = Report(split)
    try:
        source = report.source = make_source(config, split, strict=False)
    except DataError as error:
        report.problems.append(str(error))
        if config.data.source == "folder" and not config.data.multilabel:
            paged = takes_pages(config.data.channels, config.data.range)
            former = config.data.division == "former"
            report.problems += find_faults(config.data.dir, split, former=former, paged=paged)
        return report
    kept, wrong = set(evenly_spaced(len(source), keep)), []
    if split == config.data.train_split:
        try:
            if config.data.labelled != "":
                report.keeping = len(chosen_labelled(config, source))
            if config.data.proposals:
                train = without_fold(source, config.data) if config.data.fold else source
                report.joining = len(proposals_of(as_learned(train, config)))
        except DataError as error:
            wrong.append(str(error))
    with ThreadPoolExecutor() as pool:
        for index, example in enumerate(pool.map(lambda i: _read(source, i, i in kept), range(len(source)))):
            if isinstance(example, Exception):
                wrong.append(str(example))
                continue
            _add(report, index, example)
            if example.pixels[-1] == np.prod(example.size):
                report.unlabelled.append(source.name(index))
    if isinstance(
        source, FolderSource | MultilabelSource | AnnotatedSource | WeakenedSource
    ):  # asked after the examples, so that their masks are not read again
        report.problems.extend(source.problems)
        report.remarks.extend(source.remarks)
    report.problems += wrong
    report.images = len(report.readable)
    report.remarks += _about_images(report) + _about_masks(report)
    _judge_unlabelled(report, config)
    return report


def evenly_spaced(length: int, count: int) -> list[int]:
    """Returns at most `count` indices below `length`, evenly spaced from the first to the last."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()


def _read(source: Source, index: int, keep: bool) -> Example | Exception:
    try:
        example, info = source[index], source.info
        if info.multilabel:
            label, classes = example["label"], len(info.classes)
            among = known_counts(label, classes) if info.partly else None
            return _example(example, keep, pixel_counts(label, classes), among)
        return _example({**example, "label": known_array(example["label"], len(info.classes))}, keep)
    except (DataError, OutOfMemoryError) as error:
        return error
    except MemoryError:
        return OutOfMemoryError(f"{source.name(index)} does not fit into the memory of this machine.")


def _example(
    example: base.Example, keep: bool, pixels: np.ndarray | None = None, among: np.ndarray | None = None
) -> Example:
    image, label = example["image"], example["label"]
    found = values_of(image)
    fit = mask_fit(image, label, ignore_in(label)) if pixels is None else None  # of the one class of each pixel
    pixels = np.bincount(label.ravel(), minlength=ignore_in(label) + 1) if pixels is None else pixels
    return Example(
        label.shape,
        pixels,
        np.full(pixels.shape, label.size) if among is None else among,
        found.mean,
        found.square,
        found.largest,
        found.bits,
        sketch(image),
        fit,
        example if keep else None,
    )


def _add(report: Report, index: int, example: Example) -> None:
    report.readable.append(index)
    report.sketches.append(example.sketch)
    if example.fit is not None and example.fit.doubtful:
        report.misfits.append((index, example.fit))
    if example.arrays is not None:
        report.kept[index] = example.arrays
    report.sizes[example.size] += 1
    report.pixels = report.pixels + example.pixels
    report.among = report.among + example.among
    report.present = report.present + (example.pixels > 0)
    report.mean = report.mean + example.mean
    report.square = report.square + example.square
    before = report.largest[example.bits] if example.bits in report.largest else 0
    report.largest[example.bits] = max(before, example.largest)


def _judge_unlabelled(report: Report, config: ConfigDict) -> None:
    """Adds images without labels to the problems, unless the training learns from them; says so if it does not yet."""
    from_images = compares_images(config)
    training = report.split == config.data.train_split
    used = learns_without_labels(config) and (training or from_images)
    used = used or (training and loss_of(config).takes_possible)  # it learns from tags
    if not used:
        where = "" if not learns_without_labels(config) else " Move it to the training split: here it scores nothing."
        report.problems += [f"Every pixel of {name} ({report.split}) is ignored.{where}" for name in report.unlabelled]
    elif report.unlabelled and not uses_unlabelled(config):
        report.remarks.append(
            f"{report.split} has {counted(len(report.unlabelled), 'image')} without labels, of use only with "
            "semi.method, or adversarial.semi_weight or adversarial.unlabelled_weight above 0."
        )


def _about_masks(report: Report) -> list[str]:
    """Returns a sentence for each mask that fits its image clearly better in another form; of full masks alone."""
    source = report.source
    if source is None or isinstance(source, AnnotatedSource | WeakenedSource):
        return []
    sentences = []
    for i, fit in report.misfits:
        pair = source.pairs[i] if isinstance(source, FolderSource) else None
        name = source.name(i) if pair is None or pair.mask is None else str(pair.mask)
        sentences.append(f"The mask {name} ({report.split}) fits the edges in its image better {fit.form}: look at it.")
    return sentences


def _about_images(report: Report) -> list[str]:
    """Returns remarks about images that use a small part of their range, and about images that are turned."""
    remarks = []
    for bits, largest in report.largest.items():
        if bits and largest < _DARK * (2**bits - 1):
            remarks.append(
                f"The largest value in the {bits}-bit images of {report.split} is {largest} of {2**bits - 1}, which "
                f"becomes {largest / (2**bits - 1):.3g} in [0, 1]: they are nearly black. Scale the files to the whole "
                f"range, or give data.mean and data.std that fit (see the line 'images')."
            )
    turned = report.source.turned() if isinstance(report.source, FolderSource) else []
    if turned:
        remarks.append(
            f"The EXIF orientation of {len(turned)} of {counted(len(report.source or ()), 'image')} of {report.split}, "
            f"such as {turned[0]}, turns another way than that of the mask, if the mask has the tag at all. Look at "
            "the picture: the mask must fit the upright image."
        )
    return remarks


def about_classes(reports: Sequence[Report]) -> list[str]:
    """Returns remarks about the classes that occur in no mask of all reports, or hardly, or may count objects."""
    opened = [r for r in reports if r.source is not None and r.images]
    if not opened or opened[0].source is None:
        return []
    names = opened[0].source.info.classes
    pixels = np.sum([r.pixels for r in opened], axis=0)[: len(names)]
    among = np.sum([r.among for r in opened], axis=0)[: len(names)]
    total = np.maximum(among if opened[0].source.info.partly else pixels.sum(), 1) + np.zeros_like(pixels)
    absent = [name for name, count in zip(names, pixels) if not count] if pixels.any() else []
    rare = [
        f"{name} ({counted(count, 'pixel')}, {count / most:.4%})"
        for name, count, most in zip(names, pixels, total)
        if 0 < count < _RARE * most
    ]
    splits = " and ".join(r.split for r in opened)
    remarks = []
    present = np.sum([r.present for r in opened], axis=0)[: len(names)]
    unnamed = all(name == f"class {i}" for i, name in enumerate(names))  # by classes.json
    if unnamed and len(names) > _OBJECTS and (np.diff(present) <= 0).all() and 2 * present[-1] <= present[0]:
        remarks.append(
            f"Of {counted(len(names), 'class')}, each occurs in at most as many images as the one before it, as when "
            "the masks number the objects of each image 1, 2, 3, ... (instance masks). A class is a kind of object: if "
            "these are numbers of objects, save masks with one value for each kind."
        )
    if absent:
        remarks.append(
            f"Classes that no mask of {splits} holds: {_some(absent)}. If the values in the masks have gaps, the "
            "numbers between them are no classes: list the classes in classes.json."
        )
    if rare:
        remarks.append(
            f"Classes with less than a thousandth of the labelled pixels of {splits}: {_some(rare)}. Values that an "
            "image program or a lossy file has mixed into the masks look so."
        )
    return remarks


def _some(words: Sequence[str], most: int = 8) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
