"""What do weak labels lose? `python benchmarks/weak_labels.py --out NAME` trains on the same images with each kind.

One U-Net trains with each seed for the same number of steps on the same images of the shapes data: with full masks, and
with scribbles, points and boxes that `data.weaken` makes of them, with and without the losses for pixels without a
label. All are scored on the full masks of the validation split. The runs are written as they end, so that a call that
was cut off resumes.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from lib.timing import at_least, environment, make_parser, result_file, save, table

from jaxseg import compiler, metrics
from jaxseg.build import build_parts, make_strategy
from jaxseg.config import ConfigDict, update
from jaxseg.config.command import run_command
from jaxseg.config.recipes import ablation_recipe
from jaxseg.data import make_eval_loader, make_source, make_train_loader
from jaxseg.data.base import Source
from jaxseg.errors import nearest
from jaxseg.inference.score import score
from jaxseg.sweep.statistics import paired_difference, spread
from jaxseg.types import IGNORE

WINDOW = {"gated_crf": {"reduce": 1, "radius": 3, "sigma_xy": 3.0}}
CRF = {"loss__terms": "cross_entropy + 0.01 * gated_crf", "loss__args": WINDOW}
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "scribbles": {"data__weaken": "scribbles"},
    "scribbles, gated CRF": {"data__weaken": "scribbles", **CRF},
    "points": {"data__weaken": "points"},
    "points, gated CRF": {"data__weaken": "points", **CRF},
    "points, entropy": {"data__weaken": "points", "loss__terms": "cross_entropy + 0.1 * entropy"},
    "boxes": {"data__weaken": "boxes"},
    "boxes, half unknown": {"data__weaken": "boxes", "data__box_core": 0.5},
    "boxes, half unknown, sizes": {
        "data__weaken": "boxes",
        "data__box_core": 0.5,
        "loss__terms": "cross_entropy + 5 * size_constraint",
        "loss__args": {"size_constraint": {"least": 0.4}},
    },
}
BASELINE = "full"
COLUMNS = ("labels", "labelled pixels", "right", "seeds", "mIoU", "difference to full", "pixel accuracy")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--variants", default=";".join(VARIANTS), metavar="A;B", help="those to train (default all)")
    parser.add_argument("--seeds", type=at_least(1), default=5, metavar="N", help="seeds 0 to N - 1 (default 5)")
    parser.add_argument("--first-seed", type=at_least(0), default=0, metavar="I", help="the first seed (default 0)")
    parser.add_argument("--images", type=at_least(8), default=512, metavar="N", help="training images (default 512)")
    parser.add_argument("--steps", type=at_least(2), default=600, metavar="N", help="steps of 8 images (default 600)")
    options = parser.parse_args(argv)
    return run_command(lambda: _measure(parser, options, list(sys.argv[1:] if argv is None else argv)))


def _measure(parser: argparse.ArgumentParser, options: argparse.Namespace, words: Sequence[str]) -> int:
    names = [name.strip() for name in options.variants.split(";") if name.strip()]
    for name in names:
        if name not in VARIANTS:
            parser.error(f"there is no variant {name!r}.{nearest(name, VARIANTS)}")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.smallest:
        names, seeds, options.images, options.steps = names[:1], range(1), 8, 2
    else:
        compiler.keep_programs()  # variants with one loss share their programs
    settings = {"images": options.images, "steps": options.steps}
    record = _start(options.out, settings, words)
    for name in names:
        config = ablation_recipe(None, "unet", {"widths": (8, 16, 32), "dropout": 0.0})
        update(config, steps=options.steps, data__shapes_train=options.images, **VARIANTS[name])
        if options.smallest:
            update(config, schedule__warmup=1, data__shapes_val=8, data__size=(16, 16))
            update(config, model__name="cnn", model__args={"widths": (4, 4)})
        trained = Trained(config)
        record["labels"][name] = trained.labels()
        for seed in seeds:
            if any(run["variant"] == name and run["seed"] == seed for run in record["runs"]):
                continue
            record["runs"].append({"variant": name, "seed": seed, **trained.run(seed)})
            print(record["runs"][-1], file=sys.stderr, flush=True)
            save(options.out, record, _table(record), quiet=True)
    save(options.out, record, _table(record))
    return 0


def _start(out: Path | None, settings: Mapping[str, int], words: Sequence[str]) -> dict[str, Any]:
    """Returns the record of a former call with the same settings, or an empty one."""
    record = {
        "command": f"python benchmarks/weak_labels.py {shlex.join(words)}",
        "environment": environment(),
        "settings": dict(settings),
        "labels": {},
        "runs": [],
    }
    file = None if out is None else result_file(out, ".json")
    if file is not None and file.is_file():
        former = json.loads(file.read_text(encoding="utf-8"))
        if former["settings"] == record["settings"]:
            record |= {"labels": former["labels"], "runs": former["runs"]}
    return record


class Trained:
    """One variant: its data and its compiled programs, which all seeds share."""

    def __init__(self, config: ConfigDict):
        self.config = config
        self.train, self.val = (make_source(config, split) for split in ("train", "val"))
        self.strategy = make_strategy(config)
        self.parts = build_parts(config, len(self.train.info.classes), axis_name=self.strategy.axis_name)
        self.step = self.strategy.compile_train(self.parts.train_step())
        self.eval_step = self.strategy.compile_eval(self.parts.eval_step())

    def labels(self) -> dict[str, float]:
        """Returns the share of the pixels that have a label, and the share of these that is right."""
        full: Source = getattr(self.train, "full", self.train)
        known = right = pixels = 0
        for i in range(len(self.train)):
            label, truth = self.train[i]["label"], full[i]["label"]
            seen = label < len(self.train.info.classes)
            known, pixels = known + int(seen.sum()), pixels + label.size
            right += int((seen & (label == truth) & (truth != IGNORE)).sum())
        return {"known": known / pixels, "right": right / max(known, 1)}

    def run(self, seed: int) -> dict[str, float]:
        """Trains with a seed; returns the scores of the validation split."""
        config, strategy = self.config, self.strategy
        sizes = {"size": tuple(config.data.size), "fit": config.data.fit, "channels": config.data.channels}
        state = strategy.put_state(self.parts.init(jax.random.key(seed)))
        key = strategy.put_key(jax.random.fold_in(jax.random.key(seed), 1))
        with make_train_loader(self.train, batch_size=config.batch_size, seed=seed, **sizes) as batches:
            for _ in range(config.steps):
                batch = next(batches)
                placed = strategy.put_batch({name: batch[name] for name in ("image", "label")})
                state, _ = self.step(state, placed, key)
        loader = make_eval_loader(self.val, batch_size=config.eval.batch_size, size=sizes["size"], fit=sizes["fit"])
        result = score(self.eval_step, state, loader, loss=self.parts.loss, strategy=strategy)
        scores = metrics.scores(result.confusion)
        return {"mean_iou": scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy}


def _table(record: Mapping[str, Any]) -> str:
    by_seed = {name: {r["seed"]: r["mean_iou"] for r in record["runs"] if r["variant"] == name} for name in VARIANTS}
    rows = []
    for name, scores in by_seed.items():
        if not scores:
            continue
        labels, accuracy = record["labels"][name], [r["pixel_accuracy"] for r in record["runs"] if r["variant"] == name]
        difference = ""
        if name != BASELINE and len(scores.keys() & by_seed[BASELINE].keys()) > 1:
            found = paired_difference(scores, by_seed[BASELINE])
            difference = f"{100 * found.mean:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
        shares = (f"{labels['known']:.1%}", f"{labels['right']:.1%}")
        rows.append((name, *shares, len(scores), _spread(list(scores.values())), difference, _spread(accuracy)))
    settings = record["settings"]
    note = (
        f"U-Net of 3 levels (widths 8, 16 and 32) on {settings['images']} images of the shapes data, 32x32 pixels, "
        f"{settings['steps']} steps of 8 images; validation scores in per cent, mean ± standard deviation over seeds, "
        "difference paired by seed with its 95 % t interval."
    )
    return table(COLUMNS, rows, record, note)


def _spread(values: Sequence[float]) -> str:
    found = spread(values)
    return f"{100 * found.mean:.2f} ± {100 * found.deviation:.2f}" if found.n > 1 else f"{100 * found.mean:.2f}"


if __name__ == "__main__":
    sys.exit(main())
