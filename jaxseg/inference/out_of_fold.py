"""The predictions of a run for the fold that it was trained without: class maps, scores and counts of each image."""

import csv
import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg import pictures
from jaxseg.data import make_source
from jaxseg.data.folds import HELD_OUT
from jaxseg.files import write_atomically, write_text
from jaxseg.inference.evaluation import Evaluation, evaluate
from jaxseg.inference.outputs import labels_picture
from jaxseg.metrics import ImageCounts
from jaxseg.metrics.intervals import iou_and_mean
from jaxseg.run.load import Run

FOLDER = "oof"
"""Of the predictions, in the workdir of a run."""
SCORES, COUNTS = "scores.csv", "counts.npz"


class OutOfFold(NamedTuple):
    """What is known of the images of one fold, or of all.

    Attributes:
        names, files, groups, folds: of each image; `files` are the class maps, in the folder of the fold.
        counts: their pixels.
    """

    names: tuple[str, ...]
    files: tuple[str, ...]
    groups: tuple[str, ...]
    folds: tuple[int, ...]
    counts: ImageCounts


def score_held_out(run: Run) -> Evaluation:
    """Scores a run on the fold that it was trained without, and writes its predictions into oof/ of its workdir.

    Each image has NAME.png there, the class indices with the palette of the data; scores.csv has its IoU of each class.

    Raises:
        DataError, OutOfMemoryError: as `evaluate` does.
    """
    source = make_source(run.config, HELD_OUT)
    names = [source.name(i) for i in range(len(source))]
    files, folder = map_files(names), run.workdir / FOLDER

    def write(maps: dict[str, Any]) -> None:
        for index, prediction, (h, w) in zip(maps["index"], maps["prediction"], maps["size"]):
            if index >= 0:
                picture = labels_picture(prediction[:h, :w], run.colors, range(len(run.colors)))
                pictures.save_image(picture, folder / files[index])

    evaluation = evaluate(run, HELD_OUT, look=write)
    assert evaluation.counts is not None  # one process
    fold = int(run.config.data.fold.partition("/")[0])
    groups = evaluation.groups or tuple(names)
    found = OutOfFold(tuple(names), tuple(files), groups, (fold,) * len(names), evaluation.counts)
    write_scores(folder / SCORES, found, run.classes)
    arrays: dict[str, Any] = {**found._asdict(), **evaluation.counts._asdict()}
    del arrays["counts"]
    write_atomically(folder / COUNTS, lambda file: np.savez_compressed(file, **arrays))
    return evaluation


def map_files(names: Sequence[str]) -> list[str]:
    """Returns the file of the class map of each image: its name, without what a file system may not take."""
    files: list[str] = []
    taken: set[str] = set()
    for i, name in enumerate(names):
        parts = [re.sub(r"[^\w.-]+", "_", part) for part in name.split("/") if part not in ("", ".", "..")]
        file = "/".join(parts) or "image"
        while file.lower() in taken:
            file = f"{file}-{i}"
        taken.add(file.lower())
        files.append(f"{file}.png")
    return files


def read_out_of_fold(workdir: Path) -> OutOfFold:
    """Returns what `score_held_out` wrote of a run; raises OSError, ValueError or KeyError if it is not there whole."""
    with np.load(workdir / FOLDER / COUNTS, allow_pickle=False) as file:
        texts = [tuple(map(str, file[name])) for name in ("names", "files", "groups")]
        counts = ImageCounts(file["image"], file["label"], file["pixels"], int(file["images"]), int(file["classes"]))
        return OutOfFold(texts[0], texts[1], texts[2], tuple(map(int, file["folds"])), counts)


def write_scores(path: Path, found: OutOfFold, classes: Sequence[str]) -> None:
    """Writes a line for each image: name, fold, group, labelled pixels, mean IoU and the IoU of each class."""
    counts = found.counts
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "fold", "group", "pixels", "mean_iou", *classes])
    order = np.argsort(counts.image, kind="stable")
    starts = np.searchsorted(counts.image[order], np.arange(counts.images + 1))
    for i, (name, fold, group) in enumerate(zip(found.names, found.folds, found.groups)):
        own = order[starts[i] : starts[i + 1]]
        sums = np.zeros((3, counts.classes), np.int64)
        sums[:, counts.label[own]] = counts.pixels[:, own]
        iou = iou_and_mean(sums)
        shown = ["" if np.isnan(value) else f"{value:.6f}" for value in (iou[-1], *iou[:-1])]
        writer.writerow([name, fold, group, int(sums[1].sum()), *shown])
    write_text(path, text.getvalue())


def joined(parts: Sequence[OutOfFold]) -> OutOfFold:
    """Returns the images of several folds as one."""
    offsets = np.cumsum([0, *(part.counts.images for part in parts)])
    image = np.concatenate([part.counts.image + offset for part, offset in zip(parts, offsets)])
    label = np.concatenate([part.counts.label for part in parts])
    pixels = np.concatenate([part.counts.pixels for part in parts], axis=1)
    order = np.argsort(label, kind="stable")
    counts = ImageCounts(image[order], label[order], pixels[:, order], int(offsets[-1]), parts[0].counts.classes)
    chain = itertools.chain.from_iterable
    return OutOfFold(
        tuple(chain(part.names for part in parts)),
        tuple(chain(part.files for part in parts)),
        tuple(chain(part.groups for part in parts)),
        tuple(chain(part.folds for part in parts)),
        counts,
    )
