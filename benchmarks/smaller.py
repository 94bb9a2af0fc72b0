"""What do smaller networks score, hold and take? `python benchmarks/smaller.py --out NAME` trains, prunes and shrinks.

One U-Net trains on the shapes data with each seed. Channels of it are removed by each criterion and the rest is
fine-tuned, with and without distillation from the large network; networks of the same sizes train from scratch for as
many steps in all; and single weights of the large network are pruned by magnitude in the same steps of fine-tuning. All
are scored on the validation split. The runs are written as they end, so that a call that was cut off resumes.
`--time-only` measures the times of NAME.json again and trains nothing.
"""

import argparse
import gzip
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lib.timing import at_least, compile_jit, environment, flops_of, make_parser, ratio_of, result_file, save, table
from lib.timing import time_rounds as rounds_of

from jaxseg import compiler, metrics
from jaxseg.build import build_parts, make_strategy
from jaxseg.config import ConfigDict, update
from jaxseg.config.command import run_command
from jaxseg.config.recipes import ablation_recipe
from jaxseg.data import make_eval_loader, make_source, make_train_loader
from jaxseg.distillation import Teacher
from jaxseg.inference.score import score
from jaxseg.pruning import masks, removal
from jaxseg.pruning.channels import channel_groups
from jaxseg.run.shrinking import gradients_of
from jaxseg.state import count_parameters, first_state
from jaxseg.sweep.statistics import spread
from jaxseg.types import PyTree

SHARES = (0.75, 0.5, 0.25)
CRITERIA = ("l1", "scale", "taylor", "random")
SPARSITIES = (0.5, 0.8, 0.9, 0.95)
COLUMNS = ("network", "parameters", "million operations", "time to large", "least", "gzip kB", "mIoU before", "mIoU")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=at_least(1), default=3, metavar="N", help="seeds 0 to N - 1 (default 3)")
    parser.add_argument("--steps", type=at_least(4), default=500, metavar="N", help="of the large network")
    parser.add_argument("--more", type=at_least(4), default=150, metavar="N", help="steps of fine-tuning")
    parser.add_argument("--widths", default="8,16,32", metavar="N,...", help="of the large network")
    parser.add_argument("--shares", default=",".join(map(str, SHARES)), metavar="X,...", help="of channels kept")
    parser.add_argument("--criteria", default=",".join(CRITERIA), metavar="NAME,...", help="which channels are kept")
    parser.add_argument("--sparsities", default=",".join(map(str, SPARSITIES)), metavar="X,...", help="of the weights")
    parser.add_argument("--time-only", action="store_true", help="measure the times of NAME.json again, train nothing")
    options = parser.parse_args(argv)
    return run_command(lambda: _measure(parser, options, list(sys.argv[1:] if argv is None else argv)))


def _measure(parser: argparse.ArgumentParser, options: argparse.Namespace, words: Sequence[str]) -> int:
    widths, size, images = tuple(map(int, options.widths.split(","))), (32, 32), 2048
    options.shares, options.sparsities = (_numbers(each) for each in (options.shares, options.sparsities))
    options.criteria = tuple(options.criteria.split(","))
    if options.smallest:
        widths, size, images = (4, 8), (16, 16), 8
        options.steps, options.more, options.seeds, options.repeats = 4, 4, 1, 1
        options.shares, options.criteria, options.sparsities = (0.5,), ("l1",), (0.5,)
    else:
        compiler.keep_programs()
    settings = {"widths": widths, "size": size, "images": images, "steps": options.steps, "more": options.more}
    record = _start(options.out, json.loads(json.dumps(settings)), words)
    study = Study(widths, size, images, options.steps, options.more)
    study.shares, study.criteria, study.sparsities = options.shares, options.criteria, options.sparsities
    if not options.time_only:
        for seed in range(options.seeds):
            study.all_of(seed, record["runs"], lambda: save(options.out, record, _table(record), quiet=True))
    elif not record["runs"]:
        parser.error("--time-only needs --out NAME of a measurement with these settings")
    shares = (1.0, *study.shares)
    record["networks"] = {f"{share:g}": study.cost(share) for share in shares}
    record["times"] = study.times(shares, options.repeats)
    record["timed"] = environment()
    save(options.out, record, _table(record), None if options.smallest else lambda figure: _draw(figure, record))
    return 0


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def _start(out: Path | None, settings: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Returns the record of a former call with the same settings, or an empty one."""
    record: dict[str, Any] = {
        "command": f"python benchmarks/smaller.py {shlex.join(words)}",
        "environment": environment(),
        "settings": dict(settings),
        "runs": [],
        "networks": {},
        "times": {},
    }
    file = None if out is None else result_file(out, ".json")
    if file is not None and file.is_file():
        former = json.loads(file.read_text(encoding="utf-8"))
        if former["settings"] == record["settings"]:
            record |= {name: former[name] for name in ("command", "environment", "runs", "networks", "times")}
    return record


class Study:
    """The networks of all sizes, their data and their compiled programs, which all seeds share."""

    def __init__(self, widths: Sequence[int], size: tuple[int, int], images: int, steps: int, more: int):
        self.widths, self.size, self.images, self.steps, self.more = tuple(widths), size, images, steps, more
        self.shares, self.criteria, self.sparsities = SHARES, CRITERIA, SPARSITIES  # what `all_of` trains
        self.program = cache(self._program)
        self.groups = cache(
            lambda share: channel_groups(self.program(1.0).parts.model, self.program(share).parts.model, (*size, 3))
        )

    def config(self, share: float, **values: Any) -> ConfigDict:
        widths = tuple(max(1, round(share * width)) for width in self.widths)
        config = ablation_recipe(None, "unet", {"widths": widths, "dropout": 0.0})
        update(config, data__size=self.size, data__shapes_train=self.images, batch_size=8, schedule__warmup=2)
        update(config, optimizer__learning_rate=1e-2, steps=self.steps)
        update(config, **values)
        return config

    def _program(self, share: float, distilled: bool = False, **values: Any) -> "Program":
        if distilled:
            values |= {"distill__teacher": "large", "distill__kind": "channel", "distill__temperature": 2.0}
        return Program(self.config(share, **values), share, self.program(1.0).parts if distilled else None)

    def all_of(self, seed: int, runs: list[dict[str, Any]], write: Callable[[], None]) -> None:
        """Trains everything that `runs` lacks of a seed, and adds it there."""
        done = {run["variant"] for run in runs if run["seed"] == seed}
        large: list[PyTree] = []

        def trained() -> PyTree:
            if not large:
                large.append(self.program(1.0).run(seed))
            return large[0]

        def add(variant: str, network: Callable[[], tuple["Program", PyTree, dict[str, Any]]]) -> None:
            if variant in done:
                return
            program, variables, more = network()
            run = {"variant": variant, "seed": seed, **self.program(program.share).score(variables), **more}
            runs.append(run | {"gzip_bytes": packed(variables)})
            print(runs[-1], file=sys.stderr, flush=True)
            write()

        fine = {"steps": self.more, "optimizer__learning_rate": 5e-3}
        add("large", lambda: (self.program(1.0), trained(), {}))
        add("large, fine-tuned", lambda: self._tuned(1.0, trained(), seed, fine))
        for share in self.shares:
            add(f"{share:g}, from scratch", lambda share=share: self._scratch(share, seed))
            for criterion in self.criteria:
                add(
                    f"{share:g} of the channels, {criterion}",
                    lambda share=share, criterion=criterion: self._shrunk(share, criterion, trained(), seed, fine),
                )
            add(
                f"{share:g} of the channels, l1, distilled",
                lambda share=share: self._shrunk(share, "l1", trained(), seed, {**fine, "distilled": True}),
            )
        for sparsity in self.sparsities:
            keys = {**fine, "prune__sparsity": sparsity, "prune__every": 5}
            add(f"{sparsity:g} of the weights 0", lambda keys=keys: self._tuned(1.0, trained(), seed, keys))

    def _tuned(
        self, share: float, variables: PyTree, seed: int, keys: Mapping[str, Any], teacher: PyTree = None
    ) -> tuple["Program", PyTree, dict[str, Any]]:
        program = self.program(share, **keys)
        after = program.run(seed + 1000, variables, teacher)  # other batches than those of the large network
        pruning = masks.pruning_of(program.config, masks.EVERYTHING)
        zeros = {} if pruning is None else {"sparsity": masks.zero_share(after["params"], pruning)}
        return program, after, zeros

    def _shrunk(
        self, share: float, criterion: str, large: PyTree, seed: int, keys: Mapping[str, Any]
    ) -> tuple["Program", PyTree, dict[str, Any]]:
        groups = self.groups(share)
        kept = removal.kept_channels(groups, self._criterion(criterion, large, seed))
        small = removal.without_channels(large, groups, kept)
        before = self.program(share).score(small)["mean_iou"]
        teacher = large if "distilled" in keys else None
        program, after, _ = self._tuned(share, small, seed, keys, teacher)
        return program, after, {"before": before}

    def _criterion(self, criterion: str, large: PyTree, seed: int) -> removal.Score:
        program = self.program(1.0)
        if criterion == "taylor":
            batches = program.batches(seed)
            with batches as loader:
                return removal.by_taylor(
                    large, list(gradients_of(program.parts, large, (next(loader) for _ in range(8))))
                )
        return {
            "l1": removal.by_norm(large),
            "scale": removal.by_scale(large),
            "random": removal.by_chance(seed),
        }[criterion]

    def _scratch(self, share: float, seed: int) -> tuple["Program", PyTree, dict[str, Any]]:
        program = self.program(share, steps=self.steps + self.more)
        return program, program.run(seed), {}

    def cost(self, share: float) -> dict[str, float]:
        """Returns the parameters of a network, and its operations for one image as XLA counts them."""
        model, variables = self.program(share).parts.model, self.program(share).drawn
        image = jnp.zeros((1, *self.size, 3))
        flops = flops_of(lambda v, x: model.apply(v, x, train=False)[0], variables, image)
        return {"parameters": count_parameters(variables["params"]), "flops": flops}

    def times(self, shares: Sequence[float], repeats: int) -> dict[str, dict[str, float]]:
        """Returns for each network, and for the large one with 95 % zeros, milliseconds of 16 images and the ratio."""
        image = jax.random.normal(jax.random.key(0), (16, 2 * self.size[0], 2 * self.size[1], 3))
        cases = {}
        for share in shares:
            model, variables = self.program(share).parts.model, self.program(share).drawn
            program, _ = compile_jit(lambda v, x, model=model: model.apply(v, x, train=False)[0], variables, image)
            cases[f"{share:g}"] = lambda program=program, variables=variables: program(variables, image)
            if share == 1:
                zeros = jax.tree.map(
                    lambda w: jnp.where(jax.random.uniform(jax.random.key(1), w.shape) < 0.95, 0, w),
                    variables["params"],
                )
                sparse = {**variables, "params": zeros}
                cases["1, 95 % zeros"] = lambda program=program, sparse=sparse: program(sparse, image)
        seconds = rounds_of(cases, repeats, warmup=3)
        ratios = {name: ratio_of(seconds[name], seconds["1"]) for name in cases}
        return {
            name: {
                "median_ms": 1e3 * float(np.median(seconds[name])),
                "least_ms": 1e3 * min(seconds[name]),
                **ratios[name]._asdict(),
            }
            for name in cases
        }


class Program:
    """One network with its recipe: its data and its compiled steps."""

    def __init__(self, config: ConfigDict, share: float, teacher: Any = None):
        self.config, self.share = config, share
        self.train, self.val = (make_source(config, split) for split in ("train", "val"))
        self.strategy = make_strategy(config)
        parts = build_parts(config, len(self.train.info.classes), axis_name=self.strategy.axis_name)
        if teacher is not None:  # its variables are an argument of the step
            shapes = jax.eval_shape(teacher.init, jax.random.key(0)).variables
            parts = replace(parts, teacher=Teacher(teacher.model, shapes))
        self.parts = parts
        constants = () if teacher is None else (parts.constants[0],)
        self.step = jax.jit(parts.train_step(), donate_argnums=0, compiler_options=compiler.compiler_options())
        self.taught = bool(constants)

    @cached_property
    def drawn(self) -> PyTree:
        """Variables of the network, any positive numbers: what it computes of them is not looked at."""
        state = jax.eval_shape(self.parts.init, jax.random.key(0))
        rng = np.random.default_rng(0)
        shapes = {"params": state.params, "batch_stats": state.batch_stats}
        return jax.tree.map(lambda x: jnp.asarray(0.1 * rng.random(x.shape), jnp.float32), shapes)

    @cached_property
    def eval_step(self) -> Any:
        return self.strategy.compile_eval(self.parts.eval_step())

    def batches(self, seed: int) -> Any:
        sizes = {"size": tuple(self.config.data.size), "fit": self.config.data.fit}
        channels = self.config.data.channels
        return make_train_loader(self.train, batch_size=self.config.batch_size, seed=seed, channels=channels, **sizes)

    def run(self, seed: int, variables: PyTree = None, teacher: PyTree = None) -> PyTree:
        """Trains with a seed, from these variables or from random ones; returns the variables that are evaluated."""
        if variables is None:
            state = self.parts.init(jax.random.key(seed))
        else:
            copied = jax.tree.map(jnp.array, variables)
            state = first_state(copied, self.parts.optimiser, ema=self.config.ema.decay > 0)
        state = jax.tree.map(jnp.array, state)  # no two parts of it may share memory, since the step donates them
        key = jax.random.fold_in(jax.random.key(seed), 1)
        constants = (teacher,) if self.taught else ()
        with self.batches(seed) as batches:
            for _ in range(self.config.steps):
                batch = next(batches)
                state, _ = self.step(state, {name: batch[name] for name in ("image", "label")}, key, *constants)
        return jax.tree.map(np.asarray, self.parts.deployed(state).variables)

    def score(self, variables: PyTree) -> dict[str, float]:
        """Returns the scores of the validation split."""
        config = self.config
        state = first_state(jax.tree.map(jnp.asarray, variables), self.parts.optimiser)
        state = state.replace(opt_state=())
        size = tuple(config.data.size)
        loader = make_eval_loader(self.val, batch_size=config.eval.batch_size, size=size, fit=config.data.fit)
        state = self.strategy.put_state(state)
        result = score(self.eval_step, state, loader, loss=self.parts.loss, strategy=self.strategy)
        scores = metrics.scores(result.confusion)
        return {"mean_iou": scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy}


def packed(variables: PyTree) -> int:
    """Returns the bytes of the parameters as float32 after gzip."""
    return len(
        gzip.compress(b"".join(np.asarray(x, np.float32).tobytes() for x in jax.tree.leaves(variables["params"])))
    )


def _share_of(variant: str) -> str:
    """Returns which network a variant has: "1" is the large one."""
    return "1" if variant.startswith("large") or variant.endswith("weights 0") else variant.split(",")[0].split(" ")[0]


def _rows(record: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    rows = []
    for variant in dict.fromkeys(run["variant"] for run in record["runs"]):
        runs = [run for run in record["runs"] if run["variant"] == variant]
        share = _share_of(variant)
        cost = record["networks"][share] if share in record["networks"] else {"parameters": 0, "flops": float("nan")}
        timed = "1, 95 % zeros" if variant == "0.95 of the weights 0" else share
        time = record["times"][timed] if timed in record["times"] else {"median": float("nan"), "least": float("nan")}
        before = _spread([run["before"] for run in runs]) if "before" in runs[0] else ""
        rows.append(
            (
                variant,
                f"{cost['parameters']:,}",
                f"{cost['flops'] / 1e6:.2f}",
                f"{time['median']:.2f}",
                f"{time['least']:.2f}",
                f"{np.mean([run['gzip_bytes'] for run in runs]) / 1e3:.0f}",
                before,
                _spread([run["mean_iou"] for run in runs]),
            )
        )
    return rows


def _table(record: Mapping[str, Any]) -> str:
    s = record["settings"]
    seeds = sorted({run["seed"] for run in record["runs"]})
    large = record["times"]["1"]["median_ms"] if record["times"] else float("nan")
    (h, w), steps, more = s["size"], s["steps"], s["more"]
    widths = ", ".join(map(str, s["widths"]))
    note = (
        f"U-Net of widths {widths} on {s['images']} images of the shapes data, {h}x{w} pixels, batches of 8: {steps} "
        f"steps, then {more} of fine-tuning; from scratch {steps + more}. Seeds {', '.join(map(str, seeds))}; mIoU of "
        "the validation split in per cent, mean ± standard deviation. Operations of one image; time of 16 images of "
        f"{2 * h}x{2 * w} pixels, median and least, as a share of that of the large network ({large:.1f} ms), in turn "
        'in one process. The rows "weights 0" have the network, the operations and the time of the large one; only '
        "that of 95 % was timed with its zeros."
    )
    return table(COLUMNS, _rows(record), record, note)


def _spread(values: Sequence[float]) -> str:
    found = spread(values)
    return f"{100 * found.mean:.1f} ± {100 * found.deviation:.1f}" if found.n > 1 else f"{100 * found.mean:.1f}"


_LINES = {
    "from scratch": "{}, from scratch",
    **{criterion: f"{{}} of the channels, {criterion}" for criterion in CRITERIA},
    "l1, distilled": "{} of the channels, l1, distilled",
}


def _draw(figure: Any, record: Mapping[str, Any]) -> None:
    """mIoU against parameters, operations and time; the pruned weights by what is not 0."""
    from matplotlib.ticker import NullLocator

    means = {
        variant: 100 * float(np.mean([run["mean_iou"] for run in record["runs"] if run["variant"] == variant]))
        for variant in dict.fromkeys(run["variant"] for run in record["runs"])
    }
    networks, times = record["networks"], record["times"]
    axes = figure.subplots(1, 3, sharey=True)
    kinds = (
        ("parameters (weights: not 0)", lambda share: networks[share]["parameters"]),
        ("million operations an image", lambda share: networks[share]["flops"] / 1e6),
        ("time as a share of the large network's", lambda share: times[share]["median"]),
    )
    for axis, (label, of) in zip(axes, kinds):
        for number, (name, pattern) in enumerate(_LINES.items()):
            known = [share for share in SHARES if pattern.format(f"{share:g}") in means]
            points = [(of(f"{share:g}"), means[pattern.format(f"{share:g}")]) for share in known]
            if points:
                axis.plot(*zip(*sorted(points)), "o-", label=name, color=f"C{number}")
        axis.plot([of("1")], [means["large, fine-tuned"]], "k*", label="large, fine-tuned")
        weights = [(1 - s, means[f"{s:g} of the weights 0"]) for s in SPARSITIES if f"{s:g} of the weights 0" in means]
        whole = [(left * of("1") if axis is axes[0] else of("1"), y) for left, y in weights]
        if whole:
            axis.plot(*zip(*whole), "x--", label="weights by magnitude", color="0.4")
        axis.set(xlabel=label, xscale="log")
        marks = [of(share) for share in networks]
        axis.set_xticks(marks, [f"{mark:,.0f}" if mark >= 100 else f"{mark:.2g}" for mark in marks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mIoU, %")
    axes[1].legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    sys.exit(main())
