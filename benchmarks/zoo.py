"""Makes the table of the networks: `python benchmarks/zoo.py --out NAME --results FILE.json [--keep FILE.json]`.

    python benchmarks/zoo.py --keep benchmarks/results/zoo.json --results benchmarks/results/shapes-cpu.json \
        --out benchmarks/results/zoo

Two networks stand behind each experiment. The full one (its `voc` variant: 21 classes, RGB) has its parameters and
operations counted here, by XLA in the lowered inference program of one 512x512 image; nothing is compiled or run. The
network of the score (its `shapes` variant) has its parameters divided by 1 (`cnn`) to 466 (`vit_adapter`); what the
table says of it, its parameters too, is read from the file that `collect.py` made of finished runs. NAME.json holds the
counts, NAME.md both.

Without `--names`, the experiments that the file of `--keep` lacks are counted, so that this command adds new networks
and joins new scores in a second. A row keeps the commit, date and version of JAX of its count.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from lib.timing import at_least, environment, result_file

from jaxseg import build
from jaxseg.config import command
from jaxseg.files import write_text
from jaxseg.state import count_parameters

ROOT = Path(__file__).resolve().parent.parent
# Experiments about training, whose networks are those of other experiments.
OTHERS = ("audit", "distillation", "multilabel", "pruning", "quantised", "search", "semi", "vit_finetune")
OTHERS += ("weak_labels",)
COUNTED = ("experiment", "model", "parameters", "gflops", "jax", "date", "commit")
COLUMNS = ("experiment", "full network: parameters", "full network: GFLOPs at {size}")
COLUMNS += ("network of the score: parameters", "its images", "its training, steps x batch")
COLUMNS += ("its shapes validation mIoU", "scored on", "at commit")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json and NAME.md are written")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON of collect.py, of runs of shapes variants")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="JSON of an earlier call, whose counts stay")
    parser.add_argument(
        "--names", nargs="+", default=[], metavar="NAME", help="count these (default: all that FILE lacks)"
    )
    parser.add_argument("--size", type=at_least(1), default=512, help="height and width of the image (default 512)")
    options = parser.parse_args(argv)
    earlier = json.loads(options.keep.read_text()) if options.keep else {"size": options.size, "networks": []}
    if options.out and not options.results:
        parser.error("--out needs --results, such as benchmarks/results/shapes-cpu.json: else no network has its score")
    if earlier["size"] != options.size:
        parser.error(
            f"--keep {options.keep} has counts at size {earlier['size']}, this call makes them at {options.size}"
        )
    rows = {
        row["experiment"]: {key: row[key] if key in row else None for key in COUNTED} for row in earlier["networks"]
    }
    every = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if path.stem not in OTHERS)
    where = environment()
    for name in options.names or [name for name in every if name not in rows]:
        rows[name] = describe(name, options.size) | {
            "jax": jax.__version__,
            "date": where["date"],
            "commit": where["git"]["commit"] if where["git"] else None,
        }
        print(json.dumps(rows[name]), flush=True)
    record = {"command": where["command"], "size": options.size, "networks": [rows[name] for name in sorted(rows)]}
    runs = json.loads(options.results.read_text())["runs"] if options.results else []
    if options.out:
        write_text(result_file(options.out, ".json"), json.dumps(record, indent=1) + "\n")
        write_text(result_file(options.out, ".md"), markdown(record, runs))
    return 0


def describe(name: str, size: int) -> dict[str, Any]:
    """Returns the parameters and GFLOPs (two a multiply-add) of an experiment's full network."""
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


def markdown(record: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table, alphabetically: what was counted of the full network, then the run of the small one."""
    full = {row["experiment"]: row for row in record["networks"]}
    scored = {run["run"]: run for run in runs}
    lines = ["| " + " | ".join(COLUMNS).format(size=f"{record['size']}x{record['size']}") + " |"]
    lines.append("|---" * len(COLUMNS) + "|")
    for name in sorted(full.keys() | scored.keys()):
        cells = [f"`{name}`", "", ""]
        if name in full:
            cells[1:] = [f"{full[name]['parameters'] / 1e6:.2f} M", f"{full[name]['gflops']:.1f}"]
        cells += _scored(scored[name]) if name in scored else [""] * 3 + ["not measured", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _scored(run: Mapping[str, Any]) -> list[str]:
    """Returns the cells about the network of the score, from the record of its run."""
    return [
        f"{run['parameters']:,}",
        "x".join(map(str, run["size"])),
        f"{run['steps']} x {run['batch']}",
        f"{run['mean_iou']:.3f}".lstrip("0"),
        run["date"][:10],
        run["commit"][:7] if run["commit"] else "not recorded",
    ]


if __name__ == "__main__":
    sys.exit(command.run_command(main))
