"""Scores the objects of a trained network: `python benchmarks/objects.py --workdir DIR --data-dir PATH --out NAME`.

PATH is a folder of the layout SPLIT/images and SPLIT/instances, whose 16-bit pictures hold 0 for the background and one
number for each object. Each image is segmented at its own size, and its regions are found in several ways: the
connected components, the same without specks and holes, and these split where objects touch. Beside them stand the
connected components of the true classes, whole and split: what a network without a wrong pixel would reach.

The depth of a split is chosen on images of the training split (`--tune`), never on those that are scored.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lib.commands import command_of
from lib.timing import at_least, environment, save, table
from PIL import Image
from tqdm import tqdm

import jaxseg
from jaxseg import pictures
from jaxseg.config.command import run_command
from jaxseg.data.listing import list_images
from jaxseg.errors import DataError
from jaxseg.inference.objects import ObjectTotal, object_dict
from jaxseg.inference.regions import choose_classes, find_regions

SHOWN = 256  # pixels a side of an image in the picture
DEPTHS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
COLUMNS = ("regions", "objects", "F1 at .5", "F1 at .75", "mean AP", "mean AP by image", "PQ at .5", "CPU ms an image")
_SPLIT = "components, cleaned and split"


class Example(NamedTuple):
    """An image with the classes that the network gives it, and its true objects.

    Attributes:
        name: of the file.
        image: u8[h,w,3].
        classes: u8[h,w].
        instances: i32[h,w], 0 where there is no object.
    """

    name: str
    image: np.ndarray
    classes: np.ndarray
    instances: np.ndarray


Way = Callable[[Example], np.ndarray]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the workdir of a trained network")
    parser.add_argument("--data-dir", required=True, type=Path, metavar="PATH", help="the folder of the splits")
    parser.add_argument("--split", default="val", help="the split that is scored (default val)")
    parser.add_argument("--min-area", type=at_least(0), default=20, metavar="N", help="pixels of a region (default 20)")
    parser.add_argument(
        "--tune", type=at_least(0), default=40, metavar="N", help="training images that choose the depth (default 40)"
    )
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="images scored, evenly spaced (default: all)")
    parser.add_argument("--picture", type=at_least(0), default=4, metavar="N", help="images in the picture (default 4)")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json, NAME.md and NAME.png are written")
    options = parser.parse_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _compare(options, words))


def _compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    run = jaxseg.load(options.workdir)
    only = choose_classes(run.classes)
    depth, tuned = 1.0, {}
    if options.tune:
        tuned = {str(d): 0.0 for d in DEPTHS}
        totals = {d: ObjectTotal() for d in DEPTHS}
        for example in read(run, options.data_dir / "train", options.tune):
            for d, total in totals.items():
                total.add(example.instances, _find(example.classes, only, options.min_area, d))
        tuned = {str(d): total.scores().mean_ap for d, total in totals.items()}
        depth = max(DEPTHS, key=lambda d: tuned[str(d)])
    ways = ways_of(only, options.min_area, depth)
    totals = {name: ObjectTotal() for name in ways}
    seconds, pixels, shown = dict.fromkeys(ways, 0.0), np.zeros(2, np.int64), []
    for example in read(run, options.data_dir / options.split, options.limit):
        for name, way in ways.items():
            begin = time.process_time()
            found = way(example)
            seconds[name] += time.process_time() - begin
            totals[name].add(example.instances, found)
        truth, guess = example.instances > 0, np.isin(example.classes, only)
        pixels += ((truth & guess).sum(), (truth | guess).sum())
        shown.append((example, _find(example.classes, only, options.min_area, depth)))
    images = len(shown)
    record = {
        "command": command_of(__file__, words),
        "environment": environment(),
        "network": {"name": run.config.model.name, "steps": run.step, "classes": list(run.classes)},
        "split": options.split,
        "images": images,
        "min_area": options.min_area,
        "depth": depth,
        "mean_ap_by_depth_on_training_images": tuned,
        "pixel_iou": float(pixels[0] / pixels[1]) if pixels[1] else None,
        "ways": {
            name: object_dict(total.scores()) | {"cpu_seconds": seconds[name] / images}
            for name, total in totals.items()
        },
    }
    pictured = min(options.picture, images)
    chosen = [shown[i * images // pictured] for i in range(pictured)]
    save(options.out, record, describe(record), (lambda figure: draw(figure, chosen, run.colors)) if chosen else None)
    return 0


def ways_of(only: Sequence[int], min_area: int, depth: float) -> dict[str, Way]:
    """Returns {name: function from an example to the numbers of its objects i32[h,w]}."""

    def plain(example: Example) -> np.ndarray:
        return find_regions(example.classes, only=only).labels

    def of_truth(example: Example, split: bool | float) -> np.ndarray:
        return find_regions((example.instances > 0).astype(np.uint8), only=(1,), split=split).labels

    return {
        "components": plain,
        "components, cleaned": lambda example: _find(example.classes, only, min_area, False),
        _SPLIT: lambda example: _find(example.classes, only, min_area, depth),
        "components of the truth": lambda example: of_truth(example, False),
        "components of the truth, split": lambda example: of_truth(example, depth),
    }


def _find(classes: np.ndarray, only: Sequence[int], min_area: int, split: bool | float) -> np.ndarray:
    return find_regions(classes, only=only, min_area=min_area, fill=True, split=split).labels


def read(run: jaxseg.TrainedRun, folder: Path, count: int | None = None) -> Any:
    """Yields an `Example` for each image of a split, or for `count` of them, evenly spaced.

    Raises:
        DataError: if there are no images, or one has no picture of its instances.
    """
    paths = sorted(list_images(folder / "images", recursive=False)[0])
    if not paths:
        raise DataError(f"There are no images in {folder / 'images'}.")
    total = len(paths)
    count = total if count is None else min(count, total)
    for path in tqdm([paths[i * total // count] for i in range(count)], desc=folder.name, unit="image", disable=None):
        file = folder / "instances" / f"{path.stem}.png"
        try:
            instances = np.array(Image.open(file)).astype(np.int32)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{file}, the objects of {path.name}, cannot be read: {reason}.") from error
        image = np.array(Image.open(path).convert("RGB"))
        classes = run.predict(path).classes
        if instances.shape != classes.shape:
            raise DataError(f"{file} is {list(instances.shape)}, but {path.name} is {list(classes.shape)}.")
        yield Example(path.name, image, classes, instances)


def describe(record: dict[str, Any]) -> str:
    """Returns the table, with what was done above it."""
    rows = []
    for name, row in record["ways"].items():
        half, three_quarters = (row["thresholds"].index(t) for t in (0.5, 0.75))
        shares = [row["f1"][half], row["f1"][three_quarters], row["mean_ap"], row["mean_ap_by_image"]]
        shares.append(row["panoptic_quality"][half])
        shown = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
        rows.append([name, str(int(row["predicted"])), *shown, f"{1000 * row['cpu_seconds']:.0f}"])
    first = next(iter(record["ways"].values()))
    network = record["network"]
    note = (
        f"`{network['name']}` after {network['steps']} steps, split {record['split']}: {record['images']} images with "
        f"{int(first['truth'])} objects; IoU of their pixels {100 * record['pixel_iou']:.1f}. Cleaned: holes filled, "
        f"components below {record['min_area']} pixels removed. Split: at waists deeper than {record['depth']:g} pixels"
    )
    tuned = record["mean_ap_by_depth_on_training_images"]
    if tuned:
        values = ", ".join(f"{100 * ap:.1f} at {d}" for d, ap in tuned.items())
        note += f", the depth with the best mean AP on images of the training split ({values})"
    return table(COLUMNS, rows, record, f"{note}. Shares in percent.") + f"\n    {record['command']}\n"


def draw(figure: Any, shown: Sequence[tuple[Example, np.ndarray]], colors: pictures.Colors) -> None:
    """Draws a row an image, its first `SHOWN` pixels: the image, its classes, the regions and the true objects."""
    figure.set_size_inches(9.6, 2.5 * len(shown) + 0.3)
    axes = figure.subplots(len(shown), 4, squeeze=False)
    for row, (example, regions) in zip(axes, shown):
        side = min(*example.classes.shape, SHOWN)
        part = (slice(side), slice(side))
        scores = ObjectTotal()
        scores.add(example.instances[part], regions[part])
        found = scores.scores()
        bright = np.clip(example.image[part] * (255 / max(np.percentile(example.image[part], 99.5), 1)), 0, 255)
        image = bright.astype(np.uint8)
        cells = (
            image,
            pictures.colorize(example.classes[part], colors),
            pictures.outlines(image, regions[part]),
            pictures.outlines(image, example.instances[part]),
        )
        for axis, cell in zip(row, cells):
            axis.imshow(cell, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color("0.75")
        row[2].set_title(f"{found.predicted} regions, F1 {100 * found.at(0.5):.0f}", fontsize=8)
        row[3].set_title(f"{found.truth} objects", fontsize=8)
    for axis, title in zip(axes[0], ("image", "classes", "regions", "truth")):
        axis.set_title("\n".join(filter(None, (title, axis.get_title()))), fontsize=9)


if __name__ == "__main__":
    sys.exit(main())
