"""What a dense CRF does to the scores of networks: `python benchmarks/crf_effect.py --workdir DIR ... --out NAME`.

Each image of a split is segmented at its own size, with no CRF and with each that `--crf` names: mIoU over the split,
boundary F1 as `jaxseg evaluate --boundary` has it, IoU of each class, and how many pixels change their class, for the
better and for the worse. `--picture FILE` draws image, truth, and the classes of the first network without and with its
best CRF.
"""

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from lib.timing import at_least, environment, measured_on, rows_below, save
from tqdm import tqdm

from jaxseg import metrics, pictures
from jaxseg.config import set_key
from jaxseg.config.command import run_command
from jaxseg.data import make_source
from jaxseg.data.sources import split_of_data
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.inference import refine
from jaxseg.inference.predictor import make_predictor
from jaxseg.inference.surface import SurfaceTotal, surface_scores
from jaxseg.metrics.formatting import nan_mean
from jaxseg.nn import CRF
from jaxseg.run.load import load_run
from jaxseg.types import IGNORE

PACKAGES = ("jaxseg", "jax", "numpy", "scipy")
RIGHT, WRONG = (30, 160, 60), (210, 40, 40)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workdir", nargs="+", required=True, metavar="DIR", help="workdirs of trained runs")
    parser.add_argument("--split", default="val", help="the split that is scored (default val)")
    parser.add_argument(
        "--crf", nargs="+", default=["deeplab-v1"], help="presets or NAME=VALUE,... (default deeplab-v1)"
    )
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="images scored, evenly spaced (default: all)")
    parser.add_argument("--data-dir", default="", metavar="PATH", help="data.dir, where it is not that of the run")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="PNG of the images that the best CRF changes most")
    parser.add_argument("--note", default="", help="a sentence above the table: what the networks are")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json and NAME.md are written")
    options = parser.parse_args(argv)
    return run_command(lambda: _compare(options))


def _compare(options: argparse.Namespace) -> int:
    try:
        settings = {text: CRF.parse(text) for text in options.crf}
    except ArgumentError as error:
        raise ConfigError(f"--crf: {error}") from error
    rows, shown = [], []
    for workdir in options.workdir:
        scored, drawn = measure(workdir, settings, options)
        rows += scored
        shown = shown or drawn
    where = environment() | {"packages": {name: importlib.metadata.version(name) for name in PACKAGES}}
    record = {"environment": where, "split": options.split, "note": options.note, "rows": rows}
    record["crf"] = {text: str(crf) for text, crf in settings.items()}
    if options.picture:
        draw(shown, options.picture)
    save(options.out, record, describe(record))
    return 0


def measure(
    workdir: str, settings: dict[str, CRF], options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[tuple[np.ndarray, ...]]]:
    """Returns a row for the network of a workdir and one for each CRF, and what to draw of it."""
    run = load_run(workdir, "best", {"data.dir": options.data_dir} if options.data_dir else {})
    config = run.config.copy_and_resolve_references()
    set_key(config, "data.classes", run.classes)
    source = make_source(config, split_of_data(run.config, options.split))
    count = min(options.limit or len(source), len(source))
    segment, k = make_predictor([run]), metrics.num_confusion_classes(run.num_classes)
    names = ("none", *settings)
    confusions = {name: np.zeros((k, k), np.int64) for name in names}
    boundaries = {name: SurfaceTotal(run.num_classes) for name in names}
    changes = {name: np.zeros(2, np.int64) for name in names}
    kept: list[dict[str, Any]] = []
    confusion = jax.jit(metrics.confusion_matrix, static_argnums=2)
    for index in tqdm([i * len(source) // count for i in range(count)], desc=Path(workdir).name, disable=None):
        example = source[index]
        image, label = np.asarray(example["image"]), np.asarray(example["label"])
        shares = np.asarray(segment(image, probabilities=True).probabilities)
        found = {"none": classes_of(shares)}
        found |= {name: classes_of(refine(image, shares, crf)) for name, crf in settings.items()}
        for name, classes in found.items():
            confusions[name] += np.asarray(confusion(classes[None], label[None].astype(np.int32), k), np.int64)
            boundaries[name].add({"prediction": classes[None], "label": label[None], "size": np.array([label.shape])})
            differs = (classes != found["none"]) & (label != IGNORE)
            changes[name] += (differs & (classes == label)).sum(), (differs & (found["none"] == label)).sum()
        kept.append({"image": image, "label": label, **found})
    rows = []
    for name in names:
        scores = metrics.scores(confusions[name])
        row = {"network": Path(workdir).name, "model": run.config.model.name, "crf": name, "images": count}
        row |= {"mean_iou": float(scores.mean_iou), "iou": np.asarray(scores.iou, float).tolist()}
        row |= {"boundary_f1": float(nan_mean(surface_scores(boundaries[name].sums).boundary_f1))}
        right, wrong = changes[name] / confusions[name].sum()
        rows.append(row | {"better": float(right), "worse": float(wrong), "classes": list(run.classes)})
    best = max(settings, key=lambda name: metrics.scores(confusions[name]).mean_iou)
    # The images of usual size in which the CRF changes most pixels, for the better or the worse.
    usual = [each for each in kept if each["label"].size <= 400 * 500]
    usual.sort(key=lambda each: -np.mean(each[best] != each["none"]))
    drawn = [(e["image"], e["label"], e["none"], e[best], np.asarray(run.colors)) for e in usual[:3]]
    return rows, drawn


def classes_of(shares: np.ndarray) -> np.ndarray:
    """Probabilities f32[h,w,k] -> u8[h,w], the most probable class; for k = 1 class 1 above 1/2."""
    likeliest = shares[..., 0] > 0.5 if shares.shape[-1] == 1 else shares.argmax(-1)
    return likeliest.astype(np.uint8)


def describe(record: dict[str, Any]) -> str:
    """Returns the table."""
    classes = record["rows"][0]["classes"]
    columns = ("network", "CRF", "mIoU", "boundary F1", *(f"IoU {name}" for name in classes), "better, %", "worse, %")
    rows = []
    for row in record["rows"]:
        shares = (row["mean_iou"], row["boundary_f1"], *row["iou"])
        changed = ("", "") if row["crf"] == "none" else (f"{100 * row['better']:.2f}", f"{100 * row['worse']:.2f}")
        rows.append((row["network"], row["crf"], *(f"{100 * value:.2f}" for value in shares), *changed))
    note = (
        f"{record['note']} Split {record['split']}, {record['rows'][0]['images']} images. Better and worse: pixels "
        "that the CRF puts right and those that it spoils, as shares of all."
    )
    return rows_below(columns, rows, note.strip()) + "\n" + measured_on(record) + "\n"


def draw(shown: Sequence[tuple[np.ndarray, ...]], path: Path) -> None:
    """Draws a row for each image: the image, the truth, the network, with the CRF, and what the CRF changed."""
    from matplotlib.figure import Figure

    titles = ("image", "truth", "network", "network and CRF", "changed: green right, red wrong")
    figure = Figure(figsize=(2.1 * len(titles), 2.2 * len(shown)), dpi=100, layout="constrained")
    axes = figure.subplots(len(shown), len(titles), squeeze=False)
    for row, (image, label, before, after, colors) in zip(axes, shown, strict=True):
        changed = np.full((*label.shape, 3), 245, np.uint8)
        changed[label == 1] = 215
        changed[(before != after) & (after == label)] = RIGHT
        changed[(before != after) & (before == label)] = WRONG
        maps = (pictures.colorize(each, [tuple(c) for c in colors.tolist()]) for each in (label, before, after))
        for axis, picture in zip(row, (pictures.to_rgb(image), *maps, changed), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color("0.75")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
