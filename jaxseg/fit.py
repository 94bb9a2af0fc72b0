"""Says what a training step keeps in memory and which fit, before anything runs: `jaxseg fit`.

    python -m jaxseg.fit --config experiments/resunet.py [--batches 8 16 ...] [--only] [--config.KEY=VALUE]

Each row is a step that was compiled, with its own memory analysis: float32 and bfloat16, without and with `remat`. The
last column is the largest batch size that fits into four fifths of the free memory (or into `compile.memory`), found by
a bisection over compiled steps. Nothing is computed, and no image is read but to know the classes of the data.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import jax

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.build import build_parts, make_strategy
from jaxseg.config import ConfigDict, command, to_dict, with_values
from jaxseg.data import sources
from jaxseg.errors import DataError
from jaxseg.inference.options import whole_number
from jaxseg.memory import Room, room_of, sharing_devices, shown
from jaxseg.run.check import check, with_steps_above_warmup
from jaxseg.run.preflight import StepMemory, largest_batch, memory_of_step
from jaxseg.run.teacher import read_teacher, with_teacher
from jaxseg.run.workdir import write_or_refuse

_HEADS = ("batch", "dtype", "remat", "parameters", "optimiser", "activations", "all", "fits", "largest batch")


@dataclasses.dataclass(frozen=True)
class Row:
    """One step: its settings, what it takes, and the largest batch with the same settings (0: none fits)."""

    batch_size: int
    dtype: str
    remat: bool
    memory: StepMemory
    fits: str
    largest_batch: int

    def cells(self) -> tuple[str, ...]:
        m = self.memory
        parameters, optimiser = m.parameters + m.statistics + m.average + m.teacher, m.optimiser
        sizes = map(shown, (parameters, optimiser, m.activations + m.batches, m.total))
        largest = str(self.largest_batch or "none")
        return (str(self.batch_size), self.dtype, str(self.remat).lower(), *sizes, self.fits, largest)


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.fit") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def body() -> int:
        description = "Say what a training step takes of the memory, and which steps fit."
        options, config = command.parse_command_line(argv, program, description, _add_options, workdir=False)
        compiler.keep_programs(config.compile.cache)
        check(config, before_training=True)
        rows, room = fit(config, options.batches, only=options.only)
        print(table(rows, room))
        if options.json:
            write_or_refuse(expanded(options.json), as_json(rows, room, config))
        return 0

    return command.run_command(body)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batches", type=whole_number(1), nargs="+", metavar="B", default=[], help="batch sizes (default batch_size)"
    )
    parser.add_argument(
        "--only", action="store_true", help="only with the dtype and remat of the configuration: less to compile"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the numbers, in bytes, to this file")


def fit(config: ConfigDict, batches: Sequence[int] = (), *, only: bool = False) -> tuple[list[Row], Room]:
    """Returns the rows of the table, and the memory that there is.

    Args:
        config: a validated configuration; its `dtype` and `remat` come first.
        batches: batch sizes; (): that of the configuration.
        only: whether to leave out other values of `dtype` and `remat`.

    Raises:
        ConfigError: if the devices or micro-batches do not divide a batch size.
        DataError: if the data, which say how many classes there are, cannot be opened, and `model.num_classes` is 0.
    """
    config, taught = read_teacher(with_steps_above_warmup(config))
    classes = _num_classes(config)
    room = room_of(config.compile.memory) or room_of("")
    assert room is not None
    sizes = list(batches) or [config.batch_size]
    own = (config.dtype, config.remat)
    every = [(dtype, remat) for dtype in ("float32", "bfloat16") for remat in (False, True)]
    kinds = [own, *(kind for kind in every if kind != own and not only)]
    rows = []
    for dtype, remat in kinds:
        of_kind = []
        for size in sizes:
            each = with_values(config, {"dtype": dtype, "remat": remat, "batch_size": size})
            print(f"compiling the step of batch_size={size}, {dtype}, remat={str(remat).lower()}", file=sys.stderr)
            strategy = make_strategy(each)
            parts = with_teacher(build_parts(each, classes, axis_name=strategy.axis_name), taught)
            memory = memory_of_step(parts, strategy)
            of_kind.append(Row(size, dtype, remat, memory, _fits(memory, room), 0))
        most = largest_batch(parts, strategy, room.planned, memory)  # from the last size, for all of them
        rows += [dataclasses.replace(row, largest_batch=most) for row in of_kind]
    return rows, room


def _num_classes(config: ConfigDict) -> int:
    if config.model.num_classes:
        return config.model.num_classes
    try:
        return len(sources.training_source(config).info.classes)
    except DataError as error:
        raise DataError(f"{error} (Without the data, model.num_classes says how many classes there are.)") from error


def _fits(memory: StepMemory, room: Room) -> str:
    if memory.total > room.free:
        return "no"
    return "yes" if memory.total <= room.planned else "just"


def table(rows: Sequence[Row], room: Room) -> str:
    """Returns the rows as text, with a line about the memory that there is."""
    lines = [_HEADS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    shown_rows = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]
    devices = f"{jax.local_device_count()} {jax.default_backend()} devices share it; " if sharing_devices() > 1 else ""
    plan = f"; the largest batch is for {shown(room.planned)} of them" if room.planned < room.free else ""
    return "\n".join([*shown_rows, f"\n{devices}{room.words}{plan}."])


def as_json(rows: Sequence[Row], room: Room, config: ConfigDict) -> dict[str, Any]:
    """Returns the rows in the types of JSON, with the configuration; amounts are bytes."""
    described = [
        {**dataclasses.asdict(row), "memory": {**dataclasses.asdict(row.memory), "total": row.memory.total}}
        for row in rows
    ]
    return {
        "free": room.free,
        "planned": room.planned,
        "device": {"platform": jax.default_backend(), "count": jax.device_count()},
        "rows": described,
        "config": to_dict(config),
    }


if __name__ == "__main__":
    sys.exit(main())
