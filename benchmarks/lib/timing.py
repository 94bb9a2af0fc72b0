"""Shared by the benchmarks: interleaved timings, the device's measured rates, and writing the record.

Machines are noisy. Programs that are compared therefore run in one process, one after the other in every round, and the
result is the median over the rounds.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from lib.commands import this_command

from jaxseg.compiler import compiler_options, cpu_name, forms_for, jit
from jaxseg.files import write_text
from jaxseg.run.revision import git_state

PAUSE = 0.05  # seconds
STEADY = 0.02  # half of the ratios lie within this share of their median
VARIABLES = ("XLA_FLAGS", "XLA_PYTHON_CLIENT_PREALLOCATE")
PACKAGES = ("jaxseg", "jax", "jaxlib", "flax", "optax", "numpy", "torch")


def make_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        metavar="NAME",
        help="NAME.json, NAME.md and, where there are bars to draw, NAME.png are written",
    )
    parser.add_argument("--repeats", type=at_least(1), default=7, help="rounds; the median is reported (default 7)")
    parser.add_argument(
        "--smallest",
        action="store_true",
        help="one run of the smallest size, whatever the other options: to see that it works",
    )
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """Returns an argparse type: a whole number of at least `least`."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return int(text)

    number.__name__ = "whole number"  # argparse names it where the text is none
    return number


def interleave(
    cases: Mapping[str, Callable[[], Any]], repeats: int, *, warmup: int = 1, least: float = 0.02
) -> dict[str, float]:
    """Returns {name: median seconds of one call} over the rounds of `time_rounds`, which explains the arguments."""
    return {
        name: statistics.median(values)
        for name, values in time_rounds(cases, repeats, warmup=warmup, least=least).items()
    }


def time_rounds(
    cases: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    max_rounds: int = 0,
    warmup: int = 1,
    least: float = 0.02,
) -> dict[str, list[float]]:
    """Returns {name: seconds of one call in each round}; every round calls each case in turn and waits for its result.

    Args:
        cases: each returns arrays (or nothing) once called; calls are to be independent.
        repeats: rounds.
        max_rounds: after `repeats` rounds, up to this number of rounds until the times are steady: until half of the
            ratios of each case to the first lie within 2 % of their median.
        warmup: calls of each before the first round; compilation happens there.
        least: seconds that a measurement lasts at least; quicker cases are called several times in a row.
    """
    calls = {}
    for name, case in cases.items():
        for _ in range(warmup):
            wait(case())
        begin = time.perf_counter()
        wait(case())
        calls[name] = max(1, round(least / max(time.perf_counter() - begin, 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(max(repeats, max_rounds)):
        if number >= repeats and _steady(seconds):
            break
        # Each round begins with another case, and each case once the threads of the one before have gone to sleep:
        # those of OpenMP, which torch has, and of XLA wait for more work in a loop.
        names = list(cases)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            case = cases[name]
            time.sleep(PAUSE)
            begin = time.perf_counter()
            for _ in range(calls[name] - 1):
                case()
            wait(case())
            seconds[name].append((time.perf_counter() - begin) / calls[name])
    return seconds


class Ratio(NamedTuple):
    """How much longer than ours another program takes: the median over rounds, with the middle half of the rounds.

    Attributes:
        median: median over rounds of the other's time divided by ours in the same round; above 1, ours is quicker.
        low, high: first and third quartile over rounds.
        least: the other's shortest time divided by our shortest time.
    """

    median: float
    low: float
    high: float
    least: float


def ratio_of(other: Sequence[float], ours: Sequence[float]) -> Ratio:
    """Compares the seconds of two programs in the same rounds."""
    ratios = [a / b for a, b in zip(other, ours, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(median, low, high, min(other) / min(ours))


def _steady(seconds: Mapping[str, Sequence[float]]) -> bool:
    """Whether the middle half of the ratios of each case to the first lies within 2 % of their median."""
    ours, *others = seconds.values()
    ratios = [ratio_of(other, ours) for other in others]
    return all(max(each.high / each.median, each.median / each.low) <= 1 + STEADY for each in ratios)


def share_gpu() -> None:
    """Keeps JAX from taking most of a GPU's memory at its start; to be called before anything uses a device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_torch(device: str) -> dict[str, Any]:
    """Sets torch up for speed on "cpu" or "cuda", with the precision of JAX's defaults; returns what was set.

    On a GPU JAX multiplies float32 in TensorFloat-32 by default, so torch is allowed to do the same.
    """
    import torch

    torch.set_num_threads(cores())
    settings: dict[str, Any] = {"device": device, "threads": torch.get_num_threads(), "memory_format": "channels_last"}
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")
        settings |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "cudnn_benchmark": True}
        settings |= {"float32": "TensorFloat-32 in convolutions and matrix products, as JAX's default precision"}
    return settings


def torch_device() -> str:
    """Where torch is to run: on the GPU where JAX does and torch can, else on the CPU."""
    import torch

    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def wait(result: Any) -> None:
    """Waits for arrays of JAX, and for the GPU that a tensor of torch lies on."""
    for leaf in jax.tree.leaves(result):
        if isinstance(leaf, jax.Array):
            leaf.block_until_ready()
        elif type(leaf).__module__.startswith("torch") and leaf.is_cuda:
            import torch

            torch.cuda.synchronize()


def compile_jit(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, float]:
    """Compiles `function` for the shapes of `args` as the library does; returns (the program, seconds)."""
    begin = time.perf_counter()
    program = jit(function, compiler_options(), **options).lower(*args).compile()
    return program, time.perf_counter() - begin


def flops_of(function: Callable[..., Any], *args: Any) -> float:
    """Operations of one call, as XLA counts them in what is lowered for the CPU; NaN where it does not say.

    On whatever device: compiled for a GPU, convolutions are calls of a library, whose operations XLA does not count.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
    with jax.default_device(jax.devices("cpu")[0]):
        return _cost(jax.jit(function).lower(*shapes), "flops")


def bytes_of(program: Any) -> float:
    """Bytes that the operations of a compiled program read and write on each device, by XLA's count."""
    return _cost(program, "bytes accessed")


def _cost(program: Any, what: str) -> float:
    cost = program.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return float(cost[what]) if cost and what in cost else float("nan")


def peak_bytes(program: Any) -> int | None:
    """Device memory that a compiled program needs for arguments, results and what lies between; None if unknown."""
    try:
        memory = program.memory_analysis()
    except (NotImplementedError, RuntimeError):
        return None
    if memory is None:
        return None
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def device_peak_bytes() -> int | None:
    """The most device memory that JAX has held so far in this process; None where the device does not say."""
    stats = jax.devices()[0].memory_stats()
    return int(stats["peak_bytes_in_use"]) if stats and "peak_bytes_in_use" in stats else None


def ceilings(dtype: Any, repeats: int = 5, *, smallest: bool = False) -> dict[str, float]:
    """Measures what the device reaches: FLOP/s of a square matrix product, bytes/s of y = x + 1 over a large array."""
    on_cpu = jax.default_backend() == "cpu"
    n = 256 if smallest else 1536 if on_cpu else 8192
    length = 1 << (20 if smallest else 25 if on_cpu else 29)
    a = jnp.ones((n, n), dtype)
    x = jnp.ones((length,), jnp.float32)
    product, add = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1.0)
    seconds = interleave({"product": lambda: product(a), "add": lambda: add(x)}, repeats)
    return {"matmul_flops": 2.0 * n**3 / seconds["product"], "bytes_per_second": 8.0 * length / seconds["add"]}


def environment() -> dict[str, Any]:
    """What a number depends on: command, commit, device, versions, threads, date."""
    device = jax.devices()[0]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": this_command(),
        "git": git_state(),
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpus": cores(),
        "cpu": cpu_name(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": versions,
        "compiler_options": compiler_options(),
        "convolutions": forms_for(compiler_options()),
        **{name.lower(): os.environ[name] if name in os.environ else "" for name in VARIABLES},
    }


def result_file(out: Path, suffix: str) -> Path:
    """Returns NAME.json, NAME.md or NAME.png; NAME may have dots, such as in jax-0.12."""
    return out.with_name(out.name + suffix)


def save(
    out: Path | None,
    record: Mapping[str, Any],
    text: str,
    draw: Callable[[Any], None] | None = None,
    *,
    quiet: bool = False,
) -> None:
    """Prints the table; with `out` also writes NAME.json, NAME.md and the picture that `draw(figure)` fills."""
    if not quiet:
        print(text, end="", flush=True)
    if out is None:
        return
    write_text(result_file(out, ".json"), json.dumps(record, indent=1) + "\n")
    write_text(result_file(out, ".md"), text)
    if draw is not None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
        draw(figure)
        figure.savefig(result_file(out, ".png"))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], record: Mapping[str, Any], note: str = "") -> str:
    """Returns a Markdown table with what it was measured on below."""
    return rows_below(columns, rows, note) + "\n" + measured_on(record) + "\n"


def rows_below(columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> str:
    """Returns a Markdown table below a note."""
    lines = [note, ""] if note else []
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def measured_on(record: Mapping[str, Any]) -> str:
    """Returns date, device and versions of a record in one sentence."""
    where = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["packages"].items() if version)
    device = f"{where['devices']} x {where['device']}" if where["platform"] != "cpu" else f"{where['cpus']} CPU cores"
    return f"{where['date'][:10]}, {device}, Python {where['python']}, {versions}."


def bars(
    figure: Any, labels: Sequence[str], groups: Mapping[str, Sequence[float]], title: str, *, ratios: bool = False
) -> None:
    """Draws grouped horizontal bars; `ratios` to the time of ours have a line at 1."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    groups = {name: values for name, values in groups.items() if any(value == value for value in values)}  # not all NaN
    axis = figure.subplots()
    height = 0.8 / len(groups)
    for number, (name, values) in enumerate(groups.items()):
        places = [i + (number - (len(groups) - 1) / 2) * height for i in range(len(labels))]
        axis.barh(places, values, height * 0.92, label=name, color=f"C{number}")
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.invert_yaxis()
    if ratios:
        axis.axvline(1.0, color="0.4", linewidth=1, linestyle="--")
        axis.set_xlabel("right of the line jaxseg is quicker", fontsize=8)
    known = [value for values in groups.values() for value in values if value == value]
    axis.set(title=title, xscale="log" if max(known) > 10 * min(known) else "linear")
    if axis.get_xscale() == "log":
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(8))
    axis.grid(axis="x", alpha=0.3)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
