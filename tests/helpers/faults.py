"""Trainings as real processes that tests break, and the comparison of how they end with a run that nothing broke."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.tiny_training import ROOT, arguments, state_of
from helpers.xla_flags import quick_flags

from jaxseg.run.report import read_log

FAULTS = ROOT / "tests" / "faults"
# A checkpoint after every step, so that much of the time of a run is that of its writes.
RUN = {
    "experiment": "experiments/cnn.py",
    "steps": 8,
    "batch_size": 4,
    "eval.batch_size": 4,
    "eval.every": 4,
    "checkpoint.every": 1,
    "model.args.hidden": 8,
    "model.args.hidden_kernel": 3,
    "model.args.dropout": 0.5,
    "augment.zoom": "(1.0,1.0)",
    "data.shapes_val": 4,
    "log.images": 0,
}


def command(workdir: Path, **changes: Any) -> list[str]:
    """Returns the arguments of the tiny run; `changes` are keys with `__` for the dot."""
    values = {key.replace(".", "__"): value for key, value in RUN.items()} | changes
    return arguments(workdir, **values)


@dataclass(frozen=True)
class Training:
    """A process that trains, and the file that has its output."""

    pid: int
    out: Path

    def said(self) -> str:
        return self.out.read_text(errors="replace") if self.out.exists() else ""


class Starter:
    """Starts trainings from a process that has imported everything; a context manager."""

    def __init__(self, folder: Path, devices: int = 1):
        self._folder, self._number = folder, 0
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", FAULTS))),
            "XLA_FLAGS": quick_flags(devices),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::RuntimeWarning", str(FAULTS / "starter.py")],
            cwd=ROOT,
            env=environment | {"JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Starter":
        self._read()
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        return json.loads(self._process.stdout.readline())

    def _ask(self, **order: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def start(self, words: list[str], plant: str = "", *values: Any) -> Training:
        """Starts a training; `plant` is a function of `tests/faults/plants.py` that is called with `values` before."""
        self._number += 1
        out = self._folder / f"said-{self._number}.txt"
        return Training(self._ask(start=words, out=str(out), plant=plant, values=values)["pid"], out)

    def status(self, training: Training) -> int | None:
        """Returns its exit status, or minus the signal that ended it; None while it runs."""
        return self._ask(poll=training.pid)["status"]

    def wait(self, training: Training, seconds: float = 300) -> int:
        """Returns the status once it ends; fails after these seconds."""
        status = self.wait_until(training, lambda: False, seconds)
        if status is None:
            os.kill(training.pid, signal.SIGKILL)
            raise AssertionError(f"no end after {seconds} s:\n{training.said()}")
        return status

    def wait_until(self, training: Training, happened: Callable[[], bool], seconds: float) -> int | None:
        """Waits for the end of a training, which gives its status, or until something happened or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not happened():
            status = self.status(training)
            if status is not None:
                return status
            time.sleep(0.01)
        return None

    def run(self, words: list[str], plant: str = "", *values: Any) -> tuple[int, str]:
        """Runs a training to its end; returns its status and what it said."""
        training = self.start(words, plant, *values)
        return self.wait(training), training.said()


def bits(workdir: Path) -> dict[str, bytes]:
    """Returns the bytes of every array of the last checkpoint, and the log without times, to compare with ==."""
    arrays = {name: array.tobytes() for name, array in state_of(workdir).items()}
    log = [{k: v for k, v in record.items() if k != "images_per_second"} for record in read_log(workdir / "log.jsonl")]
    return arrays | {"log": json.dumps(log).encode()}
