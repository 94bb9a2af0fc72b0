"""Networks for real time, one image: `python benchmarks/realtime.py --results SHAPES.json --out NAME`.

Each experiment has two networks: that of full size (its `voc` variant, 21 classes), and the small one of its shapes
variant, whose mIoU on the shapes data comes from a file of `collect.py`. The evaluation program of both is compiled as
`jaxseg.evaluate` compiles it, batch norms folded, and timed for one image with `--baseline` in every round: the large
one of `--size`, the small one of `--small-size`, since the small SegFormer's attention grows with the square of the
pixels. Ratios are to the baseline in the same round; the load of the machine is recorded. After each network the files
are written, and `--resume` measures those that they lack. The picture has the small networks, whose two numbers belong
together, with their Pareto front.
"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lib.timing import at_least, compile_jit, environment, make_parser, ratio_of, result_file, save, table, time_rounds
from zoo import ROOT, shapes_scores

from jaxseg import build
from jaxseg.config import command, update
from jaxseg.nn.folding import find_pairs, fold, folded
from jaxseg.state import count_parameters

NAMES = ("segformer", "lraspp", "fast_scnn", "bisenetv1", "bisenetv2", "ddrnet", "pidnet", "enet", "erfnet")
NAMES += ("stdc", "pp_liteseg", "icnet")
# Larger form -> experiment, and the fields of its network (docs/realtime.md).
LARGER: dict[str, tuple[str, dict[str, Any]]] = {
    "ddrnet-23": ("ddrnet", {"width": 64, "head_width": 128}),
    "pidnet-m": ("pidnet", {"width": 64}),
    "pidnet-l": (
        "pidnet",
        {"width": 64, "blocks": 3, "deep_blocks": 4, "pool_width": 112, "head_width": 256, "light": False},
    ),
    "stdc2": ("stdc", {"encoder": "stdc2"}),
    "pp_liteseg-b": ("pp_liteseg", {"encoder": "stdc2", "widths": (64, 96, 128), "head_width": 64}),
}
FREE = ("date", "git", "command")  # of the environment: what a call that is resumed may have of its own
# Variant of the experiment, classes, and the name of its columns.
FORMS = {"full": ("voc", 21), "shapes": ("shapes", 6)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--names", nargs="+", default=[*NAMES, *LARGER], metavar="NAME", help=f"experiments, or {', '.join(LARGER)}"
    )
    parser.add_argument("--baseline", default="segformer", metavar="NAME", help="one of them (default segformer)")
    parser.add_argument(
        "--size", nargs=2, type=at_least(1), default=[512, 1024], metavar=("H", "W"), help="(default 512 1024)"
    )
    parser.add_argument(
        "--small-size", nargs=2, type=at_least(1), default=[128, 256], metavar=("H", "W"), help="of the small networks"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON of collect.py, of runs of shapes variants")
    parser.add_argument("--timed", type=Path, metavar="FILE", help="JSON of an earlier run: its times, with new scores")
    parser.add_argument(
        "--resume", action="store_true", help="keep the networks that --out has, and measure the others"
    )
    options = parser.parse_args(argv)
    if options.smallest:
        options.names, options.baseline, options.size, options.repeats = ["fast_scnn", "cnn"], "cnn", [32, 40], 1
        options.small_size = [32, 40]
    if options.baseline not in options.names:
        parser.error(f"--baseline {options.baseline} is none of --names {' '.join(options.names)}")
    if options.baseline in LARGER:
        parser.error(f"--baseline {options.baseline} has no small network; take one of {' '.join(NAMES)}")
    scores = shapes_scores(options.results)
    if options.timed:
        record = json.loads(options.timed.read_text())
        join_scores(record, scores)
        save(options.out, record, describe(record), lambda figure: draw(figure, record))
        return 0
    record: dict[str, Any] = {"environment": environment(), "size": options.size, "baseline": options.baseline}
    record |= {"small_size": options.small_size, "repeats": options.repeats, "load_before": os.getloadavg()}
    record |= {"load_after": os.getloadavg(), "networks": {}}
    if options.resume:
        record |= earlier(parser, options, record)
    baselines: dict[str, tuple[Any, dict[str, Any]]] = {}
    for name in options.names:
        if name in record["networks"]:
            continue
        each: dict[str, Any] = {"shapes_mean_iou": None, "shapes": None}
        for form, size in zip(FORMS, (options.size, options.small_size), strict=True):
            if name in LARGER and form == "shapes":
                continue
            if form not in baselines:
                baselines[form] = program(options.baseline, form, size)
            call, described = baselines[form] if name == options.baseline else program(name, form, size)
            print(name, form, described, file=sys.stderr, flush=True)
            seconds = time_rounds({options.baseline: baselines[form][0], name: call}, options.repeats)
            each[form] = described | times_of(seconds[name], seconds[options.baseline])
        record["networks"][name] = each
        join_scores(record, scores)
        record["load_after"] = os.getloadavg()
        save(options.out, record, describe(record), lambda figure: draw(figure, record), quiet=True)
    join_scores(record, scores)
    save(options.out, record, describe(record), lambda figure: draw(figure, record))
    return 0


def join_scores(record: dict[str, Any], scores: dict[str, dict[str, Any]]) -> None:
    """Gives each network its score; one without a new score keeps that of an earlier call."""
    for name, each in record["networks"].items():
        if name in scores:
            each["shapes_mean_iou"] = scores[name]["shapes_mean_iou"]


def earlier(parser: ArgumentParser, options: Namespace, record: dict[str, Any]) -> dict[str, Any]:
    """Returns what an earlier call measured with the same options and in the same environment, nothing if it wrote no
    file.

    Ends with a message if it was asked for something else, or measured elsewhere: another device, other versions. Its
    date and commit are those of the record.
    """
    path = None if options.out is None else result_file(options.out, ".json")
    if path is None or not path.is_file():
        return {}
    found = json.loads(path.read_text())
    for key in ("size", "small_size", "baseline", "repeats"):
        if found[key] != record[key]:
            parser.error(f"--resume: {path} has {key} {found[key]}, this call has {record[key]}; give another --out")
    there, here = ({k: v for k, v in each["environment"].items() if k not in FREE} for each in (found, record))
    other = [key for key in sorted({*there, *here}) if key not in there or key not in here or there[key] != here[key]]
    if other:
        parser.error(f"--resume: {path} was measured in another environment ({', '.join(other)}); give another --out")
    return {key: found[key] for key in ("environment", "load_before", "load_after", "networks")}


def times_of(seconds: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """Returns the median and the least of the rounds, and the ratio to the baseline with its middle half."""
    ordered, ratio = sorted(seconds), ratio_of(seconds, baseline)
    return {
        "median_seconds": ordered[len(ordered) // 2],
        "least_seconds": ordered[0],
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
    }


def program(name: str, form: str, size: Sequence[int]) -> tuple[Any, dict[str, Any]]:
    """Returns (a call of the evaluation program of one image, the parameters of the network and compile seconds)."""
    variant, classes = FORMS[form]
    experiment, fields = LARGER[name] if name in LARGER else (name, {})
    config = command.load_experiment(str(ROOT / "experiments" / f"{experiment}.py") + f":{variant}")
    update(config, model__args={**config.model.args.to_dict(), **fields})
    model = build.make_model(config, classes)
    image = jnp.zeros((1, *size, config.data.channels), jnp.float32)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, image.shape[-1]), "float32")
    )
    variables = jax.tree_util.tree_map_with_path(drawn, shapes)

    def logits(variables: Any, image: jax.Array) -> jax.Array:
        return model.apply(variables, image, train=False)[0]

    pairs = find_pairs(logits, variables, image)
    variables = fold(variables, pairs)
    compiled, seconds = compile_jit(folded(logits, pairs), variables, image)
    described = {"parameters": count_parameters(shapes["params"]), "compile_seconds": seconds}
    return lambda: compiled(variables, image), described


def drawn(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Returns kernels that keep the variance, and norms that change nothing: nothing vanishes or grows."""
    name = path[-1].key
    if len(leaf.shape) > 1:
        fan_in = np.prod(leaf.shape[:-1])
        return np.random.default_rng(0).normal(0, (2 / fan_in) ** 0.5, leaf.shape).astype(np.float32)
    return np.full(leaf.shape, 1.0 if name in ("scale", "var") else 0.0, np.float32)


def pareto(points: dict[str, tuple[float, float]]) -> list[str]:
    """Returns the names of the points (seconds, score) of which no other is both quicker and better, quickest first."""
    kept, best = [], float("-inf")
    for name, (_, score) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if score > best:
            kept.append(name)
            best = score
    return kept


def points_of(record: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Returns {name: (ratio of its small network, its mIoU)} where the score is known."""
    networks = record["networks"]
    scored = [name for name in networks if networks[name]["shapes_mean_iou"] is not None]
    return {name: (networks[name]["shapes"]["ratio"], networks[name]["shapes_mean_iou"]) for name in scored}


def describe(record: dict[str, Any]) -> str:
    """Returns the table, by the time of the full network."""
    of_full = ["parameters", "ms (median)", "ms (least)", f"ratio to {record['baseline']}"]
    of_small = ["parameters", "ms (median)", "ratio", "shapes mIoU"]
    columns = ["network", *(f"full network: {each}" for each in of_full)]
    columns += [*(f"network of the score: {each}" for each in of_small), "on the front"]
    front, rows = pareto(points_of(record)), []
    for name, each in sorted(record["networks"].items(), key=lambda item: item[1]["full"]["ratio"]):
        full, small, score = each["full"], each["shapes"], each["shapes_mean_iou"]
        of_score = ["", "", "", ""]
        if small is not None:
            of_score = [f"{small['parameters'] / 1e6:.2f} M", f"{1000 * small['median_seconds']:.0f}"]
            of_score += [f"{small['ratio']:.2f}", "not measured" if score is None else f"{score:.3f}".lstrip("0")]
        rows.append(
            [
                f"`{name}`",
                f"{full['parameters'] / 1e6:.2f} M",
                f"{1000 * full['median_seconds']:.0f}",
                f"{1000 * full['least_seconds']:.0f}",
                f"{full['ratio']:.2f} ({full['ratio_low']:.2f}-{full['ratio_high']:.2f})",
                *of_score,
                "yes" if name in front else "",
            ]
        )
    large, small = ("x".join(map(str, record[size])) for size in ("size", "small_size"))
    before, after = (record[f"load_{when}"][0] for when in ("before", "after"))
    note = (
        f"Evaluation of one image of {large} pixels ({small} by the small networks), {record['repeats']} rounds, each "
        f"with one of `{record['baseline']}`; the load of the machine "
        f"was {before:.1f} before and {after:.1f} after. "
        f"Ratios are medians over rounds, with "
        f"their middle half. Parameters are those of training, auxiliary heads included."
    )
    return table(columns, rows, record, note)


def label_place(left: bool, right: bool) -> tuple[tuple[int, int], str]:
    """Returns (offset in points, alignment) of a point's name, from whether others are just left and right of it."""
    if right:
        return ((0, 20), "center") if left else ((-14, 6), "right")
    return (10, 8), "left"


def draw(figure: Any, record: dict[str, Any]) -> None:
    """Draws score over time for the small networks, the size of a point by its parameters, and the front."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes = figure.subplots()
    points = points_of(record)
    front = pareto(points)
    if front:
        axes.plot(*zip(*(points[name] for name in front)), color="tab:gray", lw=1, zorder=1)
    for name, (x, y) in points.items():
        parameters = record["networks"][name]["shapes"]["parameters"]
        axes.scatter(
            x, y, s=max(12.0, parameters / 1e3), alpha=0.6, color="tab:blue" if name in front else "tab:orange"
        )
        near = [a for a, b in points.values() if 0.8 * x < a < 1.25 * x and abs(b - y) < 0.05]
        offset, side = label_place(any(a < x for a in near), any(a > x for a in near))
        axes.annotate(name, (x, y), xytext=offset, textcoords="offset points", ha=side, fontsize=9)
    h, w = record["small_size"]
    axes.set_xscale("log")
    axes.margins(x=0.14, y=0.08)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"time for one image of {h}x{w}, relative to {record['baseline']} (shapes variants)")
    axes.set_ylabel("shapes validation mIoU")
    axes.grid(alpha=0.3)
    axes.set_title("Small networks: score and time; area by parameters, blue on the Pareto front", fontsize=10)


if __name__ == "__main__":
    sys.exit(command.run_command(main))
