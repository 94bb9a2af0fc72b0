"""How the cost of a training step grows: `python benchmarks/growth.py --out NAME [--minutes N] [--axes AXIS ...]`.

One thing changes at a time: images in a batch, size of the images, width of the network, number of classes, and seeds
that one program trains together (`vmap`). For each value: milliseconds of a step, images/s, and the memory that XLA
plans. For the classes also what the network up to its class head, the resizing of the logits, the loss and the
confusion matrix take, each alone and with its gradient: XLA fuses them in the step, so that their sum is not the step.

Each axis has its share of the minutes. A value whose time, predicted from the value before it, exceeds what is left of
the share is left out, as is one that does not fit into the memory, and the table says so.
"""

import argparse
import dataclasses
import math
import os
import sys
import time
from typing import Any, NamedTuple

import jax
from lib.growth_programs import PARTS, Point, parts_of_step, training_step
from lib.timing import environment, make_parser, measured_on, rows_below, save, share_gpu, time_rounds

from jaxseg.compiler import keep_programs
from jaxseg.errors import is_out_of_memory


class Axis(NamedTuple):
    """One thing that grows.

    Attributes:
        values: what is measured, the smallest first.
        power: a step of twice the value has 2**power times the operations.
        networks: those that are measured.
        at: what the points of this axis have in place of those of `BASE`, on a CPU and on other devices.
    """

    values: tuple[int, ...]
    power: int = 1
    networks: tuple[str, ...] = ("unet", "deeplabv3plus")
    at: tuple[dict[str, int], dict[str, int]] = ({}, {})


AXES = {
    "batch": Axis((1, 4, 16, 64)),
    "size": Axis((64, 128, 256, 512, 1024), power=2, at=({"batch": 1}, {"batch": 4})),
    "width": Axis((8, 16, 32, 64), power=2, networks=("unet",)),
    "classes": Axis((2, 21, 150, 1000), at=({"batch": 2, "size": 128}, {})),
    "seeds": Axis((1, 2, 4), networks=("unet",), at=({}, {"size": 128})),
}
# On a CPU and on other devices.
BASE = ({"batch": 4, "size": 64, "width": 16, "classes": 21}, {"batch": 8, "size": 256, "width": 32, "classes": 21})
SMALLEST = {"batch": 1, "size": 16, "width": 2, "classes": 3, "levels": 1}
WHAT = {
    "batch": "images in a batch",
    "size": "height and width, pixels",
    "width": "channels of the first level",
    "classes": "classes",
    "seeds": "seeds together",
}
CPU_MINUTES = 8.0
SLOW = 1.0  # seconds; a step that takes longer is timed in three rounds at most


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--axes", nargs="+", choices=tuple(AXES), default=list(AXES), metavar="AXIS")
    parser.add_argument(
        "--minutes", type=float, help=f"time for all of it (default: {CPU_MINUTES:g} on a CPU, else no limit)"
    )
    parser.add_argument("--loss", default="cross_entropy + dice", help='(default "cross_entropy + dice")')
    options = parser.parse_args(argv)
    share_gpu()
    keep_programs()
    minutes = options.minutes or (CPU_MINUTES if jax.default_backend() == "cpu" else math.inf)
    measure = Measurements(options, time.monotonic() + 60 * minutes)
    record: dict[str, Any] = {"environment": environment(), "loss": options.loss, "minutes": minutes, "axes": {}}
    for name in options.axes:
        measure.begin_axis(len(options.axes) - len(record["axes"]))
        record["axes"][name] = {"power": AXES[name].power, "points": []}
        for point in points_of(name, smallest=options.smallest):
            row = measure.point(name, point)
            record["axes"][name]["points"].append(row)
            print(row, file=sys.stderr)
        last = len(record["axes"]) == len(options.axes)
        save(options.out, record, describe(record), lambda figure: draw(figure, record), quiet=not last)
    return 0


def points_of(axis: str, *, smallest: bool) -> list[Point]:
    """Returns the points of an axis, by value and then by network."""
    other = jax.default_backend() != "cpu"
    values, networks = AXES[axis].values, AXES[axis].networks
    fields = BASE[other] | AXES[axis].at[other]
    if smallest:
        values, networks, fields = (2,) if axis == "seeds" else (SMALLEST[axis],), networks[:1], SMALLEST
    return [Point(network, **(fields | {axis: value})) for value in values for network in networks]


class Measurements:
    """Measures points one after the other, each once, for as long as there is time."""

    def __init__(self, options: argparse.Namespace, end: float) -> None:
        self.options, self.end = options, end
        self.until = end  # of the present axis
        self.known: dict[Point, dict[str, Any]] = {}
        self.last: dict[str, tuple[int, float, float]] = {}  # by network: value, seconds of the step, and of all of it

    def begin_axis(self, axes_left: int) -> None:
        """Gives the next axis its share of the time that is left."""
        now = time.monotonic()
        self.until = now + max(0.0, self.end - now) / axes_left
        self.last = {}

    def point(self, axis: str, point: Point) -> dict[str, Any]:
        """Returns the row of a point; with "left_out", a sentence, where there was no time or memory for it."""
        row: dict[str, Any] = {"value": getattr(point, axis), **dataclasses.asdict(point)}
        if point not in self.known:
            expected = self._expected(axis, point)
            if time.monotonic() + expected > self.until:
                return row | {"left_out": f"no time: it would take about {expected:.0f} s"}
        begin = time.monotonic()
        try:
            if point not in self.known:
                self.known[point] = self._step(point)
            row |= self.known[point]
            if axis == "classes" and "left_out" not in row:
                row["parts"] = self._parts(point)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return row | {"left_out": "the memory of the device is too small for it"}
        if "seconds" in row:
            self.last[point.network] = row["value"], row["seconds"], time.monotonic() - begin
        return row

    def _expected(self, axis: str, point: Point) -> float:
        """Seconds until a point is measured: those of the value before it, with a step that takes longer."""
        if point.network not in self.last:
            return 0.0
        value, step, whole = self.last[point.network]
        # Several seeds in one program of a CPU take longer than by their number.
        power = 2 if axis == "seeds" and jax.default_backend() == "cpu" else AXES[axis].power
        grown = step * (getattr(point, axis) / value) ** power
        return whole + 5 * max(0.0, grown - step)

    def _step(self, point: Point) -> dict[str, Any]:
        call, memory = training_step(point, self.options.loss)
        if memory is not None and memory > free_memory():
            return {"left_out": f"no memory: it needs {memory / 1e9:.1f} GB"}
        seconds = self._time({"step": call})["step"]
        return {"seconds": seconds, "images_per_second": point.images / seconds, "memory_bytes": memory}

    def _parts(self, point: Point) -> dict[str, Any]:
        programs = parts_of_step(point, self.options.loss)
        seconds = self._time({part: call for part, (call, _) in programs.items()})
        return {part: {"seconds": seconds[part], "memory_bytes": memory} for part, (_, memory) in programs.items()}

    def _time(self, calls: dict[str, Any]) -> dict[str, float]:
        begin = time.monotonic()
        for call in calls.values():
            jax.block_until_ready(call())
        slow = time.monotonic() - begin > SLOW
        rounds = time_rounds(calls, min(3, self.options.repeats) if slow else self.options.repeats, warmup=0)
        return {name: sorted(seconds)[len(seconds) // 2] for name, seconds in rounds.items()}


def free_memory() -> float:
    """Returns the bytes of memory that a program may take; infinity where the device does not say."""
    if jax.default_backend() == "cpu":
        known = "SC_AVPHYS_PAGES" in os.sysconf_names
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else math.inf
    stats = jax.devices()[0].memory_stats()
    return stats["bytes_limit"] if stats and "bytes_limit" in stats else math.inf


def describe(record: dict[str, Any]) -> str:
    """Returns the tables: one for each axis, and one of the parts of a step by the number of classes."""
    text = f"One training step, float32, loss {record['loss']}.\n"
    for axis, found in record["axes"].items():
        rows = [(row["network"], row["value"], *_cells(axis, row, found["points"])) for row in found["points"]]
        columns = ["network", WHAT[axis], "step, ms", "images/s", "memory, MB", "step, to that of the value before"]
        columns += ["to one after the other"] * (axis == "seeds")
        text += f"\n## {axis}: {_fixed(axis, found['points'][0])}\n\n{rows_below(columns, rows)}"
        if axis == "classes":
            text += "\n" + _table_of_parts(found["points"])
    return text + "\n" + measured_on(record) + "\n"


def _fixed(axis: str, row: dict[str, Any]) -> str:
    """What is the same in all points of an axis."""
    words = {
        "batch": f"batch {row['batch']}",
        "size": f"{row['size']}x{row['size']} pixels",
        "width": f"U-Net of widths {', '.join(str(row['width'] * 2**i) for i in range(row['levels']))}",
        "classes": f"{row['classes']} classes",
    }
    return ", ".join(text for name, text in words.items() if name != axis)


def _cells(axis: str, row: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    more = axis == "seeds"
    if "left_out" in row:
        return (f"left out, {row['left_out']}", "", "", "", *[""] * more)
    mine = [each for each in rows if each["network"] == row["network"] and "seconds" in each]
    before = [each for each in mine if each["value"] < row["value"]]
    memory = "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:.0f}"
    cells = (f"{1e3 * row['seconds']:.1f}", f"{row['images_per_second']:.1f}", memory)
    cells += (f"{row['seconds'] / before[-1]['seconds']:.2f}" if before else "",)
    if more:
        cells += (f"{row['seconds'] / (row['seeds'] * mine[0]['seconds'] / mine[0]['seeds']):.2f}",)
    return cells


def _table_of_parts(rows: list[dict[str, Any]]) -> str:
    note = (
        "Each part alone, with its gradient, in ms; the share is that of resize, loss and confusion matrix in the sum."
    )
    columns = ("network", "classes", "network to the class head", *PARTS[1:], "share", "memory of loss, MB", "step, ms")
    cells = []
    for row in (row for row in rows if "parts" in row):
        seconds = {part: found["seconds"] for part, found in row["parts"].items()}
        memory = row["parts"]["loss"]["memory_bytes"]
        times = [f"{1e3 * seconds[part]:.1f}" if part in seconds else "" for part in PARTS]
        share = f"{1 - seconds['network'] / sum(seconds.values()):.0%}"
        loss = "" if memory is None else f"{memory / 1e6:.0f}"
        cells.append((row["network"], row["classes"], *times, share, loss, f"{1e3 * row['seconds']:.1f}"))
    return rows_below(columns, cells, note)


def draw(figure: Any, record: dict[str, Any]) -> None:
    """One plot for each axis, and one of the parts by classes; dashed, what grows with the number of operations."""
    from matplotlib.ticker import LogLocator

    figure.set_size_inches(11, 6.5)
    axes = record["axes"]
    with_parts = "classes" in axes and any("parts" in row for row in axes["classes"]["points"])
    count = len(axes) + with_parts
    plots = figure.subplots(-(-count // 3), min(count, 3), squeeze=False).ravel()
    for plot in plots[count:]:
        plot.set_axis_off()
    for plot, (axis, found) in zip(plots, axes.items()):
        for network in dict.fromkeys(row["network"] for row in found["points"]):
            rows = [row for row in found["points"] if row["network"] == network and "seconds" in row]
            _line(plot, {row["value"]: row["seconds"] for row in rows}, network, found["power"])
        plot.set(xlabel=WHAT[axis], ylabel="step, ms")
    if with_parts:
        plot, rows = plots[count - 1], [row for row in axes["classes"]["points"] if "parts" in row]
        rows = [row for row in rows if row["network"] == rows[-1]["network"]]
        for part in PARTS:
            _line(plot, {r["value"]: r["parts"][part]["seconds"] for r in rows if part in r["parts"]}, part, 0)
        plot.set(xlabel="classes", ylabel="alone, ms", title=f"parts of {rows[-1]['network']}")
    for plot in plots[:count]:
        plot.set(xscale="log", yscale="log")
        measured = sorted({value for line in plot.lines for value in line.get_xdata()})
        plot.set_xticks(measured, [f"{value:g}" for value in measured])
        plot.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        plot.yaxis.set_major_formatter("{x:g}")
        plot.minorticks_off()
        plot.grid(alpha=0.3)
        plot.legend(frameon=False, fontsize=7)


def _line(plot: Any, seconds: dict[int, float], label: str, power: int) -> None:
    """Draws {value: seconds}, and dashed the line through the last of them that grows by the power of the value."""
    if not seconds:
        return
    (line,) = plot.plot(list(seconds), [1e3 * each for each in seconds.values()], marker="o", markersize=3, label=label)
    if power:
        last, most = list(seconds.items())[-1]
        ideal = [1e3 * most * (value / last) ** power for value in seconds]
        plot.plot(list(seconds), ideal, color=line.get_color(), linestyle="--", linewidth=0.8)


if __name__ == "__main__":
    sys.exit(main())
