"""What do corrupted images cost, and does augmentation help? `python benchmarks/corruptions.py --work DIR --out NAME`.

Networks of experiments/ train on small shapes, each without augmentation, with changes of geometry and colour, and with
these and noise, blur, JPEG and erasing. Each is scored on the test split under every corruption and strength. Runs and
scores that are in DIR are not made again, so that a call that was cut off, or one with more variants, goes on.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.commands import command_of
from lib.timing import at_least, environment, rows_below, save, table

from jaxseg import compiler
from jaxseg.config import ConfigDict, differences, update, validate
from jaxseg.config.command import load_experiment, run_command
from jaxseg.data.corruptions import CORRUPTIONS
from jaxseg.errors import ConfigError, counted
from jaxseg.inference.corrupted import score_corrupted
from jaxseg.inference.corruption_files import file_of
from jaxseg.inference.evaluation import evaluate
from jaxseg.run.load import load_run
from jaxseg.run.workdir import CHECKPOINTS, read_config
from jaxseg.train import train

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = ("unet", "resunet", "deeplabv3plus", "segformer", "fpn")
_COLOURS: dict[str, Any] = {
    "augment__flip_horizontal": 0.5,
    "augment__zoom": (0.8, 1.25),
    "augment__rotate": 15.0,
    "augment__brightness": 0.3,
    "augment__contrast": 0.3,
    "augment__saturation": 0.3,
}
# Name -> keys of the training.
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"augment__flip_horizontal": 0.0},
    "augmented": _COLOURS,
    "degraded": {
        **_COLOURS,
        "augment__blur": 1.0,
        "augment__low_resolution": 0.5,
        "augment__noise": 0.2,
        "augment__jpeg": 20,
        "augment__erase": 0.5,
    },
}
_PIXELS = 32  # a side


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    parser.add_argument("--steps", type=at_least(2), default=400, metavar="N", help="of 8 images (default 400)")
    parser.add_argument("--seeds", type=at_least(1), default=1, metavar="N", help="seeds 0 to N - 1 (default 1)")
    parser.add_argument("--images", type=at_least(1), default=96, metavar="N", help="test images (default 96)")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json, NAME.md and NAME.png are written")
    parser.add_argument("--smallest", action="store_true", help="one tiny network: to see that it works")
    options = parser.parse_args(argv)
    return run_command(lambda: _measure(options, list(sys.argv[1:] if argv is None else argv)))


def _measure(options: argparse.Namespace, words: Sequence[str]) -> int:
    if options.smallest:
        options.networks, options.variants, options.steps, options.images = ["unet"], ["none", "degraded"], 2, 2
    else:
        compiler.keep_programs()
    command = command_of(__file__, ["DIR" if word == str(options.work) else word for word in words])
    settings = {"pixels": _PIXELS, "steps": options.steps, "images": options.images, "variants": VARIANTS}
    record: dict[str, Any] = {"command": command, "environment": environment()}
    record |= {"settings": settings, "runs": []}
    for variant in options.variants:
        for name in options.networks:
            for seed in range(options.seeds):
                scores = _scored(options, name, variant, seed)
                kept = {key: scores[key] for key in ("parameters", "clean", "strengths", "corruptions", "mean_drop")}
                record["runs"].append({"network": name, "variant": variant, "seed": seed, **kept})
                print(f"{name}, {variant}, seed {seed}: {summary(scores)}", file=sys.stderr, flush=True)
                save(options.out, record, to_table(record), quiet=True)
    save(options.out, record, to_table(record), None if options.smallest else lambda figure: draw(figure, record))
    return 0


def _config(options: argparse.Namespace, name: str, variant: str, seed: int) -> ConfigDict:
    config = load_experiment(str(ROOT / "experiments" / f"{name}.py"))
    update(config, data__size=(_PIXELS, _PIXELS), data__shapes_train=2048, data__shapes_val=options.images, seed=seed)
    update(config, steps=options.steps, eval__every=options.steps, checkpoint__every=options.steps, eval__batch_size=32)
    update(config, log__every=min(100, options.steps), log__images=0, log__tensorboard=False, **VARIANTS[variant])
    if options.smallest:
        update(config, model__args={"widths": (4, 8)}, batch_size=2, schedule__warmup=1, data__size=(16, 16))
        update(config, data__shapes_train=4, eval__batch_size=2)
    return config


def _scored(options: argparse.Namespace, name: str, variant: str, seed: int) -> dict[str, Any]:
    """Returns what corruptions-test.json of a run says, which is trained and scored where it is not there yet."""
    config = _config(options, name, variant, seed)
    validate(config)
    workdir = options.work / f"{name}-{variant}-{seed}"
    if not (workdir / CHECKPOINTS / str(config.steps)).is_dir():
        train(config, workdir, "the benchmark again")
    if changed := differences(read_config(workdir), config, divided=False):
        raise ConfigError(
            f"{workdir} holds a run with other settings ({'; '.join(changed)}); give those, or another --work."
        )
    run = load_run(workdir, "last", {"eval.batch_size": config.eval.batch_size})
    file = file_of(run, "test")
    if not file.is_file():
        evaluation = evaluate(run, "test")
        evaluation.write_report()
        score_corrupted(evaluation).write()
    scores = json.loads(file.read_text(encoding="utf-8"))
    if scores["images"] != options.images or len(scores["corruptions"]) != len(CORRUPTIONS):
        raise ConfigError(
            f"{file} has {counted(len(scores['corruptions']), 'corruption')} on {counted(scores['images'], 'image')}, "
            f"and {len(CORRUPTIONS)} on {options.images} are asked for: move it away to score again."
        )
    return scores


def summary(scores: Mapping[str, Any]) -> str:
    """Returns the mIoU without corruptions and the mean drop of a run, in words."""
    return f"mIoU {100 * scores['clean']['mean_iou']:.2f} %, mean drop {100 * scores['mean_drop']:.2f} points"


def to_table(record: Mapping[str, Any]) -> str:
    """Returns the Markdown tables: networks by variant, and corruptions by variant."""
    runs = record["runs"]
    variants = list(dict.fromkeys(run["variant"] for run in runs))
    rows = []
    for name in dict.fromkeys(run["network"] for run in runs):
        cells = []
        for variant in variants:
            mine = [run for run in runs if (run["network"], run["variant"]) == (name, variant)]
            clean, corrupted = [run["clean"]["mean_iou"] for run in mine], [run["mean_drop"] for run in mine]
            cells += [_percent(clean), _percent([c - d for c, d in zip(clean, corrupted)]), _percent(corrupted)]
        rows.append((name, *cells))
    head = [f"{variant}: {what}" for variant in variants for what in ("clean", "corrupted", "drop")]
    s, images = record["settings"], record["settings"]["images"]
    about = (
        f"mIoU in per cent on {images} test images of the shapes of {s['pixels']}x{s['pixels']} pixels after "
        f"{s['steps']} steps of 8 images: clean, the mean over all corruptions and strengths, and their difference, "
        f"the mean drop in points. Seeds: {1 + max((run['seed'] for run in runs), default=0)}."
    )
    networks = rows_below(("network", *head), rows, about)
    named = list(runs[0]["corruptions"]) if runs else []
    by_name = [(name, *(_percent(drops_of(runs, variant, name)) for variant in variants)) for name in named]
    note = "What each corruption takes of the mIoU, in points: means over networks, seeds and strengths."
    return networks + "\n" + table(("corruption", *variants), by_name, record, note)


def drops_of(runs: Sequence[Mapping[str, Any]], variant: str, corruption: str) -> list[float]:
    """Returns what a corruption takes of the mIoU of each run of a variant, on average over the strengths."""
    mine = [run for run in runs if run["variant"] == variant]
    return [statistics.mean(run["corruptions"][corruption]["drop"]) for run in mine]


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * statistics.mean(shares):.1f}" if shares else ""


def draw(figure: Any, record: Mapping[str, Any]) -> None:
    """Bars of the mean drop of each network, and of each corruption over the networks."""
    runs = record["runs"]
    variants = list(dict.fromkeys(run["variant"] for run in runs))
    networks, named = list(dict.fromkeys(run["network"] for run in runs)), list(runs[0]["corruptions"])
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    for number, variant in enumerate(variants):
        of_network = [
            statistics.mean(r["mean_drop"] for r in runs if (r["network"], r["variant"]) == (name, variant))
            for name in networks
            if any((r["network"], r["variant"]) == (name, variant) for r in runs)
        ]
        of_corruption = [statistics.mean(drops_of(runs, variant, name)) for name in named]
        for axis, values in ((left, of_network), (right, of_corruption)):
            places = [place + 0.8 * (number + 0.5) / len(variants) - 0.4 for place in range(len(values))]
            axis.bar(places, [100 * x for x in values], 0.8 / len(variants), label=variant, color=f"C{number}")
    for axis, names in ((left, networks), (right, named)):
        axis.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=45, ha="right")
        axis.grid(axis="y", alpha=0.3)
    left.set_ylabel("mean drop of the mIoU, points")
    left.legend(frameon=False)


if __name__ == "__main__":
    sys.exit(main())
