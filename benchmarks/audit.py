"""Does an audit find wrong labels? `python benchmarks/audit.py --seeds 0 1 2 --work DIR --out NAME`.

Errors are planted in a share of the training masks (`lib/planting.py`), small U-Nets are trained on the result, each
without one fold, and `jaxseg.audit` ranks the training images. The table has, for each score, the share of planted
errors among the first images of the ranking, as many as were planted; the area under the ROC curve; and the average
precision, the area under precision by recall. Beside them stand cleanlab's two scores of images (`pip install
cleanlab`), from the same probabilities.

`--data-dir PATH` takes a folder with splits in place of the shapes; its images are cut to a window in their centre,
since cleanlab needs images of one size.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lib.commands import command_of
from lib.planting import plant_share, write_folder
from lib.timing import at_least, environment, rows_below, save, table
from lib.window import Windows
from scipy.stats import rankdata

import jaxseg
from jaxseg.audit import Audit, ImageRow, audit
from jaxseg.config.command import run_command
from jaxseg.data.base import Source
from jaxseg.data.folder import FolderSource
from jaxseg.data.shapes import ShapesSource
from jaxseg.run.load import load_run
from jaxseg.types import IGNORE

SCORES = {
    "jaxseg: score": "score",
    "jaxseg: relabelling alone": "relabelling",
    "jaxseg: shift alone": "shift",
    "confident learning: share of pixels": "doubted",
    "gradient of the last layer": "gradient",
    "margin": "margin",
    "softmin": "softmin",
    "plain loss": "loss",
}
MEASURES = ("precision", "auroc", "average_precision")
COLUMNS = ("score", "precision in the first images", "AUROC", "average precision")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data-dir", default="", metavar="PATH", help="a folder with splits (default: shapes)")
    parser.add_argument("--images", type=at_least(10), default=2000, metavar="N", help="training images (default 2000)")
    parser.add_argument("--side", type=at_least(8), default=32, metavar="N", help="pixels of an image (default 32)")
    parser.add_argument("--share", type=float, default=0.05, help="share of masks with an error (default .05)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="of errors and runs (default 0)")
    parser.add_argument("--folds", type=at_least(2), default=3, metavar="N", help="folds (default 3)")
    parser.add_argument("--work", required=True, type=Path, metavar="DIR", help="where data and runs are kept")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json and NAME.md are written")
    options, overrides = parser.parse_known_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _measure(options, overrides, words))


def _measure(options: argparse.Namespace, overrides: Sequence[str], words: Sequence[str]) -> int:
    seeds = [_of_seed(options, seed, overrides) for seed in options.seeds]
    record = {
        "command": command_of(__file__, words),
        "environment": environment(),
        "data": "folder" if options.data_dir else "shapes",
        "images": seeds[0]["images"],
        "planted": seeds[0]["planted"],
        "folds": options.folds,
        "seeds": dict(zip(map(str, options.seeds), seeds)),
    }
    save(options.out, record, describe(record))
    return 0


def _of_seed(options: argparse.Namespace, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Plants errors, trains the folds and returns the measures of every score."""
    folder = options.work / f"seed{seed}"
    train, val = _sources(options, seed)
    planted = plant_share(train, options.share, seed)
    record = write_folder(train, val, planted, folder / "data")
    changes = {
        "data.dir": str(folder / "data"),
        "seed": seed,
        **dict(word.removeprefix("--config.").split("=", 1) for word in overrides),
    }
    runs = []
    for fold in range(1, options.folds + 1):
        workdir = folder / f"fold{fold}"
        jaxseg.train("experiments/audit.py:folder", workdir, **changes, **{"data.fold": f"{fold}/{options.folds}"})
        runs.append(load_run(workdir, "last"))
    begin = time.process_time()
    found = audit(runs)
    rows = sorted(found.images, key=lambda row: row.index)  # equal scores stay in an order that says nothing
    scores = {name: [getattr(row.scores, field) for row in rows] for name, field in SCORES.items()}
    seconds = time.process_time() - begin
    scores |= cleanlab_scores(found, rows)
    names = [row.name for row in rows]
    kinds = [record[name]["kind"] if name in record else "" for name in names]
    return {
        "images": len(names),
        "planted": len(record),
        "mean_iou": [float(run.evaluate("val").mean_iou) for run in map(jaxseg.load, (r.workdir for r in runs))],
        "cpu_seconds_of_audit": seconds,
        "scores": {name: measures(np.asarray(values), kinds) for name, values in scores.items()},
        "regions": regions_found(found, train, planted),
    }


def _sources(options: argparse.Namespace, seed: int) -> tuple[Source, Source]:
    side = (options.side, options.side)
    if not options.data_dir:
        return ShapesSource("train", options.images, side, seed=seed), ShapesSource("val", 256, side, seed=seed)
    train, val = (Windows.of(FolderSource(options.data_dir, split), side) for split in ("train", "val"))
    return train.first(options.images), val


def cleanlab_scores(found: Audit, rows: Sequence[ImageRow]) -> dict[str, list[float]]:
    """Returns the scores of cleanlab, larger for wrong labels; {} where it is not installed."""
    try:
        from cleanlab.segmentation.rank import get_label_quality_scores
    except ImportError:
        print("cleanlab is not installed (pip install cleanlab); its rows are left out", file=sys.stderr)
        return {}
    labels, shares = [], []
    for row in rows:
        example = found.source[row.index]
        probabilities = found.judges.probabilities(example["image"], found.judges.of(row.name))
        shares.append(probabilities.transpose(2, 0, 1))
        labels.append(np.where(example["label"] == IGNORE, probabilities.argmax(-1), example["label"]).astype(int))
    given, probabilities = np.stack(labels), np.stack(shares)
    results = {}
    for name, method in (("softmin", "softmin"), ("pixels with issues", "num_pixel_issues")):
        quality, _ = get_label_quality_scores(given, probabilities, method=method, verbose=False, n_jobs=1)
        results[f"cleanlab: {name}"] = (-quality).tolist()
    return results


def measures(scores: np.ndarray, kinds: Sequence[str]) -> dict[str, Any]:
    """Returns the measures of a ranking, of images whose planted error is `kinds` ("" for none).

    precision: of the first n, where n were planted. auroc: equal scores count half. average_precision: the mean of the
    precision at each planted error. found: by kind, the share of them among the first n.
    """
    wrong = np.array([bool(kind) for kind in kinds])
    count = int(wrong.sum())
    order = np.argsort(-scores, kind="stable")
    first, hits = set(order[:count].tolist()), wrong[order]
    at_hits = (np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits]
    pairs = rankdata(scores)[wrong].sum() - count * (count + 1) / 2
    return {
        "precision": float(hits[:count].mean()),
        "auroc": float(pairs / (count * (len(wrong) - count))),
        "average_precision": float(at_hits.mean()),
        "found": {
            kind: statistics.fmean(i in first for i, each in enumerate(kinds) if each == kind)
            for kind in sorted(set(kinds) - {""})
        },
    }


def regions_found(found: Audit, train: Source, planted: Mapping[int, Any]) -> dict[str, float]:
    """Returns the share of the first n regions of which more than half is planted, n images with an error."""
    places = {Path(train.name(i)).name: i for i in planted}
    first = found.regions[: len(planted)]
    right = [r for r in first if r.name in places and _covered(r.doubt, planted[places[r.name]].changed) > 0.5]
    return {"regions": len(first), "precision": len(right) / max(1, len(first)), "errors": len({r.name for r in right})}


def _covered(doubt: Any, changed: np.ndarray) -> float:
    return float(changed[doubt.top : doubt.bottom, doubt.left : doubt.right][doubt.mask].mean())


def describe(record: dict[str, Any]) -> str:
    """Returns the tables."""
    seeds = list(record["seeds"].values())
    names = [name for name in seeds[0]["scores"] if all(name in seed["scores"] for seed in seeds)]
    rows = [
        [
            name,
            *(_spread([seed["scores"][name][m] for seed in seeds]) for m in MEASURES),
        ]
        for name in names
    ]
    kinds = list(seeds[0]["scores"][names[0]]["found"])
    by_kind = [
        [name, *(_spread([seed["scores"][name]["found"][kind] for seed in seeds]) for kind in kinds)] for name in names
    ]
    ious = [100 * value for seed in seeds for value in seed["mean_iou"]]
    note = (
        f"{record['data']}: {record['images']} training images, {record['planted']} with a planted error, "
        f"{record['folds']} folds, seeds {', '.join(record['seeds'])}: mean ± standard deviation, in percent. The "
        f"networks have a validation mIoU of {min(ious):.1f} to {max(ious):.1f}. Of the first {record['planted']} "
        f"regions of the audit {_spread([seed['regions']['precision'] for seed in seeds])} % lie in a planted error."
    )
    below = rows_below(("score", *kinds), by_kind, "Found among the first images, by the kind of error:")
    return table(COLUMNS, rows, record, note) + f"\n{below}\n    {record['command']}\n"


def _spread(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.fmean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


if __name__ == "__main__":
    sys.exit(main())
