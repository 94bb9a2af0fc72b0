"""All benchmarks in one call: `python benchmarks/suite.py --out benchmarks/results/DEVICE [--minutes 8]`.

First it checks the device: one training step must agree with the CPU's float32 result. Then each benchmark runs in
turn, in its own process, with its share of the remaining time. A benchmark that is stopped has written what it measured
until then. One that no longer fits, or needs packages that are not installed, is reported and does not run.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from lib.timing import environment, share_gpu

from jaxseg import losses, models
from jaxseg.compiler import compiler_options, jit
from jaxseg.state import init_state
from jaxseg.step import make_train_step

HERE = Path(__file__).resolve().parent
# One training step on this device against the CPU's: the largest relative difference of the loss and of the gradient's
# norm. GPUs and TPUs multiply float32 matrices with fewer bits by default.
TOLERANCE = {"cpu": 1e-5, "gpu": 2e-2, "tpu": 5e-2}
LEAST = 20.0  # seconds; a benchmark gets at least these, and with less time left it is not started
DATA = ("grain", "ml_collections", "PIL")
NEEDS = {
    "compare_torch": ("torch",),
    "operations": ("torch",),
    "input_pipeline": DATA,
    "startup": (*DATA, "orbax", "tensorboardX"),
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status: 1 where the device is wrong or a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME-BENCHMARK.json, .md and .png are written")
    parser.add_argument("--minutes", type=_positive, default=8.0, help="time for all of it (default 8)")
    parser.add_argument("--smallest", action="store_true", help="the smallest size of each, once")
    options = parser.parse_args(argv)
    begin = time.monotonic()
    share_gpu()  # this process keeps little of the GPU's memory while the others run, and they inherit it
    error = check_device()
    platform = jax.default_backend()
    print(f"One step on {platform} differs from the CPU's by {error:.1e} (allowed: {TOLERANCE[platform]:.0e}).")
    if not error <= TOLERANCE[platform]:
        print("error: this device gives wrong numbers; nothing is measured on it.", file=sys.stderr)
        return 1
    planned = plan(platform)
    fates = {name: f"left out, it needs {missing}" for name in planned if (missing := missing_for(name))}
    record = {"platform": platform, "difference_from_cpu": error, "allowed": TOLERANCE[platform]}
    record |= {"environment": environment(), "minutes": options.minutes, "benchmarks": fates}
    waiting = [name for name in planned if name not in fates]
    while waiting:
        left = 60 * options.minutes - (time.monotonic() - begin)
        share = planned[waiting[0]].share / sum(planned[name].share for name in waiting)
        name = waiting.pop(0)
        arguments = ["--smallest"] if options.smallest else planned[name].arguments
        fates[name] = run(name, arguments, options.out, min(left, max(LEAST, left * share)))
        if options.out:  # after each, so that nothing is lost when the suite itself is stopped
            options.out.parent.mkdir(parents=True, exist_ok=True)
            Path(f"{options.out}-check.json").write_text(json.dumps(record, indent=1) + "\n")
    for name, fate in fates.items():
        print(f"{name}: {fate}")
    if not any(fate.startswith("done") for fate in fates.values()):
        print(f"error: no benchmark came to its end in {options.minutes:g} minutes.", file=sys.stderr)
        return 1
    return int(any(fate.startswith("failed") for fate in fates.values()))


def _positive(text: str) -> float:
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return float(text)


def run(name: str, arguments: list[str], out: Path | None, limit: float) -> str:
    """Runs one benchmark for at most `limit` seconds; returns what became of it."""
    if limit < LEAST:
        return "left out, the time is used up"
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    if out:
        command += ["--out", f"{out}-{name}"]
    begin = time.monotonic()
    # In the background of a shell the interrupt that ends it would be ignored, by it and by what it starts.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, start_new_session=True)  # what it starts is cut off along with it
    signal.signal(signal.SIGINT, handler)
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"cut off after {limit:.0f} s"
    finally:
        _end(process)
    return f"{'done' if status == 0 else f'failed with status {status}'} in {time.monotonic() - begin:.0f} s"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupts a process and those that it started, which lets them clear away; kills what is left after a while."""
    for number, patience in ((signal.SIGINT, 15.0), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def missing_for(name: str) -> str:
    """Returns the packages that a benchmark needs and that are not installed; "" where there are none."""
    needs = NEEDS[name] if name in NEEDS else ()
    return " and ".join(package for package in needs if importlib.util.find_spec(package) is None)


class Planned(NamedTuple):
    """One benchmark: its part of the time, of which it leaves to the next ones what it does not need; its arguments."""

    share: float
    arguments: list[str]


def plan(platform: str) -> dict[str, Planned]:
    """Returns the benchmarks for a device, the most telling first."""
    if platform == "cpu":
        return {
            "compare_torch": Planned(4, ["--no-compile", "--repeats", "5"]),
            "primitives": Planned(1, ["--repeats", "5"]),
            "throughput": Planned(2, ["--strategies", "jit", "pmap", "--repeats", "3"]),
            "operations": Planned(2, ["--repeats", "3"]),
            "input_pipeline": Planned(1, []),
            "startup": Planned(1, ["--repeats", "1"]),
        }
    # Compilation takes most of the time: plain Flax and float32 are left out, and the networks whose kind differs most
    # come first.
    networks, large = (
        ["--networks", "resunet", "segformer", "deeplabv3plus", "unet"],
        ["--batch", "32", "--size", "512"],
    )
    throughput = ["--models", "resunet-small", "--batches", "32", "--sizes", "512", "--dtypes", "bfloat16"]
    return {
        "device": Planned(3, []),
        "compare_torch": Planned(12, [*networks, *large, "--no-flax", "--repeats", "5"]),
        "operations": Planned(2, ["--networks", "resunet", "segformer", *large, "--repeats", "3"]),
        "primitives": Planned(1, ["--batch", "16", "--size", "256", "--dtype", "bfloat16", "--repeats", "3"]),
        "throughput": Planned(1, throughput),
        "input_pipeline": Planned(0.5, ["--workers", "0", "4", "8"]),
        "startup": Planned(0.5, ["--repeats", "1"]),
    }


def check_device() -> float:
    """Returns the largest relative difference of one small training step between this device and the CPU."""
    results: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(2, 32, 32, 3)).astype(np.float32),
        "label": rng.integers(0, 5, (2, 32, 32)).astype(np.uint8),
    }
    model, tx = models.build("resunet", num_classes=5, widths=(8, 16, 32)), optax.sgd(0.01)
    step = make_train_step(model, tx, losses.make_loss("cross_entropy", num_classes=5))
    host = jax.devices("cpu")[0]
    with jax.default_device(host):
        state = jax.device_get(jax.jit(lambda key: init_state(model, tx, key, (32, 32, 3)))(jax.random.key(0)))
    # The reference is XLA's CPU code as it comes, the other what is compiled for training.
    for device, options in ((host, {}), (jax.devices()[0], compiler_options())):
        with jax.default_device(device):
            program = jit(step, options)
            _, metrics = program(state, batch, jax.random.key(1))
            results.append({name: float(metrics[name]) for name in ("loss", "grad_norm")})
    cpu, device_ = results
    return max(abs(cpu[name] - device_[name]) / abs(cpu[name]) for name in cpu)


if __name__ == "__main__":
    sys.exit(main())
