"""What a device holds and exchanges over a mesh of eight devices: `python benchmarks/scaling.py --out NAME`.

Training steps are compiled for eight devices, from shapes alone, and none runs: the programs say what a device keeps,
how much memory a step needs beside that, and what the devices exchange. On a CPU the eight devices are made up. Three
tables:

- memory: networks with a batch of eight images over each mesh, and on one device;
- huge: one image of 8192x8192 pixels, a U-Net with `remat`, its rows over 1, 2, 4 and 8 devices;
- paper: the exchanges of the programs, extrapolated to more devices, beside the nominal rates of accelerators.

The plans are those of XLA's compiler for this backend. On a CPU, sums of gradients stay sums over all devices where a
GPU's compiler makes a reduction and scatter of them.
"""

import argparse
import os
import sys
import time
from typing import Any

import jax
import optax
from lib.exchanged import exchanges
from lib.networks import NETWORKS
from lib.timing import environment, make_parser, measured_on, rows_below, save

from jaxseg import losses
from jaxseg.config.command import run_command
from jaxseg.errors import ConfigError
from jaxseg.mesh import Axes
from jaxseg.parallel import JitStrategy, make_strategy
from jaxseg.state import init_state
from jaxseg.step import make_train_step

DEVICES = 8
BATCH = 8
# The size of the images of each network.
SIZES = {"unet": (512, 512), "deeplabv3plus": (512, 1024), "segformer": (1024, 1024)}
MESHES = (Axes(8, 1, 1), Axes(1, 8, 1), Axes(1, 1, 8), Axes(2, 2, 2))
HUGE, SPACES = 8192, (1, 2, 4, 8)
KINDS = ("all-reduce", "all-gather", "collective-permute", "all-to-all")
PARTS = ("memory", "huge", "paper")

# Nominal rates of an accelerator (H100 SXM): operations a second in bfloat16 without sparsity, of which a network
# reaches a share, and bytes a second in each direction: NVLink 4 between the 8 devices of a host, and NDR InfiniBand
# with one adapter a device between hosts.
FLOPS, SHARE = 989e12, 0.4
NVLINK, INFINIBAND = 450e9, 50e9
COUNTS = (8, 64, 512)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    options = parser.parse_args(argv)
    flag = "--xla_force_host_platform_device_count"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}={DEVICES}".strip()
    if jax.device_count() != DEVICES:
        raise ConfigError(f"This benchmark is for {DEVICES} devices, and there are {jax.device_count()}.")
    record: dict[str, Any] = {"environment": environment(), "parts": options.parts, "networks": {}, "huge": []}
    names = ["unet"] if options.smallest else list(SIZES)
    for name in names if {"memory", "paper"} & set(options.parts) else ():
        meshes = MESHES[2:3] if options.smallest else (None, *MESHES)
        size = (32, 32) if options.smallest else SIZES[name]
        record["networks"][name] = [compiled(name, axes, BATCH, size, options) for axes in meshes]
    if "huge" in options.parts:
        side, spaces = (64, SPACES[1:2]) if options.smallest else (HUGE, SPACES)
        record["huge"] = [
            compiled("unet", Axes(1, 1, n), 1, (side, side), options, remat=True, devices=n) for n in spaces
        ]
    save(options.out, record, describe(record))
    return 0


def compiled(
    name: str,
    axes: Axes | None,
    batch: int,
    size: tuple[int, int],
    options: argparse.Namespace,
    *,
    remat: bool = False,
    devices: int | None = None,
) -> dict[str, Any]:
    """Returns what the compiled step of a network says of each device: bytes and operations.

    Args:
        name: of the network.
        axes: the mesh; None: one device.
        batch: images a step, over all devices.
        size: height and width.
        options: of the command line.
        remat: whether the stages are computed a second time.
        devices: how many of the devices take part; None: all, or one without a mesh.
    """
    network = NETWORKS[name].smallest() if options.smallest else NETWORKS[name]
    model, loss, tx = (
        network.ours(),
        losses.make_loss("cross_entropy", num_classes=network.num_classes),
        optax.adam(1e-3),
    )
    among = jax.devices()[: 1 if axes is None else devices]
    strategy = make_strategy("jit", {}, among, {"xla_backend_optimization_level": 0}, axes or Axes())
    assert isinstance(strategy, JitStrategy)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: init_state(model, tx, key, (*size, 3), ema=True), key)
    images = {
        "image": jax.ShapeDtypeStruct((batch, *size, 3), "float32"),
        "label": jax.ShapeDtypeStruct((batch, *size), "uint8"),
    }
    step = strategy.compile_train(make_train_step(model, tx, loss, ema_decay=0.99, remat=remat), remat=remat)
    began = time.perf_counter()
    program = step.lower(*strategy.placed_shapes(state, images, key)).compile()
    memory = program.memory_analysis()
    exchanged: dict[str, dict[str, int]] = {}
    for each in exchanges(program):
        sums = exchanged.setdefault(each.kind, {"count": 0, "bytes": 0})
        sums["count"] += 1
        sums["bytes"] += each.bytes
    places = strategy.state_shardings(state)
    parts = jax.tree.map(lambda x, place: x.dtype.itemsize * _size(place.shard_shape(x.shape)), state, places)
    found = {
        "network": name,
        "size": list(size),
        "batch": batch,
        "mesh": None if axes is None else list(axes),
        "state": sum(jax.tree.leaves(parts)),
        "parameter_bytes": 4 * sum(x.size for x in jax.tree.leaves(state.params)),
        "split_bytes": 4 * sum(x.size for x in jax.tree.leaves(state.params) if x.size >= strategy.smallest),
        "arrays": len(jax.tree.leaves(state.params)),
        "arrays_split": sum(x.size >= strategy.smallest for x in jax.tree.leaves(state.params)),
        "temporary": memory.temp_size_in_bytes,
        "operations": program.cost_analysis()["flops"],
        "exchanged": exchanged,
        "compile_seconds": time.perf_counter() - began,
    }
    print(found, file=sys.stderr, flush=True)
    return found


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def describe(record: dict[str, Any]) -> str:
    """Returns the tables."""
    tables = []
    if "memory" in record["parts"]:
        tables.append(memory_table(record))
    if "huge" in record["parts"]:
        tables.append(huge_table(record))
    if "paper" in record["parts"]:
        tables += [shares_table(record), paper_table(record)]
    return "\n".join([*tables, measured_on(record) + "\n"])


def mesh_name(axes: list[int] | None) -> str:
    return "one device" if axes is None else "x".join(map(str, axes))


def memory_table(record: dict[str, Any]) -> str:
    """Returns the memory and the exchanges of each device for each network and mesh."""
    rows = []
    for name, found in record["networks"].items():
        for each in found:
            counts = {kind: f"{sums['count']} / {sums['bytes'] / 1e6:.1f}" for kind, sums in each["exchanged"].items()}
            rows.append(
                (
                    f"{name}, {each['size'][0]}x{each['size'][1]}",
                    mesh_name(each["mesh"]),
                    f"{each['state'] / 1e6:.1f}",
                    f"{each['temporary'] / 1e6:.0f}",
                    *(counts.get(kind, "") for kind in KINDS),
                )
            )
    columns = (
        *("network, image", "data x fsdp x space", "state, MB", "step, MB"),
        *("sums: count / MB", "gathers: count / MB", "rows at edges: count / MB", "all-to-all: count / MB"),
    )
    note = (
        f"A training step with {BATCH} images in all, float32, Adam and a moving average, over {DEVICES} devices: what "
        "each device holds between steps (parameters, average and moments), what a step needs beside that by XLA's "
        "plan, and the results of the exchanges in the compiled program."
    )
    return rows_below(columns, rows, note)


def huge_table(record: dict[str, Any]) -> str:
    """Returns the memory of each device for one large image."""
    rows, first = [], record["huge"][0]
    for each in record["huge"]:
        n = each["mesh"][2]
        moved = each["exchanged"].get("collective-permute", {"count": 0, "bytes": 0})
        gathered = sum(each["exchanged"].get(kind, {"bytes": 0})["bytes"] for kind in ("all-gather", "all-to-all"))
        rows.append(
            (
                *(n, f"{each['temporary'] / 1e9:.2f}", f"{each['temporary'] / first['temporary']:.3f}"),
                *(f"{first['mesh'][2] / n:.3f}", f"{moved['count']} / {moved['bytes'] / 1e6:.0f}", gathered),
            )
        )
    side = first["size"][0]
    note = f"One training step of a U-Net on one image of {side}x{side} pixels, float32, remat, by XLA's plan."
    columns = (
        *("devices over space", "step, GB a device", "of one device", "ideal"),
        *("rows at edges: count / MB", "features gathered, bytes"),
    )
    return rows_below(columns, rows, note)


def shares_table(record: dict[str, Any]) -> str:
    """Returns how much of the parameters is in the arrays that `fsdp` splits."""
    rows = []
    for name, found in record["networks"].items():
        each = found[0]
        share = each["split_bytes"] / each["parameter_bytes"]
        rows.append((name, f"{each['arrays_split']} of {each['arrays']}", f"{100 * share:.1f} %"))
    return rows_below(("network", "arrays that fsdp splits", "their share of the parameters"), rows)


def paper_table(record: dict[str, Any]) -> str:
    """Returns bytes and times of the exchanges of a step on more devices, from the programs for eight."""
    rows = []
    for name, found in record["networks"].items():
        by_mesh = {mesh_name(each["mesh"]): each for each in found}
        for way, mesh in (("data", "8x1x1"), ("fsdp", "1x8x1"), ("space", "1x1x8")):
            if mesh not in by_mesh:
                continue
            for count in COUNTS:
                moved, operations = sent(way, by_mesh[mesh], count)
                rate = NVLINK if count <= DEVICES else INFINIBAND
                exchange, compute = moved / rate, operations / (SHARE * FLOPS)
                size = "x".join(map(str, by_mesh[mesh]["size"]))
                rows.append(
                    (
                        *(f"{name}, {size}", way, count, f"{moved / 1e6:.1f}", f"{1e3 * exchange:.2f}"),
                        *(f"{1e3 * compute:.2f}", f"{100 * compute / (compute + exchange):.0f} %"),
                    )
                )
    note = (
        "On paper: data and fsdp with one image a device, space with 8 images over all devices. A device sends and "
        "receives the bytes at the nominal rate (NVLink of 450 GB/s up to 8 devices, InfiniBand of 50 GB/s above), and "
        f"computes at {100 * SHARE:.0f} % of {FLOPS / 1e12:.0f} TFLOP/s. The last column is the share of the time that "
        "is left for computing if nothing overlaps."
    )
    columns = ("network, image", "way", "devices", "MB a device", "exchange, ms", "compute, ms", "efficiency")
    return rows_below(columns, rows, note)


def sent(way: str, each: dict[str, Any], count: int) -> tuple[float, float]:
    """Returns the bytes that a device sends in a step over `count` devices, and the operations that it computes.

    A sum over n devices of S bytes sends 2 (n - 1) / n S in a ring, a gather whose result has S bytes (n - 1) / n S.
    With fsdp the sum of a split gradient is a reduction and scatter, which sends (n - 1) / n S. What a device exchanges
    with its neighbours stays the same. With data and fsdp each device has images of its own, and computes as much; with
    space there are as many images in all.
    """
    ring = (count - 1) / count
    sums, gathers, rows, moved = (each["exchanged"].get(kind, {"bytes": 0})["bytes"] for kind in KINDS)
    total = ring * (2 * sums + gathers)
    if way == "fsdp":
        total -= ring * each["split_bytes"]
    if way == "space":
        return total + rows + moved, each["operations"] * DEVICES / count
    return total + rows + moved, each["operations"]


if __name__ == "__main__":
    sys.exit(run_command(main))
