"""What do few bits lose? `python benchmarks/quantised.py --work DIR --out NAME` quantises trained networks.

Each network trains in float32 with every seed. Its run is then quantised after the training, in several ways, and
trained further for a fifth of the steps: in float32, and with few bits (quantisation-aware training). Every variant is
written to a workdir, loaded from there and scored on the validation split. The table has mIoU and the size of the
checkpoints on disk. `--time-only` measures how long images take instead. Runs that are in DIR are not trained again.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from lib.timing import at_least, environment, interleave, make_parser, save, table

from jaxseg import compiler
from jaxseg.config import ConfigDict, update, validate
from jaxseg.config.command import run_command
from jaxseg.config.recipes import ablation_recipe
from jaxseg.inference.evaluation import evaluate
from jaxseg.inference.folded import fold_run
from jaxseg.inference.quantised import quantise_run
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.load import Run, load_run
from jaxseg.run.quantised import is_quantised
from jaxseg.run.workdir import CHECKPOINTS
from jaxseg.sweep.statistics import paired_difference, spread
from jaxseg.train import train

# (kernel, expanded, channels, squeeze-and-excitation, activation, stride) of each block of a short MobileNetV3.
_ROWS = (
    (3, 32, 16, False, "relu", 2),
    (3, 64, 16, False, "relu", 1),
    (5, 64, 32, True, "hard_swish", 2),
    (5, 128, 32, True, "hard_swish", 1),
    (5, 128, 32, True, "hard_swish", 1),
)
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("U-Net", {"widths": (16, 32, 64), "dropout": 0.0}),
    "lraspp": (
        "LR-ASPP over a short MobileNetV3",
        {
            "encoder": "mobilenet_v3_small",
            "encoder_args": {"rows": _ROWS, "stem": 16, "stem_stride": 1},
            "width": 64,
            "low_stride": 2,
        },
    ),
}
FLOAT = "float32"
# Name -> arguments of `quantise_run`, for the run in float32.
AFTER: dict[str, dict[str, Any]] = {
    "8-bit kernels": {},
    "8 bits": {"activations": 8},
    "8 bits, min-max": {"activations": 8, "ranges": "min-max"},
    "8 bits, percentile": {"activations": 8, "ranges": "percentile"},
    "4 bits": {"weights": 4, "activations": 4},
}
# Name -> keys of the training that goes on from the run in float32.
FURTHER: dict[str, dict[str, Any]] = {
    "float32, further": {},
    "8 bits, trained": {"quantise__weights": 8, "quantise__activations": 8},
    "4 bits, trained": {"quantise__weights": 4, "quantise__activations": 4},
}
BASELINES = {name: "float32, further" if name in FURTHER else FLOAT for name in (*AFTER, *FURTHER)}
COLUMNS = ("network", "bits", "seeds", "mIoU", "difference", "compared with", "checkpoint")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: both")
    parser.add_argument("--variants", nargs="+", choices=(*AFTER, *FURTHER), default=list(BASELINES), metavar="NAME")
    parser.add_argument("--seeds", type=at_least(1), default=5, metavar="N", help="seeds 0 to N - 1 (default 5)")
    parser.add_argument("--steps", type=at_least(2), default=800, metavar="N", help="steps in float32 (default 800)")
    parser.add_argument("--data-dir", metavar="PATH", help="a folder in place of the shapes data, in crops of 96x96")
    parser.add_argument("--time-only", action="store_true", help="measure times of the runs of seed 0 in DIR")
    options = parser.parse_args(argv)
    return run_command(lambda: _measure(options, list(sys.argv[1:] if argv is None else argv)))


def _measure(options: argparse.Namespace, words: Sequence[str]) -> int:
    compiler.keep_programs()
    if options.smallest:
        options.networks, options.seeds, options.steps = options.networks[:1], 1, 10
    hidden = {str(options.data_dir): "PATH", str(options.work): "DIR"}
    command = shlex.join(hidden[word] if word in hidden else word for word in words)
    record: dict[str, Any] = {"command": f"python benchmarks/quantised.py {command}", "environment": environment()}
    if options.time_only:
        record["seconds"] = {NETWORKS[name][0]: _seconds(options, name) for name in options.networks}
        record["seconds"]["one 3x3 convolution"] = _products(options)
        save(options.out, record, _time_table(record))
        return 0
    record |= {"steps": options.steps, "data": "folder" if options.data_dir else "shapes", "runs": []}
    for name in options.networks:
        for seed in range(options.seeds):
            for variant, found in _scores(options, name, seed).items():
                record["runs"].append({"network": name, "seed": seed, "variant": variant, **found})
                print(record["runs"][-1], file=sys.stderr, flush=True)
            save(options.out, record, _table(record), quiet=True)
    save(options.out, record, _table(record))
    return 0


def _config(options: argparse.Namespace, name: str, seed: int) -> ConfigDict:
    config = ablation_recipe(None, name, NETWORKS[name][1], steps=options.steps, seed=seed, data__shapes_val=256)
    update(config, batch_size=16, eval__every=options.steps, checkpoint__every=options.steps, log__every=100)
    if options.data_dir:
        update(config, data__source="folder", data__dir=options.data_dir, data__size=(96, 96), data__fit="crop")
        update(config, batch_size=8, eval__batch_size=1, eval__multiple=32)
    if options.smallest:
        update(config, schedule__warmup=1, data__size=(16, 16), data__shapes_val=8, data__shapes_train=16)
        update(config, model__name="cnn", model__args={"widths": (4,), "hidden": 4}, batch_size=2)
    return config


def _trained(folder: Path, config: ConfigDict) -> Run:
    validate(config)
    if not (folder / CHECKPOINTS / str(config.steps)).is_dir():
        train(config, folder, "")
    return load_run(folder, "last")


def _scores(options: argparse.Namespace, name: str, seed: int) -> dict[str, dict[str, float]]:
    """Returns {variant: mIoU and the bytes of the checkpoint} of one network and seed."""
    folder = options.work / f"{name}-{seed}"
    config = _config(options, name, seed)
    run = _trained(folder / FLOAT, config)
    runs = {FLOAT: run}
    for variant in options.variants:
        target = folder / variant.replace(", ", "-").replace(" ", "-")
        if variant in AFTER:
            runs[variant] = _written(run, target, AFTER[variant])
            continue
        further = _config(options, name, seed)
        steps = max(2, options.steps // 5)
        update(further, steps=steps, eval__every=steps, checkpoint__every=steps, schedule__warmup=steps // 10)
        update(further, model__weights=str((folder / FLOAT).absolute()), **FURTHER[variant])
        update(further, optimizer__learning_rate=config.optimizer.learning_rate / 10)
        aware = _trained(target.with_name(f"{target.name}-run"), further)
        runs[variant] = _written(aware, target, {}) if further.quantise.weights else aware
    sizes = {variant: _bytes(each, options.work) for variant, each in runs.items()}
    return {v: {"mean_iou": evaluate(each, "val").mean_iou, "bytes": sizes[v]} for v, each in runs.items()}


def _written(run: Run, target: Path, settings: Mapping[str, Any]) -> Run:
    """Returns the quantised run, loaded from its workdir."""
    if not is_quantised(target):
        quantise_run(run, target, **settings)
    return load_run(target)


def _bytes(run: Run, work: Path) -> int:
    """Returns the bytes on disk of a checkpoint of the network alone, without the state of its optimiser."""
    folder = run.workdir / CHECKPOINTS
    if not is_quantised(run.workdir):
        folder = work / "float32-alone" / run.workdir.parent.name / run.workdir.name
        if not folder.is_dir():
            with Checkpoints(folder) as checkpoints:
                checkpoints.save(run.step, run.variables, wait=True)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _table(record: Mapping[str, Any]) -> str:
    rows = []
    for name in dict.fromkeys(run["network"] for run in record["runs"]):
        mine = [run for run in record["runs"] if run["network"] == name]
        scores = {v: {r["seed"]: r["mean_iou"] for r in mine if r["variant"] == v} for v in (FLOAT, *BASELINES)}
        sizes = {v: np.mean([r["bytes"] for r in mine if r["variant"] == v]) for v in scores if scores[v]}
        for variant, found in scores.items():
            if not found:
                continue
            difference, base = "", BASELINES[variant] if variant in BASELINES else ""
            if base and base != variant and scores[base]:
                d = paired_difference(found, scores[base])
                ends = f" [{100 * d.low:+.2f}, {100 * d.high:+.2f}]" if d.n > 1 else ""
                difference = f"{100 * d.mean:+.2f}{ends}"
            s = spread(list(found.values()))
            mean = f"{100 * s.mean:.2f}" + (f" ± {100 * s.deviation:.2f}" if s.n > 1 else "")
            size = f"{sizes[variant] / 1e3:.0f} kB, {sizes[variant] / sizes[FLOAT]:.3f}"
            rows.append((NETWORKS[name][0], variant, s.n, mean, difference, base if difference else "", size))
    where = "a folder of images, crops of 96x96 in training" if record["data"] == "folder" else "shapes, 32x32 pixels"
    note = (
        f"Validation mIoU in per cent on {where}, after {record['steps']} steps in float32; mean ± standard deviation "
        "over seeds, difference paired by seed with its 95 % t interval. 'further' and 'trained' are a fifth of the "
        "steps more, at a tenth of the learning rate, from the network in float32. The checkpoint is that of the "
        "network alone on disk, and its share of float32."
    )
    return table(COLUMNS, rows, record, note)


def _seconds(options: argparse.Namespace, name: str) -> dict[str, float]:
    """Returns {variant: median seconds of a batch} of the programs in one interleaved run."""
    folder, shape = options.work / f"{name}-0", (1, 16, 16) if options.smallest else (4, 128, 128)
    cases = {}
    for variant in (FLOAT, "8-bit kernels", "8 bits"):
        run = load_run(folder / variant.replace(" ", "-"), "last")
        model, state = fold_run(run)
        image = jax.random.uniform(jax.random.key(0), (*shape, run.config.data.channels))
        program = jax.jit(lambda v, x, model=model: model.apply(v, x, train=False)[0])
        variables = jax.device_put(state.variables)
        cases[variant] = lambda program=program, variables=variables, image=image: program(variables, image)
    return interleave(cases, options.repeats)


def _products(options: argparse.Namespace) -> dict[str, float]:
    """Returns median seconds of one convolution, in float32 and with whole numbers that the backend multiplies."""
    side, c = (8, 4) if options.smallest else (128, 32)
    x, kernel = (jax.random.normal(jax.random.key(0), shape) for shape in ((4, side, side, c), (3, 3, c, c)))
    q, values = (jnp.round(30 * array).astype(jnp.int8) for array in (x, kernel))

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        kind = jnp.int32 if x.dtype == jnp.int8 else jnp.float32
        axes = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes, preferred_element_type=kind)

    def rounded(x: jax.Array, kernel: jax.Array) -> jax.Array:
        q = jnp.clip(jnp.round(30 * x), -127, 127).astype(jnp.int8)
        return convolve(q, kernel).astype(jnp.float32) / 900

    one, both = jax.jit(convolve), jax.jit(rounded)
    cases = {
        FLOAT: lambda: one(x, kernel),
        "whole numbers": lambda: one(q, values),
        "whole numbers, from and to float32": lambda: both(x, values),
    }
    return interleave(cases, options.repeats)


def _time_table(record: Mapping[str, Any]) -> str:
    rows = [
        (name, variant, f"{1e3 * seconds:.1f}", f"{seconds / found[FLOAT]:.2f}")
        for name, found in record["seconds"].items()
        for variant, seconds in found.items()
    ]
    note = (
        "Time of a batch of 4 images of 128x128 pixels, batch norms folded, and of one convolution of 32 channels of "
        "that size, all in one interleaved run of each network."
    )
    return table(("network", "bits", "ms", "of float32"), rows, record, note)


if __name__ == "__main__":
    sys.exit(main())
