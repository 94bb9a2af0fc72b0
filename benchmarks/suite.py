"""All benchmarks in one call: `python benchmarks/suite.py --out benchmarks/results/DEVICE [--minutes 8]`.

First it checks the device: one training step must agree with the CPU's float32 result. Then each benchmark runs in
turn, in a process of its own, with what is left of the time; what no longer fits is said, not run.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxseg import losses, models, parallel
from jaxseg.state import init_state
from jaxseg.step import make_train_step

HERE = Path(__file__).resolve().parent
# One training step on this device against the CPU's: the largest relative difference of the loss and of the gradient's
# norm. GPUs and TPUs multiply float32 matrices with fewer bits unless told otherwise.
TOLERANCE = {"cpu": 1e-5, "gpu": 2e-2, "tpu": 5e-2}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status: 1 where the device is wrong or a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME-BENCHMARK.json, .md and .png are written")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all of it (default 8)")
    parser.add_argument("--smallest", action="store_true", help="the smallest size of each, once")
    options = parser.parse_args(argv)
    begin = time.monotonic()
    error = check_device()
    platform = jax.default_backend()
    print(f"One step on {platform} differs from the CPU's by {error:.1e} (allowed: {TOLERANCE[platform]:.0e}).")
    if not error <= TOLERANCE[platform]:
        print("error: this device gives wrong numbers; nothing is measured on it.", file=sys.stderr)
        return 1
    failed = False
    for name, arguments in plan(platform).items():
        left = 60 * options.minutes - (time.monotonic() - begin)
        if left < 20:
            print(f"{name}: left out, the time is used up")
            continue
        command = [sys.executable, str(HERE / f"{name}.py"), *(["--smallest"] if options.smallest else arguments)]
        if options.out:
            command += ["--out", f"{options.out}-{name}"]
        try:
            done = subprocess.run(command, timeout=left, check=False)
            failed |= done.returncode != 0
        except subprocess.TimeoutExpired:
            print(f"{name}: cut off after {left:.0f} s, the time is used up")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"platform": platform, "difference_from_cpu": error, "allowed": TOLERANCE[platform]}
        Path(f"{options.out}-check.json").write_text(json.dumps(record, indent=1) + "\n")
    return int(failed)


def plan(platform: str) -> dict[str, list[str]]:
    """Returns {benchmark: arguments} for a device, the most telling first."""
    if platform == "cpu":
        return {
            "compare_torch": ["--no-compile", "--repeats", "5"],
            "primitives": ["--repeats", "5"],
            "throughput": ["--strategies", "jit", "pmap", "--repeats", "3"],
            "input_pipeline": [],
        }
    return {
        "compare_torch": ["--batch", "32", "--size", "512"],
        "throughput": ["--batches", "8", "32", "--sizes", "512", "--dtypes", "float32", "bfloat16"],
        "primitives": ["--batch", "16", "--size", "256", "--dtype", "bfloat16"],
        "input_pipeline": ["--workers", "0", "4", "8"],
    }


def check_device() -> float:
    """Returns the largest relative difference of one small training step between this device and the CPU."""
    results: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(2, 32, 32, 3)).astype(np.float32),
        "label": rng.integers(0, 5, (2, 32, 32)).astype(np.uint8),
    }
    for device in (jax.devices("cpu")[0], jax.devices()[0]):
        with jax.default_device(device):
            model = models.build("resunet", num_classes=5, widths=(8, 16, 32))
            tx = optax.sgd(0.01)
            step = jax.jit(make_train_step(model, tx, losses.make_loss("cross_entropy", num_classes=5)))
            if device.platform == jax.default_backend():
                step = jax.jit(step, compiler_options=parallel.compiler_options())
            state = jax.jit(lambda key, m=model, t=tx: init_state(m, t, key, (32, 32, 3)))(jax.random.key(0))
            _, metrics = step(state, batch, jax.random.key(1))
            results.append({name: float(metrics[name]) for name in ("loss", "grad_norm")})
    cpu, device_ = results
    return max(abs(cpu[name] - device_[name]) / abs(cpu[name]) for name in cpu)


if __name__ == "__main__":
    sys.exit(main())
