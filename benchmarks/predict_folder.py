"""How quickly a folder is predicted: `python benchmarks/predict_folder.py --out NAME [--images N] [--size N]`.

`jaxseg predict` reads, segments and writes at the same time. Beside it, in the same rounds, the plain loop that does
one after another, and the network alone on images that are in memory; the rest of the time the device waits.
"""

import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from lib.timing import at_least, environment, make_parser, save, table
from PIL import Image

from jaxseg import pictures
from jaxseg.build import build_parts
from jaxseg.config import ConfigDict, default_config, update
from jaxseg.data.images import read_image
from jaxseg.inference.folder import FolderPrediction
from jaxseg.inference.outputs import Outputs
from jaxseg.inference.predictor import make_predictor
from jaxseg.inference.segment import launch
from jaxseg.run.load import Run

CLASSES = ("a", "b", "c", "d")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=at_least(2), default=48, help="JPEG files of the folder (default 48)")
    parser.add_argument("--size", type=at_least(8), default=512, help="their height and width (default 512)")
    parser.add_argument("--widths", type=at_least(1), nargs="+", default=[16, 32, 64], help="of the U-Net")
    parser.add_argument("--batch", type=at_least(1), default=1 if jax.default_backend() == "cpu" else 16)
    options = parser.parse_args(argv)
    if options.smallest:
        options.images, options.size, options.widths, options.repeats = 2, 16, [2, 4], 1
    run = untrained(options.widths, options.size)
    with tempfile.TemporaryDirectory() as name:
        paths = folder_of_noise(Path(name), options.images, options.size)
        out = Path(name) / "out"
        predictor = make_predictor([run], tiles="auto")
        outputs = Outputs(out, run.classes, run.colors)
        prediction = FolderPrediction(predictor, outputs, batch=options.batch)
        images = [read_image(path) for path in paths]

        def predict() -> None:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                prediction({path: path.stem for path in paths})

        def loop() -> None:
            for path in paths:
                image = read_image(path)
                result = predictor(image)
                labels = Image.fromarray(result.classes, "P")
                labels.putpalette(np.asarray(run.colors, np.uint8).tobytes())
                pictures.save_image(labels, out / f"{path.stem}.png")
                pictures.save_image(
                    np.asarray(pictures.overlay(image, result.classes, run.colors)), out / f"{path.stem}-overlay.png"
                )

        def network() -> None:
            for first in range(0, len(images), options.batch):
                launch(predictor.networks, predictor.variables, images[first : first + options.batch])()

        seconds = rounds({"predict": predict, "loop": loop, "network": network}, options.repeats)
    record = {
        "environment": environment(),
        "images": options.images,
        "size": options.size,
        "widths": options.widths,
        "batch": options.batch,
        "seconds": seconds,
    }
    save(options.out, record, describe(record))
    return 0


def rounds(cases: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Returns {name: seconds of each round}, after one round that compiles; the cases alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(repeats + 1):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def untrained(widths: list[int], size: int) -> Run:
    """Returns a run of a U-Net with random parameters, for images of `size`."""
    config: ConfigDict = default_config()
    update(config, model__name="unet", model__args={"widths": tuple(widths)}, data__size=(size, size))
    parts = build_parts(config, len(CLASSES))
    colors = pictures.default_colors(len(CLASSES))
    return Run(Path("untrained"), CLASSES, colors, None, parts, parts.init(jax.random.key(0)), "last")


def folder_of_noise(folder: Path, count: int, size: int) -> list[Path]:
    """Writes `count` JPEG files of smooth noise; returns their paths."""
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (max(1, size // 8), max(1, size // 8), 3), dtype=np.uint8))
        paths.append(folder / f"{number:04d}.jpg")
        small.resize((size, size), Image.Resampling.BILINEAR).save(paths[-1], quality=90)
    return paths


def describe(record: dict[str, Any]) -> str:
    """The table of a record as Markdown."""
    seconds, count = record["seconds"], record["images"]
    names = {
        "predict": "jaxseg predict",
        "loop": "a plain loop: read, segment, write",
        "network": "the network alone, images in memory",
    }
    ratios = {name: statistics.median(a / b for a, b in zip(seconds["loop"], seconds[name])) for name in names}
    waits = statistics.median(1 - a / b for a, b in zip(seconds["network"], seconds["predict"]))
    rows = []
    for name, label in names.items():
        median, best = (count / each for each in (statistics.median(seconds[name]), min(seconds[name])))
        rows.append([label, f"{median:.1f}", f"{best:.1f}", f"{ratios[name]:.2f}"])
    note = (
        f"U-Net of widths {record['widths']}, {count} JPEG files of {record['size']}x{record['size']}, batches of "
        f"{record['batch']}. The device waits for {100 * waits:.0f} % of the time of `jaxseg predict`."
    )
    return table(["", "images/s, median", "images/s, best", "speed, to that of the loop"], rows, record, note)


if __name__ == "__main__":
    sys.exit(main())
