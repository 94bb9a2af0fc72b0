"""How quickly data arrive: `python benchmarks/input_pipeline.py --out NAME [--config experiments/X.py:folder ...]`.

First images/s of reading, decoding and resizing without training, for each number of workers; then the share of the
training time that the step waits for its batch. Without --config it makes a folder of PNG files of 512x512 pixels.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from lib.timing import at_least, environment, make_parser, save, table
from PIL import Image

from jaxseg.build import build_parts, make_strategy
from jaxseg.compiler import compiler_options
from jaxseg.config import ConfigDict, command, default_config, update
from jaxseg.config.recipes import for_data
from jaxseg.data import pipeline
from jaxseg.run.data import Problem, load_problem, with_steps_of_epochs


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--config", metavar="FILE[:ARG]", default="", help="whose data and network are taken (default: noise, ResUNet)"
    )
    parser.add_argument("--workers", nargs="+", type=at_least(0), default=[0, 1, 2], metavar="N", help="0: threads")
    parser.add_argument("--batches", type=at_least(1), default=30, help="batches a measurement reads (default 30)")
    parser.add_argument("--steps", type=at_least(1), default=20, help="training steps that are timed (default 20)")
    options, overrides = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if options.config:
            config = command.load_experiment(options.config)
        else:
            config = folder_of_noise(Path(folder), 12 if options.smallest else 96, 48 if options.smallest else 512)
        command.parse_overrides(config, overrides)
        if options.smallest:
            options.workers, options.batches, options.steps = [0], 2, 2
            update(config, batch_size=max(2, jax.device_count()), data__size=(16, 16), model__args={"widths": (4, 8)})
        record: dict[str, Any] = {
            "environment": environment(),
            "source": config.data.source,
            "size": list(config.data.size),
            "batch": config.batch_size,
            "workers": [],
            "training": None,
        }
        problem = load_problem(config)
        for workers in options.workers:
            rate = read(config, problem, workers, options.batches)
            record["workers"].append({"workers": workers, "images_per_second": rate})
            print(record["workers"][-1], file=sys.stderr)
        record["training"] = train(with_steps_of_epochs(config, len(problem.train)), problem, options.steps)
    save(options.out, record, describe(record))
    return 0


def folder_of_noise(path: Path, count: int, size: int) -> ConfigDict:
    """Writes `count` pairs of smooth noise and masks of four classes; returns a configuration for them."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (path / kind).mkdir()
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8))
        small.resize((size, size), Image.Resampling.BILINEAR).save(path / "images" / f"{i:04d}.png")
        mask = Image.fromarray(rng.integers(0, 4, (size // 16, size // 16), dtype=np.uint8))
        mask.resize((size, size), Image.Resampling.NEAREST).save(path / "masks" / f"{i:04d}.png")
    config = for_data(default_config(), "folder")
    update(config, data__dir=str(path), model__name="resunet", model__args={"widths": (16, 32, 64, 128)})
    return config


def make_loader(config: ConfigDict, problem: Problem, workers: int) -> Any:
    """The training loader of a config."""
    return pipeline.make_train_loader(
        problem.train,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=workers,
        prefetch=config.data.prefetch,
        channels=config.data.channels,
        size=config.data.size,
        fit=config.data.fit,
    )


def read(config: ConfigDict, problem: Problem, workers: int, batches: int) -> float:
    """Returns images/s of reading without training, once the loader runs."""
    with make_loader(config, problem, workers) as loader:
        next(loader)
        begin = time.perf_counter()
        for _ in range(batches):
            next(loader)
        return batches * config.batch_size / (time.perf_counter() - begin)


def train(config: ConfigDict, problem: Problem, steps: int) -> dict[str, float]:
    """Returns images/s of training, and the share of its time that passes in waiting for a batch."""
    strategy = make_strategy(config)
    parts = build_parts(config, problem.num_classes, axis_name=strategy.axis_name)
    program = strategy.compile_train(parts.train_step())
    init = jax.jit(parts.init, compiler_options=compiler_options())
    state, key = strategy.put_state(init(jax.random.key(0))), strategy.put_key(jax.random.key(1))
    waited, begin = 0.0, 0.0
    with make_loader(config, problem, config.data.workers) as loader:
        for step in range(steps + 2):
            if step == 2:  # compiled, and the loader is ahead
                jax.block_until_ready(state)
                waited, begin = 0.0, time.perf_counter()
            before = time.perf_counter()
            batch = next(loader)
            waited += time.perf_counter() - before
            placed = strategy.put_batch({name: batch[name] for name in ("image", "label")})
            state, metrics = program(state, placed, key)
            jax.block_until_ready(metrics)  # so that waiting for a batch is not hidden behind the step before
        seconds = time.perf_counter() - begin
    return {"images_per_second": steps * config.batch_size / seconds, "share_waiting": waited / seconds}


def describe(record: dict[str, Any]) -> str:
    """Returns the table."""
    rows = [
        (
            f"reading, {r['workers'] or 'threads'}" + (" workers" if r["workers"] else ""),
            f"{r['images_per_second']:.1f}",
            "",
        )
        for r in record["workers"]
    ]
    training = record["training"]
    rows.append(("training", f"{training['images_per_second']:.1f}", f"{training['share_waiting']:.1%}"))
    size = "x".join(map(str, record["size"]))
    note = f"{record['source']}, batches of {record['batch']} at {size}."
    return table(("what", "images/s", "waiting for data"), rows, record, note)


if __name__ == "__main__":
    sys.exit(command.run_command(main))
