"""Scores a split of the data with a trained network, each image at its native size.

    python -m jaxseg.evaluate --workdir DIR [--split val|test|train] [--which best|last] [--boundary [PIXELS]]
                              [--config.data.dir=PATH]

The keys of `jaxseg.config.FREE_KEYS` can be given anew, for data that has moved or another machine. Prints the table of
classes and the calibration error, with --boundary also a table of distances between boundaries, and leaves
evaluate-SPLIT.json and confusion-SPLIT.png in the workdir.
"""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from jaxseg import compiler, metrics, parallel, pictures
from jaxseg.config import ConfigDict, set_key, to_dict
from jaxseg.config.command import run_command
from jaxseg.data import make_eval_loader, make_source
from jaxseg.errors import ConfigError
from jaxseg.inference import surface
from jaxseg.inference.score import Result, score
from jaxseg.run.load import WHICH, Run, load_run
from jaxseg.run.provenance import package_versions
from jaxseg.run.workdir import CONFIG_FILE, INFO_FILE, write_json
from jaxseg.state import count_parameters

_OF_DIAGONAL = -1.0  # --boundary without a number


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxseg.evaluate",
        description="Score a split of the data with a trained network, each image at its native size.",
        epilog="--config.data.dir=PATH and the other keys that change nothing about what was trained can be given too.",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the workdir of the training run")
    parser.add_argument(
        "--split", default="val", help="train, val or test; also what else the data has, such as test[:100] of TFDS"
    )
    parser.add_argument("--which", choices=WHICH, default="best", help="checkpoint: best by validation mIoU, or last")
    parser.add_argument(
        "--boundary",
        metavar="PIXELS",
        nargs="?",
        type=_pixels,
        const=_OF_DIAGONAL,
        help="score boundaries too: F1, surface Dice, Hausdorff 95; PIXELS: how far apart they match, by default "
        f"{100 * surface.TOLERANCE:g} %% of the diagonal",
    )
    options, overrides = parser.parse_known_args(argv)
    return run_command(lambda: _evaluate(options, overrides))


def _evaluate(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    run = load_run(options.workdir, options.which, overrides)
    compiler.keep_programs(run.config.compile.cache)
    result = evaluate(run, options.split, boundary=options.boundary)
    files = write_report(run, options.split, result)
    scores = metrics.scores(result.confusion)
    print(metrics.table(scores, run.classes))
    if "boundary" in result.measures:
        print("\n" + surface.surface_table(surface.surface_scores(result.measures["boundary"]), run.classes))
    print(f"\n{run.config.model.name} after {run.step} steps ({run.which} checkpoint), split {options.split}:")
    print(f"{result.images} images, loss {result.loss:.4f}, mIoU {100 * scores.mean_iou:.2f} %")
    if result.confusion.sum():
        error = metrics.calibration(result.measures["calibration"]).error
        print(f"expected calibration error {100 * error:.2f} %")
    else:
        print("The split has no labelled pixel, so there is nothing to score.")
    for name, path in files.items():
        print(f"{name + ':':<12}{path}")
    return 0


def _pixels(text: str) -> float:
    """Reads a number of at least 0, or the default's own."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of pixels of at least 0, got {text}")
    return value


def evaluate(run: Run, split: str, *, boundary: float | None = None) -> Result:
    """Scores one split with the evaluation that training uses.

    The result's measures are "calibration", see `metrics.calibration_stats`, and "boundary" if it was asked for, see
    `inference.surface.surface_sums`.

    Args:
        run: from `load_run`.
        split: "train", "val" or "test"; for TFDS data also a slice, for a folder any that has images and masks.
        boundary: scores boundaries too, which match within so many pixels; -1: within a share of the diagonal.

    Raises:
        DataError: if the data is missing or empty, has no such split, or its classes are not those of the run.
    """
    config = run.config.copy_and_resolve_references()
    set_key(config, "data.classes", run.classes)  # the data of today must have the classes of the training
    source = make_source(config, split_of_data(run.config, split))
    devices = jax.device_count()
    strategy = parallel.make_strategy("jit", {}, options=config.compile.options)
    measures = {"calibration": metrics.calibration_stats}
    eval_step = strategy.compile_eval(run.parts.eval_step(measures, maps=boundary is not None))
    boundaries = surface.SurfaceTotal(run.num_classes, None if boundary == _OF_DIAGONAL else boundary)
    # A batch that the devices of this machine can share: the padding examples count nowhere.
    batch_size = -(-config.eval.batch_size // devices) * devices
    loader = make_eval_loader(
        source, batch_size=batch_size, size=config.data.size, fit=config.data.fit, multiple=config.eval.multiple
    )
    state = strategy.put_state(run.state)
    with tqdm(total=len(source), desc=f"evaluate {split}", unit="image", disable=None) as bar:
        result = score(
            eval_step, state, loader, loss=run.parts.loss, strategy=strategy, progress=bar.update, see=boundaries.add
        )
    return result if boundary is None else result._replace(measures={**result.measures, "boundary": boundaries.sums})


def write_report(run: Run, split: str, result: Result) -> dict[str, Path]:
    """Writes evaluate-SPLIT.json and confusion-SPLIT.png into the workdir; returns {what: path}.

    Raises:
        ConfigError: if the workdir cannot be written.
    """
    scores = scores_file(run.workdir, split)
    files = {"scores": scores, "confusion": scores.with_name(f"confusion{scores.stem.removeprefix('evaluate')}.png")}
    if jax.process_index() == 0:
        try:
            write_json(files["scores"], report(run, split, result))
            pictures.confusion_picture(result.confusion, run.classes, files["confusion"])
        except OSError as error:
            raise ConfigError(f"The scores cannot be written to {run.workdir}: {error.strerror or error}.") from error
    return files


def scores_file(workdir: Path, split: str) -> Path:
    """Returns the path of evaluate-SPLIT.json, in letters that any file system takes."""
    name = re.sub(r"[^\w.-]+", "_", split)
    return workdir / f"evaluate-{name}.json"


def report(run: Run, split: str, result: Result) -> dict[str, Any]:
    """Returns what evaluate-SPLIT.json holds; shares are of 1, null stands for what no pixel decides."""
    return {
        "split": split,
        "step": run.step,
        "which": run.which,
        "images": result.images,
        "parameters": count_parameters(run.state.params),
        "loss": result.loss if math.isfinite(result.loss) else None,
        **metrics.scores_dict(metrics.scores(result.confusion), run.classes),
        "calibration": metrics.calibration_dict(metrics.calibration(result.measures["calibration"])),
        **({"boundary": _boundary(run, result)} if "boundary" in result.measures else {}),
        "confusion": result.confusion.tolist(),
        "config": to_dict(run.config),
        "config_source": [CONFIG_FILE, INFO_FILE],
        "device": {"platform": jax.default_backend(), "count": jax.device_count()},
        "versions": package_versions(),
    }


def _boundary(run: Run, result: Result) -> dict[str, Any]:
    return surface.surface_dict(surface.surface_scores(result.measures["boundary"]), run.classes)


def split_of_data(config: ConfigDict, split: str) -> str:
    """Returns what the data set calls a split: "train" and "val" are those that a run of `config` is trained with."""
    known = {"train": config.data.train_split, "val": config.data.val_split}
    return known[split] if split in known else split


if __name__ == "__main__":
    sys.exit(main())
