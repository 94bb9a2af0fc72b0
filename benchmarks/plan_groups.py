"""Scores a run by the kind of image: `python benchmarks/plan_groups.py --workdir DIR --class nucleus --out NAME`.

Each image of the split is segmented as the run is evaluated, in the tiles of its configuration. The confusion matrices
are added up by the size of images and by their stain: fluorescence (grey on dark), grey on bright, or coloured.
"""

import sys
from typing import Any

import numpy as np
from lib.timing import environment, make_parser, save, table
from tqdm import tqdm

from jaxseg import compiler
from jaxseg.config import set_key
from jaxseg.config.command import run_command
from jaxseg.data import make_source
from jaxseg.data.sources import split_of_data
from jaxseg.inference.predictor import make_predictor
from jaxseg.metrics import confusion_matrix, scores
from jaxseg.plan.facts import facts_of
from jaxseg.run.load import load_run

COLUMNS = ("by", "group", "images", "IoU of {}", "mIoU", "pixel accuracy")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the workdir of a trained network")
    parser.add_argument("--split", default="val", help="(default val)")
    parser.add_argument("--which", choices=("best", "last"), default="last", help="the checkpoint (default last)")
    parser.add_argument("--class", dest="name", required=True, metavar="NAME", help="the class whose IoU is shown")
    options = parser.parse_args(argv)
    return run_command(lambda: _score(options))


def _score(options: Any) -> int:
    run = load_run(options.workdir, options.which)
    compiler.keep_programs(run.config.compile.cache)
    set_key(run.config, "data.classes", run.classes)
    source = make_source(run.config, split_of_data(run.config, options.split))
    predictor = make_predictor([run], tiles=run.config.eval.tiles or None, overlap=run.config.eval.overlap)
    classes = len(run.classes)
    sums: dict[tuple[str, str], np.ndarray] = {}
    images: dict[tuple[str, str], int] = {}
    for index in tqdm(range(2 if options.smallest else len(source))):
        image, label = source[index]["image"], source[index]["label"]
        matrix = np.asarray(confusion_matrix(predictor(image).classes, label, classes), np.int64)
        size = "x".join(map(str, label.shape))
        for key in (("", "all"), ("size", size), ("stain", stain(image, label))):
            sums[key] = sums[key] + matrix if key in sums else matrix
            images[key] = images[key] + 1 if key in images else 1
    shown = run.classes.index(options.name)
    rows = []
    for key in sorted(sums):
        found = scores(sums[key])
        numbers = (found.iou[shown], found.mean_iou, found.pixel_accuracy)
        rows.append([*key, images[key], *(round(float(value), 4) for value in numbers)])
    columns = [column.format(options.name) for column in COLUMNS]
    record = {"environment": environment(), "split": options.split, "step": run.step, "columns": columns, "rows": rows}
    save(options.out, record, to_table(record))
    return 0


def to_table(record: dict[str, Any]) -> str:
    """Returns the Markdown table of a record."""
    return table(record["columns"], [list(map(str, row)) for row in record["rows"]], record)


def stain(image: np.ndarray, label: np.ndarray) -> str:
    """Returns the kind of an image by its colours and its brightness."""
    facts = facts_of(image, label)
    if facts.coloured:
        return "coloured"
    return "grey on bright" if facts.mean.mean() > 0.5 else "fluorescence"


if __name__ == "__main__":
    sys.exit(main())
