"""The same network, batch and optimiser in jaxseg and in PyTorch: `python benchmarks/compare_torch.py --out NAME`.

Four programs are timed in one process on one device, one after the other in every round: the step that `jaxseg.train`
compiles; for some networks the same step in plain Flax under `jax.jit` with its default options; PyTorch eager; and
`torch.compile`. PyTorch runs channels-last, with a fused optimiser, and with bfloat16 autocast where jaxseg computes in
bfloat16. The networks are the same functions (see `lib/networks.py`), and the number of parameters is checked. A ratio
is the other program's time divided by jaxseg's: above 1, jaxseg is quicker. In inference jaxseg folds batch norms into
the convolutions, as `jaxseg.predict` does; PyTorch applies them, as a model in `eval()` does. The step of jaxseg also
counts the confusion matrix and computes the norms of gradient and parameters. `benchmarks/operations.py` times single
layers.
"""

import argparse
import gc
import math
import os
import shutil
import statistics
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
from lib.network_programs import KINDS, flax_programs, jaxseg_programs, torch_programs
from lib.networks import NETWORKS, WIDTHS, Network
from lib.timing import (
    at_least,
    bars,
    ceilings,
    device_peak_bytes,
    environment,
    make_parser,
    measured_on,
    prepare_torch,
    ratio_of,
    rows_below,
    save,
    share_gpu,
    time_rounds,
    torch_device,
)

OTHERS = ("flax naive", "torch eager", "torch compile")
PLAIN = (
    "Median milliseconds, peak memory, and the operations a second of the training step, as XLA counts them, beside "
    "those of a large product of matrices in the same dtype."
)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=tuple(NETWORKS),
        default=list(NETWORKS),
        metavar="NAME",
        help=f"of {', '.join(NETWORKS)} (default: all)",
    )
    parser.add_argument(
        "--widths",
        nargs="+",
        type=at_least(1),
        metavar="N",
        help=f"of unet and resunet (default {' '.join(map(str, WIDTHS))})",
    )
    parser.add_argument("--batch", type=at_least(1), default=4, help="images (default 4)")
    parser.add_argument("--size", type=at_least(1), default=128, help="height and width (default 128)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=None, help="default: bfloat16 on a GPU")
    parser.add_argument(
        "--max-rounds",
        type=at_least(0),
        default=0,
        metavar="N",
        help="after --repeats rounds, up to N until half of the ratios lie within 2 %% of their median (default: off)",
    )
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-flax", action="store_true", help="leave plain Flax out")
    parser.add_argument("--max-autotune", action="store_true", help='torch.compile(mode="max-autotune")')
    options = parser.parse_args(argv)
    share_gpu()
    try:
        import torch
    except ImportError:
        print("error: this comparison needs PyTorch: pip install torch", file=sys.stderr)
        return 1
    device = torch_device()
    if options.dtype is None:
        options.dtype = "bfloat16" if device == "cuda" else "float32"
    if options.smallest:
        options.batch, options.size, options.repeats, options.no_compile = 2, 32, 1, True
        options.networks = options.networks if options.networks != list(NETWORKS) else ["unet"]
    record: dict[str, Any] = {
        "environment": environment(),
        "torch": prepare_torch(device)
        | {
            "autocast": options.dtype if options.dtype != "float32" else None,
            "optimizer": "SGD, fused",
            "compile_mode": None if options.no_compile else "max-autotune" if options.max_autotune else "default",
        },
        "batch": options.batch,
        "size": options.size,
        "dtype": options.dtype,
        "widths": options.widths or WIDTHS,
        "ceilings": ceilings(jnp.dtype(options.dtype).type, smallest=options.smallest),
        "networks": {},
    }
    for name in options.networks:
        network = NETWORKS[name].smallest() if options.smallest else NETWORKS[name]
        if options.widths:
            network = network.with_widths(tuple(options.widths))
        record["networks"][name] = measure(network, options, device)
        record["jax_peak_bytes"] = device_peak_bytes()
        print(name, record["networks"][name], file=sys.stderr)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
        last = name == options.networks[-1]
        # After each network, so that one who stops it early has what was measured.
        save(options.out, record, describe(record), lambda figure: draw(figure, record), quiet=not last)
    return 0


def measure(network: Network, options: argparse.Namespace, device: str) -> dict[str, Any]:
    """Returns {"parameters", "train": {program: median seconds}, "infer", "rounds", "memory_bytes", ...}."""
    rng = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size)
    image = rng.normal(size=(*shape, 3)).astype(np.float32)
    label = rng.integers(0, network.num_classes, shape).astype(np.uint8)
    programs, left_out = {"jaxseg": jaxseg_programs(network, image, label, options.dtype)}, {}
    if network.flax and not options.no_flax:
        programs["flax naive"] = flax_programs(network, image, label, options.dtype)
    for name in OTHERS[1:]:
        mode = None if name == "torch eager" else "max-autotune" if options.max_autotune else "default"
        reason = why_no_compile(options, device) if mode else ""
        if not reason:
            try:
                programs[name] = torch_programs(network, image, label, options.dtype, device, mode)
            except (ImportError, RuntimeError) as error:  # whatever torch.compile cannot do shows at its first call
                reason = (str(error).splitlines() or [type(error).__name__])[0]
        if reason:
            left_out[name] = reason
            print(f"{name} is left out: {reason}", file=sys.stderr)
    ours = programs["jaxseg"].parameters
    for name, each in programs.items():
        if each.parameters != ours:
            raise ValueError(
                f"jaxseg has {ours:,} parameters, {name} {each.parameters:,}: these are different networks."
            )
    rounds = {
        kind: time_rounds(
            {name: each.calls[kind] for name, each in programs.items()},
            options.repeats,
            max_rounds=0 if options.smallest else options.max_rounds,
        )
        for kind in KINDS
    }
    return {
        "parameters": ours,
        "flops": programs["jaxseg"].flops,
        **{kind: {name: statistics.median(each) for name, each in rounds[kind].items()} for kind in KINDS},
        "rounds": rounds,
        "memory_bytes": {kind: {name: each.memory[kind] for name, each in programs.items()} for kind in KINDS},
        "compile_seconds": {
            kind: {name: each.compile_seconds[kind] for name, each in programs.items()} for kind in KINDS
        },
        "left_out": left_out,
    }


def why_no_compile(options: argparse.Namespace, device: str) -> str:
    """Returns why torch.compile is not measured; "" where it is."""
    if options.no_compile:
        return "--smallest was given." if options.smallest else "--no-compile was given."
    names = (os.environ["CXX"] if "CXX" in os.environ else "c++", "g++", "clang++")
    if device == "cpu" and not any(map(shutil.which, names)):
        return "torch.compile needs a C++ compiler on a CPU, and there is none."
    return ""


def describe(record: dict[str, Any]) -> str:
    """Returns a table of ratios, then a table of milliseconds and memory."""
    networks = record["networks"].items()
    forms = [form for form in OTHERS if any(form in result["train"] for _, result in networks)]
    heads = [(kind, label, form) for kind, label in zip(KINDS, ("training", "inference")) for form in forms]
    shape = f"batch {record['batch']} of {record['size']}x{record['size']}, {record['dtype']}"
    note = (
        f"The other's time divided by that of jaxseg, {shape}: above 1, jaxseg is quicker. Medians over rounds, in "
        "brackets the middle half of the rounds, then the ratio of the shortest times. Bold: jaxseg is quicker in the "
        "whole middle half."
    )
    if tuple(record["widths"]) != WIDTHS:
        note += f" Widths of the U-Nets: {', '.join(map(str, record['widths']))}."
    if record["torch"]["device"] == "cuda" and record["dtype"] == "float32":
        note += " float32 is multiplied as TensorFloat-32 in both."
    ratios = rows_below(
        ["network", *(f"{label}: {form}" for _, label, form in heads)],
        [[name, *(_ratio_cell(result, kind, form) for kind, _, form in heads)] for name, result in networks],
        note,
    )
    columns = ["network", "parameters"]
    for label in ("training", "inference"):
        columns += [f"{label}: {form}, ms" for form in ("jaxseg", *forms)]
        columns += [f"{label}: {form}, MB" for form in ("jaxseg", "torch eager")]
    columns.append("training: jaxseg, of matmul")
    rows = []
    for name, result in networks:
        row = [name, f"{result['parameters']:,}"]
        for kind in KINDS:
            times, memory = result[kind], result["memory_bytes"][kind]
            row += [f"{1e3 * times[form]:.1f}" if form in times else "" for form in ("jaxseg", *forms)]
            for form in ("jaxseg", "torch eager"):
                known = form in memory and memory[form] is not None
                row.append(f"{memory[form] / 1e6:.0f}" if known else "")
        share = result["flops"] / result["train"]["jaxseg"] / record["ceilings"]["matmul_flops"]
        rows.append([*row, "" if math.isnan(share) else f"{share:.0%}"])
    return ratios + "\n" + rows_below(columns, rows, PLAIN) + f"\n{measured_on(record)}\n"


def _ratio_cell(result: dict[str, Any], kind: str, form: str) -> str:
    """Returns "1.19 (1.15-1.22), 1.18"; "" where the other program was left out."""
    rounds = result["rounds"][kind]
    if form not in rounds:
        return ""
    ratio = ratio_of(rounds[form], rounds["jaxseg"])
    median = f"{ratio.median:.2f}"
    return f"{f'**{median}**' if ratio.low > 1 else median} ({ratio.low:.2f}-{ratio.high:.2f}), {ratio.least:.2f}"


def draw(figure: Any, record: dict[str, Any]) -> None:
    """Bars of the ratios."""
    groups: dict[str, list[float]] = {}
    for kind in KINDS:
        for form in OTHERS:
            groups[f"{kind}, {form}"] = [
                ratio_of(result["rounds"][kind][form], result["rounds"][kind]["jaxseg"]).median
                if form in result[kind]
                else float("nan")
                for result in record["networks"].values()
            ]
    bars(figure, list(record["networks"]), groups, "time, jaxseg = 1", ratios=True)


if __name__ == "__main__":
    sys.exit(main())
