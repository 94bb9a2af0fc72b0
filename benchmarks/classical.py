"""Segmentation without networks: `python benchmarks/classical.py --source shapes --out benchmarks/results/NAME`.

Edges, texture and colour divide each image into regions (`lib/regions.py`). The regions get classes in two ways, which
are scored separately:

- by statistics: the vote of the nearest training regions, each labelled by its majority. This is a prediction.
- by an oracle: the most frequent true label in the region. No other labels of these regions have more pixels right.
  More regions allow a higher score, so the table gives their number too.

The scores are computed by `jaxseg.metrics`. `--networks` adds trained networks to the table: workdirs that
`jaxseg.evaluate` scored on the same split, or a JSON file of `collect.py`. The data come from `jaxseg.data`; `--source
camvid` also needs `--data-dir PATH`.
"""

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from lib.commands import command_of
from lib.timing import at_least, environment, save, table
from tqdm import tqdm

from jaxseg import metrics, pictures
from jaxseg.config import default_config, update
from jaxseg.config.command import run_command
from jaxseg.data import make_source
from jaxseg.data.base import DataInfo, Source
from jaxseg.data.sources import SOURCES
from jaxseg.errors import DataError

PACKAGES = ("jaxseg", "jax", "numpy", "scipy", "scikit-image")
VOTERS = 15  # training regions that decide on the class of a region
FLOOR = "the commonest class everywhere"
COLUMNS = ("method", "regions an image", "mIoU", "pixel accuracy", "oracle mIoU", "oracle accuracy", "CPU ms an image")


class Drawn(NamedTuple):
    """An image of the picture: u8[h,w,3], its truth, and {method: (by statistics, by the oracle)}, all u8[h,w]."""

    image: np.ndarray
    truth: np.ndarray
    predictions: dict[str, tuple[np.ndarray, np.ndarray]]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--source", choices=SOURCES, default="shapes", help="the data set (default shapes)")
    parser.add_argument("--data-dir", default="", metavar="PATH", help="data.dir of the data set")
    parser.add_argument("--cache", default="", metavar="PATH", help="data.cache of the data set")
    parser.add_argument("--split", default="val", help="the split that is scored (default val)")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="images scored, evenly spaced (default: all)")
    parser.add_argument(
        "--train", type=at_least(1), default=300, metavar="N", help="images learned from, evenly spaced (default 300)"
    )
    parser.add_argument("--networks", nargs="*", type=Path, default=[], metavar="PATH", help="workdirs, or JSON files")
    parser.add_argument(
        "--picture", type=at_least(0), default=3, metavar="N", help="images in the picture (default 3; 0: none)"
    )
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json, NAME.md and NAME.png are written")
    parser.add_argument("--smallest", action="store_true", help="three images of 64x64, to see that it works")
    options = parser.parse_args(argv)
    if options.smallest:
        options.source, options.train, options.limit, options.picture = "shapes", 2, 1, 1
    try:
        import skimage  # noqa: F401
    except ImportError:
        print("error: the classical methods need scikit-image: pip install -e '.[benchmarks]'", file=sys.stderr)
        return 1
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _compare(options, words))


def _compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    config = default_config()
    update(config, data__source=options.source, data__dir=options.data_dir, data__cache=options.cache)
    train, scored = make_source(config, config.data.train_split), make_source(config, options.split)
    networks = [row for path in options.networks for row in network_rows(path, options.split, scored.info)]
    learned, chosen = evenly(len(train), options.train), evenly(len(scored), options.limit)
    rows, drawn = measure(train, learned, scored, chosen, options.picture)
    pixels = [entry["support"] for entry in rows[0]["classes"]]
    for row in networks:
        row["same_pixels"] = row.pop("support") == pixels
    where = environment() | {"packages": {name: importlib.metadata.version(name) for name in PACKAGES}}
    record = {
        "command": command_of(__file__, words),
        "environment": where,
        "source": options.source,
        "split": options.split,
        "images": len(chosen),
        "images_of_split": len(scored),
        "training_images": len(learned),
        "training_images_of_split": len(train),
        "voters": VOTERS,
        "methods": rows,
        "networks": networks,
    }
    save(options.out, record, describe(record), (lambda f: draw(f, drawn, scored.info)) if drawn else None)
    return 0


def measure(
    train: Source, learned: Sequence[int], scored: Source, chosen: Sequence[int], pictured: int
) -> tuple[list[dict[str, Any]], list[Drawn]]:
    """Learns from images of one source and scores images of another; returns rows of the table, and what to draw."""
    from lib import regions  # needs scikit-image

    k = len(scored.info.classes)
    samples: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in regions.SEGMENTERS}
    pixels = np.zeros(k, np.int64)
    for index in tqdm(learned, desc="learn", unit="image", disable=None):
        image, label = read(train, index)
        pixels += np.bincount(label[label < k], minlength=k)
        view = regions.look(image)
        for name, segment in regions.SEGMENTERS.items():
            found = segment(view)
            samples[name].append((regions.describe(view, found), regions.majority(found, label, k)))
    voters = {
        name: regions.Neighbours.fit(*map(np.concatenate, zip(*pairs)), k, VOTERS) for name, pairs in samples.items()
    }

    count = jax.jit(metrics.confusion_matrix, static_argnums=2)
    confusion = {name: np.zeros((2, k, k), np.int64) for name in (FLOOR, *voters)}
    pieces, seconds = dict.fromkeys(voters, 0), dict.fromkeys(voters, 0.0)
    places, drawn = {chosen[i] for i in evenly(len(chosen), pictured)} if pictured else set(), []
    for index in tqdm(chosen, desc="score", unit="image", disable=None):
        image, label = read(scored, index)
        confusion[FLOOR][0] += np.asarray(count(np.full_like(label, pixels.argmax())[None], label[None], k))
        begin = time.process_time()
        view = regions.look(image)
        looking, predictions = time.process_time() - begin, {}
        for name, voter in voters.items():
            begin = time.process_time()
            found = regions.SEGMENTERS[name](view)
            voted = voter(regions.describe(view, found))[found]
            seconds[name] += looking + time.process_time() - begin
            pieces[name] += int(found.max()) + 1
            predictions[name] = (voted, regions.majority(found, label, k)[found])
            for total, prediction in zip(confusion[name], predictions[name]):
                total += np.asarray(count(prediction[None], label[None], k))
        if index in places:
            drawn.append(Drawn(image, label, predictions))
    rows = [{"method": FLOOR, **_scores(confusion[FLOOR][0], scored.info), "oracle": None}]
    for name in voters:
        by_vote, by_oracle = (_scores(total, scored.info) for total in confusion[name])
        rows.append(
            {
                "method": name,
                "regions": pieces[name] / len(chosen),
                "cpu_seconds": seconds[name] / len(chosen),
                "training_regions": len(voters[name].classes),
                **by_vote,
                "oracle": by_oracle,
            }
        )
    return rows, drawn


def read(source: Source, index: int) -> tuple[np.ndarray, np.ndarray]:
    """An image as u8[h,w,3] and its labels u8[h,w]."""
    example = source[index]
    return pictures.to_rgb(example["image"]), example["label"]


def evenly(total: int, count: int | None) -> list[int]:
    """`count` of the numbers 0 to total - 1, evenly spaced; all of them where there are no more, or for None."""
    count = total if count is None else min(count, total)
    return [i * total // count for i in range(count)]


def network_rows(path: Path, split: str, info: DataInfo) -> list[dict[str, Any]]:
    """What networks scored on the split: of a workdir, or of all the runs in a JSON file of `collect.py`.

    Raises:
        DataError: if there are no such scores, or they are of another split or of other classes.
    """
    file = path / f"evaluate-{split}.json" if path.is_dir() else path
    if not file.is_file():
        hint = f"; python -m jaxseg.evaluate --workdir {path} --split {split} makes it" if path.is_dir() else ""
        raise DataError(f"There is no {file}{hint}.")
    kept = ("parameters", "images", "mean_iou", "pixel_accuracy", "classes")
    try:
        found = json.loads(file.read_text())
        runs = found["runs"] if "runs" in found else [{"run": path.name, **found}]
        rows = [{"method": run["run"], **{key: run[key] for key in kept}} for run in runs]
        splits = {run["split"] for run in runs}
        classes = {tuple(entry["name"] for entry in run["classes"]) for run in runs}
        for row in rows:
            row["support"] = [entry["support"] for entry in row["classes"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} does not hold the scores of networks: {error!r}.") from error
    if not splits <= {split} or not classes <= {info.classes}:
        given = "; ".join(", ".join(names) for names in classes)
        raise DataError(
            f"{file} has scores of the split {', '.join(splits)} and the classes {given}; the split {split} and the "
            f"classes {', '.join(info.classes)} were expected."
        )
    return rows


def describe(record: dict[str, Any]) -> str:
    """Returns the table, best first, with what the columns mean above it."""
    rows = []
    for row in sorted([*record["methods"], *record["networks"]], key=lambda row: -(row["mean_iou"] or 0.0)):
        cells = [row["method"], "", _percent(row["mean_iou"]), _percent(row["pixel_accuracy"]), "", "", ""]
        if "parameters" in row:
            cells[0] = f"`{row['method']}`, {row['parameters']:,} parameters" + ("" if row["same_pixels"] else " *")
        elif row["oracle"]:
            oracle = row["oracle"]
            cells[1], cells[6] = f"{row['regions']:.0f}", f"{1000 * row['cpu_seconds']:.0f}"
            cells[4:6] = _percent(oracle["mean_iou"]), _percent(oracle["pixel_accuracy"])
        rows.append(cells)
    sizes = [_of(record[name], record[f"{name}_of_split"]) for name in ("images", "training_images")]
    note = (
        f"{record['source']}, split {record['split']}: {sizes[0]}. mIoU and pixel accuracy: a region gets the class "
        f"that the {record['voters']} most similar regions vote for, of {sizes[1]} of the training split. Oracle: it "
        "gets its commonest true label, so that no labels of such regions have more pixels right. CPU ms: to cut, "
        "measure and label an image."
    )
    if not all(row["same_pixels"] for row in record["networks"]):
        note += " *: scored on other images of the split, or on all of them."
    return table(COLUMNS, rows, record, note) + f"\n    {record['command']}\n"


def draw(figure: Any, drawn: Sequence[Drawn], info: DataInfo) -> None:
    """Draws two rows an image: image, truth and every method's labels by statistics; below them those of the oracle."""
    from matplotlib.patches import Patch

    names = list(drawn[0].predictions)
    h, w = drawn[0].truth.shape
    figure.set_size_inches(1.35 * (2 + len(names)), 2 * len(drawn) * 1.35 * h / w + 0.7)
    axes = figure.subplots(2 * len(drawn), 2 + len(names), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.75")
    for shown, row in zip(drawn, range(0, 2 * len(drawn), 2)):
        axes[row, 0].imshow(shown.image)
        axes[row, 1].imshow(pictures.colorize(shown.truth, info.colors))
        axes[row + 1, 0].axis("off")
        axes[row + 1, 1].axis("off")
        for column, name in enumerate(names, 2):
            for below, labels in enumerate(shown.predictions[name]):
                axes[row + below, column].imshow(pictures.colorize(labels, info.colors), interpolation="nearest")
        axes[row, 2].set_ylabel("statistics", fontsize=7)
        axes[row + 1, 2].set_ylabel("oracle", fontsize=7)
    for axis, title in zip(axes[0], ("image", "truth", *names)):
        axis.set_title(title, fontsize=8)
    patches = [Patch(facecolor=np.divide(color, 255), label=name) for name, color in zip(info.classes, info.colors)]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 6), fontsize=8, frameon=False)


def _scores(confusion: np.ndarray, info: DataInfo) -> dict[str, Any]:
    return metrics.scores_dict(metrics.scores(confusion), info.classes)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _of(count: int, total: int) -> str:
    return f"all {total} images" if count == total else f"{count} evenly spaced of the {total} images"


if __name__ == "__main__":
    sys.exit(main())
