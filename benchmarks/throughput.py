"""Throughput of models over batch, size, precision and strategy: `python benchmarks/throughput.py --out NAME`.

For each combination: images/s and seconds of a training step and of inference, seconds to compile without and with the
persistent cache, memory of the training step as XLA plans it, operations and bytes as XLA counts them, and their share
of the device's measured rates (matrix products, copying). Bytes are those that operations request: where caches serve
some of them, the share can be above the rate of the memory.
"""

import argparse
import itertools
import math
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from lib.timing import (
    at_least,
    bars,
    bytes_of,
    ceilings,
    device_peak_bytes,
    environment,
    flops_of,
    interleave,
    make_parser,
    peak_bytes,
    save,
    share_gpu,
    table,
)

from jaxseg import losses, models, parallel
from jaxseg.compiler import compiler_options, jit
from jaxseg.state import count_parameters, init_state
from jaxseg.step import make_train_step

# What `--models` names, besides any architecture with its defaults.
SMALL = {
    "resunet-small": ("resunet", {"widths": (32, 64, 128, 256)}),
    "unet-small": ("unet", {"widths": (32, 64, 128, 256)}),
    "resunet-smallest": ("resunet", {"widths": (8, 16)}),
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        default=["resunet-small", "unet-small"],
        metavar="NAME",
        choices=(*SMALL, *models.names()),
        help=f"architectures of jaxseg, or {', '.join(SMALL)}",
    )
    parser.add_argument("--batches", nargs="+", type=at_least(1), default=[4], metavar="N", help="images (default 4)")
    parser.add_argument(
        "--sizes", nargs="+", type=at_least(1), default=[128], metavar="PIXELS", help="height and width (default 128)"
    )
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--strategies", nargs="+", choices=("jit", "pmap"), default=["jit"])
    parser.add_argument(
        "--remat",
        nargs="+",
        choices=("off", "on"),
        default=["off"],
        help="whether the backward pass computes stages again, which takes less memory",
    )
    parser.add_argument("--num-classes", type=at_least(1), default=21, help="(default 21)")
    options = parser.parse_args(argv)
    share_gpu()
    if options.smallest:
        options.models, options.batches, options.sizes = ["resunet-smallest"], [jax.device_count()], [16]
        options.repeats = 1
    record: dict[str, Any] = {"environment": environment(), "ceilings": {}, "runs": []}
    for dtype in options.dtypes:
        record["ceilings"][dtype] = ceilings(jnp.dtype(dtype).type, smallest=options.smallest)
    combinations = itertools.product(
        options.models, options.batches, options.sizes, options.dtypes, options.strategies, options.remat
    )
    for name, batch, size, dtype, strategy, remat in combinations:
        run = measure(name, batch, size, dtype, strategy, remat, options)
        # The fake devices of a CPU share its cores.
        devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
        ceiling = record["ceilings"][dtype]
        run["share_of_matmul"] = run["flops_per_second"] / (devices * ceiling["matmul_flops"])
        run["share_of_bandwidth"] = run["bytes"] / run["train_seconds"] / (devices * ceiling["bytes_per_second"])
        record["runs"].append(run)
        record["jax_peak_bytes"] = device_peak_bytes()
        print(run, file=sys.stderr)
        save(options.out, record, describe(record), lambda figure: draw(figure, record), quiet=True)
    print(describe(record), end="")
    return 0


def measure(
    name: str, batch: int, size: int, dtype: str, strategy_name: str, remat: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Returns one row: a training step and inference of one model, compiled as `jaxseg.train` compiles them."""
    architecture, fields = SMALL[name] if name in SMALL else (name, {})
    strategy = parallel.make_strategy(strategy_name, {"--batches": batch})
    fields = fields | {"num_classes": options.num_classes, "dtype": dtype}
    model = models.build(architecture, axis_name=strategy.axis_name, **fields)
    whole = models.build(architecture, **fields)  # for one program over all devices
    tx = optax.sgd(0.01, momentum=0.9)
    loss = losses.make_loss("cross_entropy", num_classes=options.num_classes)
    train_step = make_train_step(model, tx, loss, remat=remat == "on", axis_name=strategy.axis_name)
    init = jax.jit(
        lambda key: init_state(whole, tx, key, (size, size, 3)),
        compiler_options=compiler_options(),
    )
    rng = np.random.default_rng(0)
    host = {
        "image": rng.normal(size=(batch, size, size, 3)).astype(np.float32),
        "label": rng.integers(0, options.num_classes, (batch, size, size)).astype(np.uint8),
    }
    fresh = init(jax.random.key(0))
    flops = flops_of(make_train_step(whole, tx, loss), fresh, host, jax.random.key(1))
    state, key, placed = strategy.put_state(fresh), strategy.put_key(jax.random.key(1)), strategy.put_batch(host)
    del fresh
    parameters = count_parameters(strategy.get_state(state).params)
    program, cold, warm = compile_twice(strategy.compile_train(train_step, remat=remat == "on"), state, placed, key)
    infer = jit(lambda variables, image: whole.apply(variables, image, train=False)[0], compiler_options())
    variables = jax.device_put(jax.device_get(strategy.get_state(state).variables))
    image = jnp.asarray(host["image"])

    def step() -> Any:
        nonlocal state
        state, metrics = program(state, placed, key)
        return metrics["loss"]

    seconds = interleave({"train": step, "infer": lambda: infer(variables, image)}, options.repeats)
    return {
        "model": name,
        "batch": batch,
        "size": size,
        "dtype": dtype,
        "strategy": strategy_name,
        "remat": remat,
        "parameters": parameters,
        "train_seconds": seconds["train"],
        "train_images_per_second": batch / seconds["train"],
        "infer_seconds": seconds["infer"],
        "infer_images_per_second": batch / seconds["infer"],
        "compile_seconds": cold,
        "compile_seconds_cached": warm,
        "memory_bytes": peak_bytes(program),
        "flops": flops,
        "flops_per_second": flops / seconds["train"],
        # XLA counts those of one device's program.
        "bytes": bytes_of(program) * jax.device_count(),
    }


def compile_twice(step: Any, *args: Any) -> tuple[Any, float, float]:
    """Returns the program, the seconds of its compilation into an empty persistent cache, and of one out of it."""
    before = {key: getattr(jax.config, key) for key in _CACHE_KEYS}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for key, value in zip(_CACHE_KEYS, (folder, 0.0, -1)):
                jax.config.update(key, value)
            _reset_cache()
            for _ in range(2):
                jax.clear_caches()
                begin = time.perf_counter()
                program = step.lower(*args).compile()
                seconds.append(time.perf_counter() - begin)
        finally:
            for key, value in before.items():
                jax.config.update(key, value)
            _reset_cache()
    return program, *seconds


_CACHE_KEYS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def _reset_cache() -> None:
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()


def describe(record: dict[str, Any]) -> str:
    """Returns the table."""
    columns = (
        "model",
        "parameters",
        "batch",
        "size",
        "dtype",
        "strategy",
        "remat",
        "train img/s",
        "inference img/s",
        "step, ms",
        "compile, s",
        "compile cached, s",
        "memory, MB",
        "GFLOP",
        "GFLOP/s",
        "of matmul",
        "of copying",
    )
    rows = []
    for r in record["runs"]:
        memory = "" if r["memory_bytes"] is None else f"{r['memory_bytes'] / 1e6:.0f}"
        shares = ("" if math.isnan(r[name]) else f"{r[name]:.0%}" for name in ("share_of_matmul", "share_of_bandwidth"))
        rows.append(
            (
                r["model"],
                f"{r['parameters']:,}",
                r["batch"],
                r["size"],
                r["dtype"],
                r["strategy"],
                r["remat"],
                f"{r['train_images_per_second']:.1f}",
                f"{r['infer_images_per_second']:.1f}",
                f"{1e3 * r['train_seconds']:.0f}",
                f"{r['compile_seconds']:.1f}",
                f"{r['compile_seconds_cached']:.1f}",
                memory,
                f"{r['flops'] / 1e9:.1f}",
                f"{r['flops_per_second'] / 1e9:.0f}",
                *shares,
            )
        )
    measured = "; ".join(
        f"{name}: {c['matmul_flops'] / 1e9:.0f} GFLOP/s of matrix products, {c['bytes_per_second'] / 1e9:.1f} GB/s"
        for name, c in record["ceilings"].items()
    )
    return table(columns, rows, record, f"Ceilings measured in the same run: {measured}.")


def draw(figure: Any, record: dict[str, Any]) -> None:
    """Bars of images/s."""
    runs = record["runs"]
    labels = [
        f"{r['model']} {r['batch']}x{r['size']} {r['dtype']} {r['strategy']}{' remat' * (r['remat'] == 'on')}"
        for r in runs
    ]
    groups = {
        "training": [r["train_images_per_second"] for r in runs],
        "inference": [r["infer_images_per_second"] for r in runs],
    }
    bars(figure, labels, groups, "images/s")


if __name__ == "__main__":
    sys.exit(main())
