"""What helps rare classes: weights, an adjustment of the logits, class-balanced crops, or sampling by class?

The variants are trained as a sweep, and the second command collects the IoU of each class:

    python -m jaxseg.sweep --config benchmarks/lib/imbalance.py:camvid --config.data.dir=DIR --workdir runs/imbalance
    python benchmarks/class_imbalance.py --sweep runs/imbalance --out NAME

`lib/imbalance.py` has the variants.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lib.imbalance import sweep
from lib.timing import environment, save, table

from jaxseg.config.command import run_command
from jaxseg.errors import ConfigError

RARE = ("pole", "sign_symbol", "fence", "pedestrian", "bicyclist")  # below 2 % of CamVid's training pixels


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, required=True, metavar="DIR", help="the workdir of the sweep")
    parser.add_argument("--seeds", type=int, metavar="N", help="use the first N seeds (default: those of all variants)")
    parser.add_argument("--rare", nargs="+", default=list(RARE), metavar="CLASS", help="the rare classes")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json and NAME.md are written")
    options = parser.parse_args(argv)

    def body() -> int:
        record = collect(options.sweep, options.rare, options.seeds)
        save(options.out, record, to_table(record))
        return 0

    return run_command(body)


def collect(workdir: Path, rare: Sequence[str], most: int | None = None) -> dict[str, Any]:
    """Returns {variant: scores of each class over the seeds} of the seeds that every variant has."""
    scores = {}
    for variant in sweep().variants:
        files = {path.parent.name: path for path in (workdir / variant).glob("seed-*/sweep-val.json")}
        scores[variant] = {seed: json.loads(path.read_text(encoding="utf-8")) for seed, path in files.items()}
    common = set.intersection(*(set(runs) for runs in scores.values()))
    seeds = sorted(common, key=lambda name: int(name.partition("-")[2]))[:most]
    if not seeds:
        raise ConfigError(f"{workdir} has no seed that all variants {', '.join(scores)} have ended.")
    rows = {}
    for variant, runs in scores.items():
        each = [runs[seed] for seed in seeds]
        iou = np.array([[np.nan if c["iou"] is None else c["iou"] for c in run["classes"]] for run in each])
        recall = np.array([[np.nan if c["recall"] is None else c["recall"] for c in run["classes"]] for run in each])
        rows[variant] = {
            "mean_iou": [run["mean_iou"] for run in each],
            "mean_accuracy": [run["mean_accuracy"] for run in each],
            "pixel_accuracy": [run["pixel_accuracy"] for run in each],
            "iou": iou.tolist(),
            "recall": recall.tolist(),
        }
    one = scores["none"][seeds[0]]
    support = np.array([c["support"] for c in one["classes"]], np.float64)
    config = one["config"]
    return {
        "classes": [c["name"] for c in one["classes"]],
        "rare": list(rare),
        "share": (support / support.sum()).tolist(),
        "seeds": seeds,
        "steps": one["step"],
        "images": one["images"],
        "parameters": one["parameters"],
        "source": config["data"]["source"],
        "variants": {name: dict(changes) for name, changes in sweep().variants.items()},
        "rows": rows,
        "environment": environment(),
    }


def to_table(record: dict[str, Any]) -> str:
    """Returns the Markdown table: means over the seeds, in per cent, with the standard deviation of the mIoU."""
    rare = [record["classes"].index(name) for name in record["rare"]]
    names = [record["classes"][i] for i in rare]
    rows = []
    for variant, row in record["rows"].items():
        spread = f" ± {100 * statistics.stdev(row['mean_iou']):.1f}" if len(record["seeds"]) > 1 else ""
        iou = 100 * np.array(row["iou"])[:, rare]
        recall = 100 * np.array(row["recall"])[:, rare]
        rows.append(
            [
                variant,
                f"{100 * statistics.mean(row['mean_iou']):.1f}{spread}",
                f"{np.nanmean(iou):.1f}",
                f"{np.nanmean(recall):.1f}",
                *(f"{value:.1f}" for value in iou.mean(0)),
                f"{100 * statistics.mean(row['mean_accuracy']):.1f}",
                f"{100 * statistics.mean(row['pixel_accuracy']):.1f}",
            ]
        )
    shares = ", ".join(f"{record['classes'][i]} {100 * record['share'][i]:.2f} %" for i in rare)
    note = (
        f"Validation, {record['images']} images, means over {len(record['seeds'])} seeds after {record['steps']} steps "
        f"({record['parameters']:,} parameters). Columns of classes are IoU; shares of the pixels: {shares}."
    )
    columns = ["variant", "mIoU", "rare: IoU", "rare: recall", *names, "mean recall", "pixel accuracy"]
    return table(columns, rows, record, note)


if __name__ == "__main__":
    sys.exit(main())
