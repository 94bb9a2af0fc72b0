"""Shows the progress of a sweep: a line for the whole and a line for each run in progress."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.pace import duration
from jaxseg.run.report import LOG_FILE, read_log
from jaxseg.run.workdir import CHECKPOINTS
from jaxseg.sweep.plan import PlannedRun
from jaxseg.sweep.records import read_scores

_EVERY = 30.0  # seconds between two lines without a terminal


class Progress:
    """Shows bars on a terminal, lines elsewhere; a context manager."""

    def __init__(self, name: str, split: str, total: int, finished: int, places: int, stream: TextIO | None = None):
        """Args:
        name: of the sweep.
        split: the split that is scored.
        total: number of runs of this call.
        finished: how many of them had finished before.
        places: how many may run at a time.
        stream: the stream to write to, standard error by default.
        """
        self._stream = sys.stderr if stream is None else stream
        self._name, self._split, self._total = name, split, total
        self._done = self._before = finished
        self._failed = 0
        self._line = ""
        self._began = self._said = time.monotonic()
        self._runs: dict[int, tuple[PlannedRun, float]] = {}
        self._bars: list[tqdm] = []
        if self._stream.isatty():
            common: dict[str, Any] = {"file": self._stream, "dynamic_ncols": True}
            self._bars = [tqdm(total=total, initial=finished, unit="run", desc=name, position=0, **common)]
            self._bars += [tqdm(unit="step", position=i + 1, leave=False, **common) for i in range(places)]

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        for bar in reversed(self._bars):
            bar.close()

    def begin(self, place: int, run: PlannedRun) -> None:
        """Shows that a run starts in one of the places."""
        self._runs[place] = (run, time.monotonic())
        if self._bars:
            self._bars[place + 1].reset(total=run.config.steps)
            self._bars[place + 1].set_description(run.name)

    def look(self) -> None:
        """Shows the steps of the runs in progress."""
        quiet = time.monotonic() - self._said < _EVERY
        if not self._bars and quiet:
            return
        self._said = time.monotonic()
        shown = []
        for place, (run, _) in self._runs.items():
            step, numbers = _state(run)
            shown.append(f"{run.name} step {step}/{run.config.steps}{numbers}")
            if self._bars:
                bar = self._bars[place + 1]
                bar.set_postfix_str(numbers.strip(), refresh=False)
                bar.n = step
                bar.refresh()
        line = f"[{self._done}/{self._total}] {'; '.join(shown)}"
        if not self._bars and shown and line != self._line:  # a run logs some of its steps
            self._line = line
            self.message(line)

    def end(self, place: int, run: PlannedRun, error: str) -> None:
        """Shows that a run has ended; `error` is empty, or the last line of what ended it."""
        self._failed += bool(error)
        scores = None if error else read_scores(run.workdir, self._split)
        self._end(place, run, f"FAILED: {error}" if scores is None else f"mIoU {100 * scores['mean_iou']:.2f} %")

    def prune(self, place: int, run: PlannedRun, why: str) -> None:
        """Shows that a run has saved and ended before its last step; `why` is a part of a sentence."""
        self._end(place, run, why)

    def _end(self, place: int, run: PlannedRun, how: str) -> None:
        seconds = time.monotonic() - self._runs.pop(place)[1]
        self._done += 1
        left = (time.monotonic() - self._began) / (self._done - self._before) * (self._total - self._done)
        ahead = "" if self._bars else f"; {duration(left)} left"
        self.message(f"[{self._done}/{self._total}] {run.name}: {how} ({duration(seconds)}{ahead})")
        if self._bars:
            self._bars[0].update(1)
            if self._failed:
                self._bars[0].set_postfix({"failed": self._failed})

    def stop(self, place: int, run: PlannedRun) -> None:
        """Shows that a run has saved and stopped as asked."""
        del self._runs[place]
        saved = Checkpoints(run.workdir / CHECKPOINTS).latest_step()
        where = "before its first checkpoint" if saved is None else f"and saved at step {saved}/{run.config.steps}"
        self.message(f"{run.name}: stopped {where}")

    def message(self, text: str) -> None:
        """Prints a line, above the bars if there are any."""
        if self._bars:
            self._bars[0].write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)


def _state(run: PlannedRun) -> tuple[int, str]:
    """Returns the last logged step of a run, and its newest loss and mIoU as text."""
    try:
        records = read_log(run.workdir / LOG_FILE)
    except OSError:
        return 0, ""
    newest = {record["split"]: record for record in records}
    shown = [("train", "loss", "loss {:.4f}", 1), ("val", "mean_iou", "mIoU {:.2f} %", 100)]
    words = [
        f"  {form.format(scale * newest[split][name])}"
        for split, name, form, scale in shown
        if split in newest and newest[split][name] is not None
    ]
    return max((record["step"] for record in records), default=0), "".join(words)
