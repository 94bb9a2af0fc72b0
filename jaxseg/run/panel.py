"""What the live display of a training shows: its lines, from what is known of the run."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jaxseg.memory import DeviceMemory, shown
from jaxseg.run.pace import Rhythm, Times, duration

_LABEL = 10  # columns of the words on the left
_FREE = 4  # columns on the right: the terminal writes ^C there, which must not begin a line
_BAR = 40  # columns of a bar, where there is room
_TERMS = 4  # terms of the loss that are shown beside it


@dataclass
class Status:
    """What is known of a run; the training writes it, and the display reads it.

    Attributes:
        began: when the start began, by the clock of `time.perf_counter`.
        every: steps between the numbers of training.
        doing: what the run does now, in a word or two.
        step: the steps that are made.
        times: the times that this start has measured.
        train: the newest record of training in the log.
        last, best: (step, mIoU) of the last evaluation and of the best.
        scored: (images scored, images to score) of the evaluation that goes on.
    """

    began: float
    every: int = 1
    doing: str = "starting"
    step: int = 0
    times: Times = field(default_factory=lambda: Times(Rhythm(), 0))
    train: Mapping[str, Any] | None = None
    last: tuple[int, float] | None = None
    best: tuple[int, float] | None = None
    scored: tuple[int, int] | None = None

    def evaluated(self, step: int, mean_iou: float) -> None:
        """Takes the mIoU of an evaluation; NaN if nothing was scored."""
        self.last = (step, mean_iou)
        if not math.isnan(mean_iou) and (self.best is None or mean_iou > self.best[1]):
            self.best = (step, mean_iou)


def panel(status: Status, now: float, width: int, host: int | None, device: DeviceMemory | None) -> Table:
    """Returns the lines of the display, of which each is cut where it is wider than the terminal.

    Args:
        status: what is known of the run.
        now: by the clock of `time.perf_counter`.
        width: columns of the terminal.
        host: bytes of this process in memory; None if not known.
        device: the memory of the device; None if not known.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim", width=_LABEL)
    grid.add_column(no_wrap=True, overflow="ellipsis", width=max(1, width - _LABEL - 2 - _FREE))
    total = status.times.total
    if total:
        share = f"{100 * status.step / total:.1f} %"
        grid.add_row("step", _bar(f"{status.step} of {total}", status.step, total, f"{share}{_epoch(status)}", width))
    doing = Text(status.doing)
    if status.scored is None:
        grid.add_row("now", doing)
    else:
        scored, images = status.scored
        grid.add_row("now", _bar(status.doing, scored, images, f"{min(scored, images)} of {images} images", width))
    if total:
        grid.add_row("training", Text(_training(status)))
        grid.add_row("validation", Text(_validation(status)))
    grid.add_row("time", Text("  ".join(_time(status, now))))
    if used := _memory(host, device):
        grid.add_row("memory", Text(used))
    return grid


def _bar(before: str, done: int, total: int, after: str, width: int) -> Table:
    """Returns a line with a bar between two words; a narrow terminal has the words alone."""
    room = width - _LABEL - 6 - _FREE - len(before) - len(after)
    cells: list[RenderableType] = [Text(before), Text(after)]
    if room >= 8:
        cells.insert(1, ProgressBar(max(total, 1), min(done, total), width=min(room, _BAR)))
    row = Table.grid(padding=(0, 2))
    for _ in cells:
        row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_row(*cells)
    return row


def _epoch(status: Status) -> str:
    epoch = status.times.rhythm.epoch
    return f"  epoch {status.step / epoch:.1f} of {status.times.total / epoch:.1f}" if epoch else ""


def _training(status: Status) -> str:
    record = status.train
    if record is None:
        ahead = (status.step // status.every + 1) * status.every
        return f"first numbers at step {min(ahead, status.times.total)}"
    terms = {name.removeprefix("loss/"): value for name, value in record.items() if name.startswith("loss/")}
    parts = "".join(f"  {name} {value:.4f}" for name, value in list(terms.items())[:_TERMS] if len(terms) > 1)
    return f"loss {record['loss']:.4f}  {_percent(record['mean_iou'])}  lr {record['learning_rate']:.3g}{parts}"


def _validation(status: Status) -> str:
    if status.last is None:
        every, total = status.times.rhythm.evaluations, status.times.total
        ahead = min((status.step // every + 1) * every, total) if every else total
        return f"first evaluation at step {ahead}"
    text = f"{_percent(status.last[1])} at step {status.last[0]}"
    return text if status.best is None else f"{text}  best {100 * status.best[1]:.2f} % at step {status.best[0]}"


def _time(status: Status, now: float) -> Iterator[str]:
    yield f"{duration(now - status.began)} elapsed"
    if status.times.total:
        yield status.times.words(status.step, now)
    if status.train is not None and math.isfinite(status.train["images_per_second"]):
        yield f"{status.train['images_per_second']:.4g} images/s"


def _percent(mean_iou: float) -> str:
    return "mIoU -" if math.isnan(mean_iou) else f"mIoU {100 * mean_iou:.2f} %"


def _memory(host: int | None, device: DeviceMemory | None) -> str:
    words = [] if host is None else [f"host {shown(host)}"]
    if device is not None:
        limit = f" of {shown(device.limit)}" if device.limit else ""
        peak = f", at most {shown(device.peak)} so far" if device.peak else ""
        words.append(f"device {shown(device.used)}{limit}{peak}")
    return "  ".join(words)
