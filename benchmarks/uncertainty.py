"""Does the uncertainty find the errors? `python benchmarks/uncertainty.py --workdir DIR --draws 20 --out NAME`.

A trained network with dropout is scored on a split: as it is, and with Monte-Carlo dropout. For each map of uncertainty
the table has the AUROC of error detection and the risk at several coverages. A temperature is fitted on the validation
split, and the calibration error before and after it stands below. The picture shows the maps of some images, and risk
by coverage.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from lib.commands import command_of
from lib.timing import at_least, environment, rows_below, save, table

import jaxseg
from jaxseg import metrics, pictures
from jaxseg.config.command import run_command
from jaxseg.data import make_source
from jaxseg.inference import temperature
from jaxseg.inference.uncertainty import UncertaintyScores, combine, make_drawing, score_uncertainty
from jaxseg.metrics.uncertainty import most_entropy

COLUMNS = ("prediction", "map", "AUROC", "AURC", "excess AURC", "risk at 50 %", "at 80 %", "at 100 %")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the workdir of a network trained with dropout")
    parser.add_argument("--split", default="test", help="the split that is scored (default test)")
    parser.add_argument("--draws", type=at_least(1), default=20, metavar="N", help="draws of dropout (default 20)")
    parser.add_argument("--picture", type=at_least(0), default=4, metavar="N", help="images in the picture (default 4)")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json, NAME.md and NAME.png are written")
    options = parser.parse_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _measure(options, words))


def _measure(options: argparse.Namespace, words: Sequence[str]) -> int:
    run = jaxseg.load(options.workdir)
    scores, seconds = {}, {}
    for name, draws in (("as it is", 0), (f"{options.draws} draws", options.draws)):
        begin = time.process_time()
        scores[name] = score_uncertainty(run, options.split, draws)
        seconds[name] = (time.process_time() - begin) / scores[name].images
    scaling = temperature.fit(run, "val")
    record = {
        "command": command_of(__file__, words),
        "environment": environment(),
        "network": {"name": run.config.model.name, "steps": run.step, "classes": list(run.classes)},
        "split": options.split,
        "scores": {
            name: {
                **each.to_dict(),
                "mean_iou": metrics.scores(each.confusion).mean_iou,
                "cpu_seconds": seconds[name],
            }
            for name, each in scores.items()
        },
        "temperature": scaling.to_dict(),
    }
    drawing = lambda figure: draw(figure, run, scores, options)  # noqa: E731
    save(options.out, record, describe(record), drawing if options.picture else None)
    return 0


def describe(record: dict[str, Any]) -> str:
    """Returns the tables."""
    rows = []
    for name, of_prediction in record["scores"].items():
        for score, found in of_prediction["scores"].items():
            at = found["risk_at_coverage"]
            shares = (found["auroc"], found["area"], found["excess_area"], at["0.5"], at["0.8"], at["1"])
            rows.append([name, score.replace("_", " "), *("-" if s is None else f"{100 * s:.2f}" for s in shares)])
    network = record["network"]
    note = f"`{network['name']}` after {network['steps']} steps, split {record['split']}: " + "; ".join(
        f"{name}: mIoU {100 * each['mean_iou']:.2f}, {1000 * each['cpu_seconds']:.0f} CPU ms an image"
        for name, each in record["scores"].items()
    )
    scaling = record["temperature"]
    before, after = (scaling["class_calibration_error"][when] for when in ("before", "after"))
    lines = [[name, *(f"{100 * each[name]:.2f}" for each in (before, after))] for name in before]
    ece = scaling["calibration_error"]
    lines.append(["predicted class", f"{100 * ece['before']:.2f}", f"{100 * ece['after']:.2f}"])
    lines.append(["NLL", *(f"{scaling['nll'][when]:.4f}" for when in ("before", "after"))])
    below = rows_below(
        ("calibration error of the class", "before", "after"),
        lines,
        f"Temperature {scaling['temperature']:.3f}, fitted on split {scaling['split']}; in percent, the NLL in nats.",
    )
    return table(COLUMNS, rows, record, f"{note}. In percent.") + f"\n{below}\n    {record['command']}\n"


def draw(
    figure: Any, run: jaxseg.TrainedRun, scores: dict[str, UncertaintyScores], options: argparse.Namespace
) -> None:
    """Draws a row an image: image, truth, prediction, errors, entropy and mutual information; below them the risk."""
    source = make_source(run.config, options.split)
    figure.set_size_inches(9.6, 1.75 * options.picture + 3.2)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.75 * options.picture, 3.0))
    axes, most = upper.subplots(options.picture, 6, squeeze=False), most_entropy(run.num_classes)
    sample = make_drawing(run)
    for row, i in zip(axes, range(0, len(source), max(1, len(source) // options.picture))):
        example = source[i]
        image, label = np.asarray(example["image"]), np.asarray(example["label"])
        key = jax.random.fold_in(jax.random.key(0), i)
        found = combine(sample(image, jax.random.fold_in(key, j)) for j in range(options.draws))
        predicted = np.asarray(found.mean).argmax(-1).astype(np.uint8)
        cells = (
            pictures.to_rgb(image),
            pictures.colorize(label, run.colors),
            pictures.colorize(predicted, run.colors),
            pictures.error_map(label, predicted),
            pictures.shades(np.asarray(found.entropy), most),
            pictures.shades(np.asarray(found.mutual_information), most / 4),
        )
        for axis, cell in zip(row, cells):
            axis.imshow(cell, interpolation="nearest")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.75")
    titles = ("image", "truth", "prediction", "errors (black)", "entropy", "mutual information (x 4)")
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=8)
    plots = lower.subplots(1, 1)
    for name, each in scores.items():
        for score, line in (("entropy", "-"), ("mutual_information", "--")):
            if score in each.by_score:
                found = each.by_score[score]
                label = f"{score.replace('_', ' ')}, {name}"
                plots.plot(100 * found.coverage, 100 * found.risk, line, label=label, linewidth=1.2)
    errors = next(iter(scores.values())).by_score["entropy"].errors
    plots.axhline(100 * errors, color="0.6", linewidth=0.8, label="without an order")
    plots.set(xlabel="coverage: the surest pixels, percent", ylabel="wrong, percent", xlim=(0, 100), ylim=(0, None))
    plots.legend(fontsize=7, frameon=False)
    plots.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
