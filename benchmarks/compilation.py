"""How long XLA compiles each network: `python benchmarks/compilation.py --out NAME [--names X ...]`.

The training step of every experiment's full-size network (its `voc` variant: 21 classes), compiled with an empty cache
for the shapes alone: no image is read and nothing runs. Each network has a process of its own, which is ended after
`--limit` seconds. The CPU time, the sum over all cores, depends less on other programs that run at the same time. The
files are written after each network.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
from lib.timing import at_least, environment, make_parser, save, table

from jaxseg.build import build_parts, make_strategy
from jaxseg.config import command, update

ROOT = Path(__file__).resolve().parent.parent
CLASSES = 21
PARTS = ("trace", "lower", "compile")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--names", nargs="*", default=[], metavar="NAME", help="experiments (default: all)")
    parser.add_argument("--batch", type=at_least(1), default=8, help="images (default 8)")
    parser.add_argument("--size", type=at_least(1), default=256, help="height and width (default 256)")
    parser.add_argument("--limit", type=at_least(1), default=300, help="seconds for one network (default 300)")
    parser.add_argument("--only", metavar="NAME", help=argparse.SUPPRESS)  # what a process of its own measures
    options = parser.parse_args(argv)
    if options.smallest:
        options.names, options.batch, options.size = options.names or ["encoder_decoder"], jax.device_count(), 32
    if options.only:
        print(json.dumps(compile_step(options.only, options.batch, options.size)))
        return 0
    record: dict[str, Any] = {
        "environment": environment(),
        "batch": options.batch,
        "size": options.size,
        "limit": options.limit,
        "networks": {},
    }
    for name in options.names or sorted(path.stem for path in (ROOT / "experiments").glob("*.py")):
        record["networks"][name] = in_its_own_process(name, options)
        print(name, record["networks"][name], file=sys.stderr)
        save(options.out, record, describe(record), quiet=True)
    save(options.out, record, describe(record))
    return 0


def in_its_own_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns what `compile_step` measures in a new process; {"error": ...} if it fails or takes too long."""
    words = ["--only", name, "--batch", str(options.batch), "--size", str(options.size)]
    variables = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    try:
        done = subprocess.run(
            [sys.executable, __file__, *words], capture_output=True, text=True, timeout=options.limit, env=variables
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not compiled after {options.limit} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def compile_step(name: str, batch: int, size: int) -> dict[str, float]:
    """Returns the seconds of tracing, lowering and compiling the training step of an experiment, and their CPU time."""
    config = command.load_experiment(str(ROOT / "experiments" / f"{name}.py") + ":voc")
    update(config, data__size=(size, size), batch_size=batch)
    if config.augment.crop:
        update(config, augment__crop=(size, size))
    strategy = make_strategy(config)
    parts = build_parts(config, CLASSES, axis_name=strategy.axis_name)
    program = strategy.compile_train(parts.train_step())
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(parts.init, key)
    shape = (batch, size, size)
    images = {
        "image": jax.ShapeDtypeStruct((*shape, config.data.channels), "uint8"),
        "label": jax.ShapeDtypeStruct(shape, "uint8"),
    }
    seconds = {}
    before = time.process_time()
    begin = time.perf_counter()
    traced = program.trace(state, images, key)
    seconds["trace"] = time.perf_counter() - begin
    begin = time.perf_counter()
    lowered = traced.lower()
    seconds["lower"] = time.perf_counter() - begin
    begin = time.perf_counter()
    lowered.compile()
    seconds["compile"] = time.perf_counter() - begin
    seconds["cpu"] = time.process_time() - before
    return seconds


def describe(record: dict[str, Any]) -> str:
    """Returns the table, the network that takes longest first."""
    found = sorted(record["networks"].items(), key=lambda item: -total(item[1]))
    rows = [
        (f"`{name}`", each["error"], "", "", "", "")
        if "error" in each
        else (f"`{name}`", f"{total(each):.1f}", *(f"{each[part]:.1f}" for part in PARTS), f"{each['cpu']:.1f}")
        for name, each in found
    ]
    note = (
        "Seconds until the training step of each experiment's full-size network is compiled, with an empty cache, "
        f"{record['batch']} images of {record['size']}x{record['size']}."
    )
    columns = ("experiment", "all, s", "tracing", "lowering", "compiling", "CPU time, s")
    return table(columns, rows, record, note)


def total(times: dict[str, Any]) -> float:
    """Returns the sum of the seconds; infinity if they were not measured."""
    return float("inf") if "error" in times else sum(times[part] for part in PARTS)


if __name__ == "__main__":
    sys.exit(command.run_command(main))
