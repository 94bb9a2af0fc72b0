"""Scores runs whose pixels may have several classes: `python benchmarks/multilabel.py --workdir DIR ... --out NAME`.

The thresholds of the classes are found on the split `--fit`. Each run is scored on `--split` at a probability of a
half, with its thresholds, and with flips averaged. Of a run on the shapes data it also counts, of the pixels of a kind
of shape that lie behind other shapes, those that the network finds.

    python benchmarks/multilabel.py --write-edges DIR --data-dir PATH --size 64

writes a folder of two classes, nucleus and edge, which overlap, from a folder of images with their numbered objects in
instances/: the edge is the pixels within `--width` of a border of an object, on both of its sides.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lib.timing import at_least, environment, rows_below, save
from PIL import Image
from scipy import ndimage

from jaxseg import metrics
from jaxseg.config import set_key
from jaxseg.config.command import run_command
from jaxseg.data import make_source
from jaxseg.data.shapes import ShapesSource
from jaxseg.data.sources import split_of_data
from jaxseg.errors import ArgumentError
from jaxseg.inference import thresholds
from jaxseg.inference.evaluation import evaluate
from jaxseg.inference.predictor import make_predictor
from jaxseg.metrics.formatting import percent
from jaxseg.run.load import Run, load_run

COLUMNS = ("run", "scored", "mIoU", "exact match", "Hamming", "mean F1", "IoU of each class", "hidden pixels found")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", nargs="+", metavar="DIR", help="the workdirs of the runs")
    parser.add_argument("--split", default="test", help="the split that is scored (default test)")
    parser.add_argument("--fit", default="val", help="the split on which thresholds are found (default val)")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json and NAME.md are written")
    parser.add_argument("--write-edges", type=Path, metavar="DIR", help="write a folder of two classes there instead")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the folder that it is made from")
    parser.add_argument("--size", type=at_least(8), default=64, metavar="N", help="pixels a side (default 64)")
    parser.add_argument("--width", type=at_least(1), default=1, metavar="N", help="of the edge (default 1)")
    options = parser.parse_args(argv)
    if options.write_edges and not options.data_dir:
        parser.error("--write-edges makes a folder from that of --data-dir; give it too")
    if not options.write_edges and not options.workdir:
        parser.error("give --workdir DIR, or --write-edges DIR")
    return run_command(lambda: _write_edges(options) if options.write_edges else _score(options))


def _write_edges(options: argparse.Namespace) -> int:
    side = (options.size, options.size)
    for split in ("train", "val"):
        for path in sorted((options.data_dir / split / "instances").glob("*.png")):
            objects = np.asarray(Image.open(path).resize(side, Image.Resampling.NEAREST)).astype(np.int32)
            around = 2 * options.width + 1
            edge = ndimage.maximum_filter(objects, around) != ndimage.minimum_filter(objects, around)
            for name, there in (("nucleus", objects > 0), ("edge", edge)):
                _save(options.write_edges / split / "masks" / name / path.name, there.astype(np.uint8) * 255)
            image = Image.open(options.data_dir / split / "images" / path.name).convert("RGB")
            small = np.asarray(image.resize(side, Image.Resampling.BOX))
            _save(options.write_edges / split / "images" / path.name, small)
    return 0


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _score(options: argparse.Namespace) -> int:
    rows = [row for workdir in options.workdir for row in rows_of(load_run(workdir), options.split, options.fit)]
    note = f"split {options.split}; thresholds found on {options.fit}; in percent"
    save(options.out, {"split": options.split, "rows": rows, **environment()}, to_table(rows, note))
    return 0


def to_table(rows: Sequence[dict[str, Any]], note: str) -> str:
    """Returns the Markdown table of rows."""
    return rows_below(COLUMNS, [[row[name] for name in COLUMNS] for row in rows], note)


def rows_of(run: Run, split: str, fit: str = "val") -> list[dict[str, Any]]:
    """Returns the scores of a run at a half, with thresholds, and with flips, as rows of the table."""
    if not run.parts.loss.multilabel:
        raise ArgumentError(f"The run in {run.workdir} has one class a pixel; give one with data.multilabel.")
    found = thresholds.fit(run, fit)
    plain, flips = make_predictor([run]), make_predictor([run], average="flips")
    limits = tuple(found.values.logits.tolist())
    own = dataclasses.replace(plain, networks=dataclasses.replace(plain.networks, thresholds=limits))
    rows = []
    for how, predictor in (("at a half", plain), ("with thresholds", own), ("flips averaged", flips)):
        counts, hidden = count(run, split, predictor)
        scores = metrics.scores(counts)
        rows.append(
            {
                "run": run.workdir.name,
                "scored": how,
                "mIoU": percent(scores.mean_iou),
                "exact match": percent(scores.pixel_accuracy),
                "Hamming": percent(scores.hamming_accuracy or 0.0),
                "mean F1": percent(scores.mean_f1),
                "IoU of each class": ", ".join(f"{n} {percent(v)}" for n, v in zip(run.classes, scores.iou)),
                "hidden pixels found": percent(hidden),
                "step": run.step,
                "scores": metrics.scores_dict(scores, run.classes),
            }
        )
    at_half = evaluate(run, split).mean_iou
    assert abs(at_half - rows[0]["scores"]["mean_iou"]) < 1e-3, "an image at a time scores as a batch does"
    return rows


def count(run: Run, split: str, predictor: Any) -> tuple[np.ndarray, float]:
    """Returns `metrics.set_counts` of a split, and the share of hidden pixels of shapes that are found, or NaN."""
    config = run.config.copy_and_resolve_references()
    set_key(config, "data.classes", run.classes)
    source = make_source(config, split_of_data(run.config, split))
    seen = None
    if isinstance(source, ShapesSource):
        seen = ShapesSource(source.split, len(source), source.size, imbalance=config.data.shapes_imbalance)
    total: Any = 0
    hits, hidden = 0, 0
    for i in range(len(source)):
        example = source[i]
        sets, label = predictor(example["image"]).classes, example["label"]
        total = total + np.asarray(metrics.set_counts(sets, label, len(run.classes)), np.int64)
        if seen is not None:
            front = seen[i]["label"]
            for c in range(len(run.classes)):
                behind = (label >> c & 1 == 1) & (front > 0) & (front != c + 1)
                hits, hidden = hits + int((behind & (sets >> c & 1 == 1)).sum()), hidden + int(behind.sum())
    return total, hits / hidden if hidden else float("nan")


if __name__ == "__main__":
    sys.exit(main())
