"""What do images without labels add to a few with labels? `python benchmarks/semi.py --out NAME`; --dir gives a folder.

With each seed a U-Net first trains on the images with labels alone. From its weights it goes on in several ways, for as
many steps each: on these images again ("labels"), or with the other images, whose labels are hidden, by mean teacher,
by FixMatch and by UniMatch, or with the labels of all, which is what there is to gain. The seed chooses the images that
keep their labels, too. The runs are kept in --work, and written as they end, so that a call that was cut off resumes.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.timing import at_least, environment, make_parser, result_file, save, table

from jaxseg import compiler, metrics
from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict, update
from jaxseg.config.command import run_command
from jaxseg.config.recipes import ablation_recipe
from jaxseg.errors import nearest
from jaxseg.sweep.statistics import paired_difference, spread
from jaxseg.train import train

BATCH = 16
TAUGHT = {"data__labelled_rows": BATCH // 2, "semi__ramp_up": 1}
FIXMATCH = {**TAUGHT, "semi__method": "fixmatch", "semi__weight": 3.0, "semi__threshold": 0.95}
METHODS: dict[str, dict[str, Any]] = {
    "labels": {},
    "mean_teacher": {**TAUGHT, "semi__method": "mean_teacher", "semi__weight": 30.0},
    "fixmatch": FIXMATCH,
    "fixmatch_mild": {**FIXMATCH, "semi__strength": 0.3},
    "unimatch": {**FIXMATCH, "semi__features": 0.5},
    "all_labels": {"data__labelled": ""},
}
FIRST, BASELINE = "first", "labels"
COLUMNS = ("training", "seeds", "mIoU", "difference to labels", "seed by seed")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/semi"), metavar="DIR", help="the runs (runs/semi)")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="a folder of images and masks in place of the shapes")
    parser.add_argument("--labelled", default="1/64", metavar="SHARE", help="images that keep labels (default 1/64)")
    parser.add_argument("--images", type=at_least(8), default=4096, metavar="N", help="shapes (default 4096)")
    parser.add_argument("--methods", default="labels;fixmatch", metavar="A;B", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=at_least(1), default=5, metavar="N", help="seeds 0 to N - 1 (default 5)")
    parser.add_argument("--first-steps", type=at_least(2), default=1000, metavar="N", help="with labels (default 1000)")
    parser.add_argument("--steps", type=at_least(2), default=1200, metavar="N", help="from there on (default 1200)")
    options = parser.parse_args(argv)
    return run_command(lambda: _measure(parser, options, list(sys.argv[1:] if argv is None else argv)))


def _measure(parser: argparse.ArgumentParser, options: argparse.Namespace, words: Sequence[str]) -> int:
    names = [name.strip() for name in options.methods.split(";") if name.strip()]
    for name in names:
        if name not in METHODS:
            parser.error(f"there is no method {name!r}.{nearest(name, METHODS)}")
    if options.smallest:
        names, options.seeds, options.images, options.first_steps, options.steps = names[:1], 1, 128, 2, 2
    else:
        compiler.keep_programs()  # the seeds share their programs
    record = _start(options, words)
    for seed in range(options.seeds):
        for name in (FIRST, *names):
            if any(run["training"] == name and run["seed"] == seed for run in record["runs"]):
                continue
            place = expanded(options.work) / f"{name}-{seed}"
            result = train(_config(options, name, seed), place, "the same command")
            scores = metrics.scores(result.confusion)
            run = {"training": name, "seed": seed, "mean_iou": scores.mean_iou, "iou": [float(x) for x in scores.iou]}
            record["runs"].append(run)
            print(run, file=sys.stderr, flush=True)
            save(options.out, record, _table(record), quiet=True)
    save(options.out, record, _table(record))
    return 0


def _config(options: argparse.Namespace, name: str, seed: int) -> ConfigDict:
    """Returns the configuration of a run: the first with labels, or what goes on from its weights."""
    first = name == FIRST
    steps = options.first_steps if first else options.steps
    config = ablation_recipe(None, "unet", {"widths": (8, 16, 32, 64), "dropout": 0.0})
    update(config, seed=seed, steps=steps, eval__every=steps, checkpoint__every=steps, batch_size=BATCH)
    update(config, data__labelled=options.labelled, ema__decay=0.99, augment__zoom=(0.8, 1.25))
    if options.dir is None:
        update(config, data__shapes_train=options.images)
    else:
        update(config, data__source="folder", data__dir=str(options.dir), data__size=(64, 64))
        update(
            config, augment__crop=(32, 32), augment__flip_vertical=0.5, augment__brightness=0.2, augment__contrast=0.2
        )
    if not first:
        weights = str(expanded(options.work) / f"{FIRST}-{seed}")
        update(config, model__weights=weights, optimizer__learning_rate=5e-3, **METHODS[name])
    if options.smallest:
        update(config, schedule__warmup=1, data__shapes_val=8, data__size=(16, 16))
        update(config, model__name="cnn", model__args={"widths": (4, 4)})
    return config


def _start(options: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Returns the record of a former call with the same settings, or an empty one."""
    settings = {name: getattr(options, name) for name in ("labelled", "images", "first_steps", "steps")}
    settings["folder"] = "" if options.dir is None else options.dir.name
    record = {
        "command": f"python benchmarks/semi.py {shlex.join(words)}",
        "environment": environment(),
        "settings": settings,
        "runs": [],
    }
    file = None if options.out is None else result_file(options.out, ".json")
    if file is not None and file.is_file():
        former = json.loads(file.read_text(encoding="utf-8"))
        if former["settings"] == settings:
            record["runs"] = former["runs"]
    return record


def _table(record: Mapping[str, Any]) -> str:
    rows = []
    by_seed = {
        name: {run["seed"]: run["mean_iou"] for run in record["runs"] if run["training"] == name}
        for name in (FIRST, *METHODS)
    }
    for name, scores in by_seed.items():
        if not scores:
            continue
        found, difference = spread(list(scores.values())), ""
        if name not in (FIRST, BASELINE) and len(scores.keys() & by_seed[BASELINE].keys()) > 1:
            against = paired_difference(scores, by_seed[BASELINE])
            difference = f"{100 * against.mean:+.2f} [{100 * against.low:+.2f}, {100 * against.high:+.2f}]"
        mean = f"{100 * found.mean:.2f} ± {100 * found.deviation:.2f}" if found.n > 1 else f"{100 * found.mean:.2f}"
        each = ", ".join(f"{100 * scores[seed]:.1f}" for seed in sorted(scores))
        rows.append((name, len(scores), mean, difference, each))
    settings = record["settings"]
    shapes, folder = f"{settings['images']} shapes of 32x32 pixels", f"the folder `{settings['folder']}`"
    data = f"crops of 32x32 pixels of {folder} at 64x64" if settings["folder"] else shapes
    note = (
        f"U-Net of widths 8, 16, 32 and 64 on {data}; {settings['labelled']} of the images keep their labels: "
        f'{settings["first_steps"]} steps of {BATCH} images with labels ("first"), then {settings["steps"]} from these '
        "weights by each way. Validation mIoU in per cent, mean ± standard deviation over seeds, difference paired by "
        "seed with its 95 % t interval."
    )
    return table(COLUMNS, rows, record, note)


if __name__ == "__main__":
    sys.exit(main())
