"""Memory of a training step beside PyTorch's, on a CPU: `python benchmarks/memory.py --out NAME`.

Each program runs in a process of its own, so that nothing of another is counted: the step of `compare_torch.py`, in
jaxseg and in PyTorch eager. After two steps, when parameters, moments and batch lie in memory, the peak of the resident
memory over three more steps is read, and the resident memory before them is subtracted: activations, gradients and
workspaces. This needs Linux. On a GPU, `compare_torch.py` has XLA's plan and what PyTorch's allocator counts.
"""

import argparse
import ctypes
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lib.network_programs import jaxseg_programs, torch_programs
from lib.networks import NETWORKS
from lib.timing import at_least, environment, make_parser, prepare_torch, save, table, wait

from jaxseg.config.command import run_command
from jaxseg.errors import ConfigError

PROGRAMS = ("jaxseg", "torch eager")
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--batch", type=at_least(1), default=4, help="images (default 4)")
    parser.add_argument("--size", type=at_least(1), default=128, help="height and width (default 128)")
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)  # what a process of its own measures
    options = parser.parse_args(argv)
    if options.program:
        print(json.dumps(step_memory(options)))
        return 0
    if not PEAK.exists():
        raise ConfigError("This benchmark reads the peak of the resident memory from /proc, which only Linux has.")
    try:
        import torch  # noqa: F401
    except ImportError:
        print("error: this comparison needs PyTorch: pip install torch", file=sys.stderr)
        return 1
    if options.smallest:
        options.batch, options.size, options.repeats = 2, 32, 1
        options.networks = options.networks if options.networks != list(NETWORKS) else ["unet"]
    record: dict[str, Any] = {
        "environment": environment(),
        "batch": options.batch,
        "size": options.size,
        "networks": {
            name: {
                program: [in_its_own_process(name, program, options) for _ in range(options.repeats)]
                for program in PROGRAMS
            }
            for name in options.networks
        },
    }
    save(options.out, record, describe(record))
    return 0


def in_its_own_process(network: str, program: str, options: argparse.Namespace) -> dict[str, int | None]:
    """Returns what `step_memory` measures in a new process."""
    words = ["--networks", network, "--program", program, "--batch", str(options.batch), "--size", str(options.size)]
    words += ["--smallest"] if options.smallest else []
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"{network} in {program} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    print(network, program, done.stdout.strip(), file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def step_memory(options: argparse.Namespace) -> dict[str, int | None]:
    """Returns bytes of the step: {"resident": peak above what lay in memory before, "planned": by XLA, or None}."""
    [name] = options.networks
    network = NETWORKS[name].smallest() if options.smallest else NETWORKS[name]
    rng = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size)
    image = rng.normal(size=(*shape, 3)).astype(np.float32)
    label = rng.integers(0, network.num_classes, shape).astype(np.uint8)
    if options.program == "jaxseg":
        programs = jaxseg_programs(network, image, label, "float32")
    else:
        prepare_torch("cpu")
        programs = torch_programs(network, image, label, "float32", "cpu", None)
    for _ in range(2):
        wait(programs.calls["train"]())
    ctypes.CDLL(None).malloc_trim(0)  # gives back what compilation left
    before = _resident("VmRSS")
    PEAK.write_text("5")  # the peak begins at the present value
    for _ in range(3):
        wait(programs.calls["train"]())
    return {"resident": _resident("VmHWM") - before, "planned": programs.memory["train"]}


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    assert found, field
    return 1024 * int(found[1])


def describe(record: dict[str, Any]) -> str:
    """Returns the table."""
    rows = []
    for name, found in record["networks"].items():
        ours, theirs = (statistics.median(run["resident"] for run in found[program]) for program in PROGRAMS)
        planned = found["jaxseg"][0]["planned"]
        rows.append((name, f"{ours / 1e6:.0f}", f"{theirs / 1e6:.0f}", f"{ours / theirs:.2f}", f"{planned / 1e6:.0f}"))
    shape = f"batch {record['batch']} of {record['size']}x{record['size']}, float32"
    note = (
        f"Resident memory that a training step adds to what lies in memory between steps, {shape}: the peak over three "
        "steps, medians of processes. The last column is the step's memory by XLA's plan, with parameters, moments and "
        "the batch."
    )
    columns = ("network", "jaxseg, MB", "torch eager, MB", "jaxseg's over PyTorch's", "planned by XLA, MB")
    return table(columns, rows, record, note)


if __name__ == "__main__":
    sys.exit(run_command(main))
