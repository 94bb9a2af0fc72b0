"""What tiles and averaging change: `python benchmarks/tiles.py --out NAME --workdir RUN [--split val] [--tile 128]`.

A run that was trained with data.fit=crop is scored whole, in tiles of several overlaps, and averaged over views: the
mean IoU, the share of pixels that get another class than in the whole image, and the time of an image beside that of
the whole image, alternating. --picture FILE draws one image: whole, in tiles without overlap, blended.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from lib.timing import at_least, environment, make_parser, save, table

from jaxseg import compiler, metrics, pictures
from jaxseg.config import set_key
from jaxseg.data import make_source
from jaxseg.data.sources import split_of_data
from jaxseg.inference.predictor import make_predictor
from jaxseg.pictures.marks import FIGURE
from jaxseg.run.load import load_run


def ways(tile: int) -> dict[str, dict[str, Any]]:
    """Returns {name: arguments of `make_predictor`}."""
    return {
        "whole": {},
        "tiles, overlap 0": {"tiles": tile, "overlap": 0.0},
        "tiles, overlap .25": {"tiles": tile, "overlap": 0.25},
        "tiles, overlap .5": {"tiles": tile, "overlap": 0.5},
        "tiles, overlap .5, nearest": {"tiles": tile, "overlap": 0.5, "blending": "nearest"},
        "tiles, overlap .75": {"tiles": tile, "overlap": 0.75},
        "flips": {"average": "flips"},
        "flips:hv": {"average": "flips:hv"},
        "scales:.75-1-1.25": {"average": "scales:.75-1-1.25"},
        "flips:hv,scales:.75-1-1.25": {"average": "flips:hv,scales:.75-1-1.25"},
    }


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", metavar="RUN", required=True, help="a run that was trained with data.fit=crop")
    parser.add_argument("--split", default="val", help="(default val)")
    parser.add_argument("--tile", type=at_least(8), default=128, help="side of a tile in pixels (default 128)")
    parser.add_argument("--images", type=at_least(1), default=40, help="images that are taken, at most (default 40)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a PNG file of one image")
    options = parser.parse_args(argv)
    run = load_run(options.workdir)
    compiler.keep_programs(run.config.compile.cache)
    set_key(run.config, "data.classes", run.classes)
    source = make_source(run.config, split_of_data(run.config, options.split))
    count = 1 if options.smallest else min(options.images, len(source))
    examples = [source[i] for i in range(count)]
    predictors = {name: make_predictor([run], **way) for name, way in ways(options.tile).items()}
    rows = measure(predictors, examples, len(run.classes))
    record = {
        "environment": environment(),
        "network": run.config.model.name,
        "arguments": run.config.model.args.to_dict(),
        "step": run.step,
        "images": count,
        "tile": options.tile,
        "rows": rows,
    }
    save(options.out, record, describe(record))
    if options.picture:
        picture(predictors, [example["image"] for example in examples], run.colors, options.picture)
    return 0


def measure(predictors: dict[str, Any], examples: list[dict[str, np.ndarray]], k: int) -> list[dict[str, Any]]:
    """Returns a row for each way: mIoU, the share of pixels that differ from whole images, and the time ratio."""
    confusion = {name: np.zeros((k, k), np.int64) for name in predictors}
    differing, seconds = dict.fromkeys(predictors, 0), {name: [] for name in predictors}
    for example in examples:
        image, label, whole = example["image"], example["label"], None
        for name, predictor in predictors.items():
            predictor(image)  # compiles for this size
            began = time.perf_counter()
            classes = predictor(image).classes
            seconds[name].append(time.perf_counter() - began)
            whole = classes if whole is None else whole
            differing[name] += int(np.sum(classes != whole))
            confusion[name] += np.asarray(metrics.confusion_matrix(classes, label, k))
    pixels = sum(example["label"].size for example in examples)
    rows = []
    for name in predictors:
        ratios = [own / whole for own, whole in zip(seconds[name], seconds["whole"])]
        rows.append(
            {
                "way": name,
                "mean_iou": metrics.scores(confusion[name]).mean_iou,
                "differing": differing[name] / pixels,
                "time": statistics.median(ratios),
            }
        )
        print(rows[-1], file=sys.stderr)
    return rows


def picture(predictors: dict[str, Any], images: list[np.ndarray], colors: Any, path: Path) -> None:
    """Draws the image of at most 600 pixels a side that tiles without overlap change most.

    From left to right: the image; whole; in tiles without overlap; with half of it. Where tiles change a class, in red.
    """
    names = ("whole", "tiles, overlap 0", "tiles, overlap .5")

    def segment(image: np.ndarray) -> list[np.ndarray]:
        return [predictors[name](image).classes for name in names]

    small = [image for image in images if max(image.shape) <= 600] or images[:1]
    found = [segment(image) for image in small]
    chosen = max(range(len(small)), key=lambda i: np.mean(found[i][0] != found[i][1]))
    image, (whole, apart, blended) = small[chosen], found[chosen]

    def marked(classes: np.ndarray) -> np.ndarray:
        drawn = np.asarray(pictures.overlay(image, classes, colors)).copy()
        drawn[classes != whole] = (255, 0, 0)
        return drawn

    row = [image[..., :3], np.asarray(pictures.overlay(image, whole, colors)), marked(apart), marked(blended)]
    gap = np.full((image.shape[0], 6, 3), 255, np.uint8)
    parts = [part for each in row for part in (each, gap)][:-1]
    pictures.save_image(np.concatenate(parts, axis=1), path, software=FIGURE)


def describe(record: dict[str, Any]) -> str:
    """The table of a record as Markdown."""
    rows = [
        [r["way"], f"{100 * r['mean_iou']:.2f}", f"{100 * r['differing']:.2f} %", f"{r['time']:.2f}"]
        for r in record["rows"]
    ]
    head = ["images seen", "mIoU", "pixels of another class than whole", "time, to that of whole"]
    note = (
        f"{record['network']} {record['arguments']} after {record['step']} steps, {record['images']} images, tiles of "
        f"{record['tile']}x{record['tile']}. Times are medians over the images."
    )
    return table(head, rows, record, note)


if __name__ == "__main__":
    sys.exit(main())
