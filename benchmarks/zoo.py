"""Makes the table of the networks: `python benchmarks/zoo.py --out benchmarks/results/zoo [--results FILE.json]`.

For each experiment: parameters and operations of the full-size network (its `voc` variant: 21 classes, RGB) at 512x512
pixels, as XLA counts them in the lowered inference program; and the score of its `shapes` variant, from a file
that `collect.py` made from finished runs. Nothing is compiled or run.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from lib.timing import at_least, result_file

from jaxseg import build
from jaxseg.config import command
from jaxseg.state import count_parameters

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json and NAME.md are written")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON of collect.py, of runs of shapes variants")
    parser.add_argument("--names", nargs="*", default=[], metavar="NAME", help="experiments (default: all)")
    parser.add_argument("--size", type=at_least(1), default=512, help="height and width of the image (default 512)")
    options = parser.parse_args(argv)
    names = options.names or sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))
    scores = shapes_scores(options.results)
    rows = []
    for name in names:
        rows.append(describe(name, options.size) | (scores[name] if name in scores else {}))
        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"size": options.size, "jax": jax.__version__, "networks": rows}
        result_file(options.out, ".json").write_text(json.dumps(record, indent=1) + "\n")
        result_file(options.out, ".md").write_text(markdown(rows, options.size))
    return 0


def describe(name: str, size: int) -> dict[str, Any]:
    """Returns the parameters and GFLOPs (two a multiply-add) of an experiment's full-size network."""
    config = command.load_experiment(str(ROOT / "experiments" / f"{name}.py") + ":voc")
    model = build.make_model(config, 21)
    image = jax.ShapeDtypeStruct((1, size, size, config.data.channels), jnp.float32)
    key = jax.eval_shape(jax.random.key, 0)
    variables = jax.eval_shape(lambda k: model.init(k, jnp.zeros(image.shape)), key)
    lowered = jax.jit(lambda v, x: model.apply(v, x, train=False)[0]).lower(variables, image)
    flops = float(lowered.cost_analysis()["flops"])
    return {
        "experiment": name,
        "model": config.model.name,
        "parameters": count_parameters(variables["params"]),
        "gflops": round(flops / 1e9, 2),
    }


def shapes_scores(path: Path | None) -> dict[str, dict[str, Any]]:
    """Returns {experiment: its validation mIoU and minutes} of the runs that have an experiment's name."""
    runs = json.loads(path.read_text())["runs"] if path else []
    return {
        run["run"]: {
            "shapes_mean_iou": run["validation_mean_iou"],
            "shapes_minutes": None if run["seconds"] is None else run["seconds"] / 60,
        }
        for run in runs
    }


def markdown(rows: list[dict[str, Any]], size: int) -> str:
    """Returns the table, alphabetically."""
    lines = [
        f"| experiment | parameters | GFLOPs at {size}x{size} | shapes validation mIoU |",
        "|---|---|---|---|",
    ]
    for row in rows:
        score = f"{row['shapes_mean_iou']:.3f}".lstrip("0") if "shapes_mean_iou" in row else "not measured"
        name, millions = row["experiment"], row["parameters"] / 1e6
        lines.append(f"| `{name}` | {millions:.2f} M | {row['gflops']:.1f} | {score} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(command.run_command(main))
