"""Sends what a run reports to trackers, beside the training: one that fails or waits costs the run nothing.

Each tracker has a thread, which takes what the training notes in its order. An error in a tracker is one warning, after
which nothing more is sent to it. `trackers.json` in the workdir has the name of the run in each tracker, so that a
resumed run goes on in the same one; it has no address and no key, which are in the environment of the clients.
"""

import collections
import importlib.util
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.config import ConfigDict
from jaxseg.config.values import flatten
from jaxseg.errors import ConfigError, counted, first_line, printable
from jaxseg.files import parse_json
from jaxseg.metrics import Scores
from jaxseg.run.trackers.about import FAILED, FINISHED, About, Tracker
from jaxseg.run.trackers.in_mlflow import open_mlflow
from jaxseg.run.trackers.in_wandb import open_wandb
from jaxseg.run.workdir import TRACKERS_FILE, write_json

OPENERS: dict[str, Callable[[About], Tracker]] = {"mlflow": open_mlflow, "wandb": open_wandb}
"""Tracker -> (what is known of the run -> the run in the tracker)."""
_AHEAD = 10_000  # entries that wait for a tracker, at most
_ROOM = 2**26  # bytes of pictures that wait for a tracker, at most; the newest ones are kept
_KEYS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY")  # environment variables of the clients
_PATIENCE = 60.0  # seconds that the end of a run waits for its trackers


def require_clients(names: Iterable[str]) -> None:
    """Raises ConfigError if the client of a tracker is not installed."""
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # without an origin it is a folder of this name, such as ./wandb
            raise ConfigError(f"log.trackers: {name} needs its client: pip install -e '.[{name}]'.")


class Tracking:
    """What goes to the trackers of a run; of its methods only `close` waits for one.

    Scores have the names of TensorBoard's: "train/loss", "val/mean_iou", "val/iou/CLASS".
    """

    def __init__(self, config: ConfigDict, workdir: Path):
        """Args:
        config: of the run; `log.trackers` and `log.project` are those keys.
        workdir: the directory of the run.
        """
        self._config, self._workdir = config, workdir
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()
        self._lanes: list[_Lane] = []

    def start(self, warn: Callable[[str], None]) -> None:
        """Opens the run in each tracker; `warn` prints a warning, and is called in other threads."""
        self._names = _read_names(self._workdir / TRACKERS_FILE)
        for name in dict.fromkeys(self._config.log.trackers):
            known = self._names[name] if name in self._names else ""
            about = About(self._workdir, self._config.log.project, flatten(self._config.to_dict()), known)
            self._lanes.append(_Lane(name, about, warn, self._keep))
            self._lanes[-1].start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the finite ones of these numbers."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._send(lambda tracker: tracker.scalars(step, finite))

    def evaluation(self, step: int, split: str, result: Scores, classes: Sequence[str]) -> None:
        """Sends a table of the scores of each class; a class without a name has its index."""
        numbers = (result.iou, result.precision, result.recall, result.f1)
        names = [*map(printable, classes), *map(str, range(len(classes), len(result.iou)))]
        rows = [
            (names[i], *(None if math.isnan(each[i]) else float(each[i]) for each in numbers), int(result.support[i]))
            for i in range(len(result.iou))
        ]
        heads = ("class", "iou", "precision", "recall", "f1", "pixels")
        self._send(lambda tracker: tracker.table(step, f"{split}/classes", heads, rows))

    def picture(self, step: int, name: str, images: np.ndarray) -> None:
        """Sends pictures u8[n,h,w,3]."""
        self._send(lambda tracker: tracker.picture(step, name, images), images.nbytes)

    def final(self, step: int, summary: Mapping[str, float], scored: Sequence[Mapping[str, Any]]) -> None:
        """Sends the scores of the last step, and the best of the evaluations `scored`, which are records of the log."""
        numbers = {"final/step": step} | {f"final/{name}": value for name, value in summary.items()}
        known = [record for record in scored if record["mean_iou"] is not None]
        if known:
            best = max(known, key=lambda record: record["mean_iou"])
            numbers |= {"best/step": best["step"], "best/mean_iou": best["mean_iou"]}
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        self._send(lambda tracker: tracker.final(finite))

    def close(self, how: str = FINISHED) -> None:
        """Ends this start in each tracker, `how` as in `trackers.about`; waits up to a minute for them."""
        until = time.monotonic() + _PATIENCE
        for lane in self._lanes:
            lane.end(how)
        for lane in self._lanes:
            lane.join(until - time.monotonic())

    def _send(self, what: Callable[[Tracker], None], size: int = 0) -> None:
        for lane in self._lanes:
            lane.send(what, size)

    def _keep(self, name: str, of_run: str) -> None:
        with self._lock:
            if name not in self._names or self._names[name] != of_run:
                self._names[name] = of_run
                write_json(self._workdir / TRACKERS_FILE, self._names)


class _Lane:
    """One tracker, its thread, and what waits for it."""

    def __init__(self, name: str, about: About, warn: Callable[[str], None], keep: Callable[[str, str], None]):
        self._name, self._about, self._warn, self._keep = name, about, warn, keep
        self._waiting: collections.deque[tuple[Callable[[Tracker], None], int]] = collections.deque()
        self._news = threading.Condition()
        self._how = ""  # how the run has ended, once it has
        self._broken = self._skips = False
        self._thread = threading.Thread(target=self._run, name=f"jaxseg-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, what: Callable[[Tracker], None], size: int) -> None:
        """Puts an entry behind those that wait; `size` is the bytes of its pictures, 0 without any."""
        if len(self._waiting) >= _AHEAD:
            self._fail(f"{counted(_AHEAD, 'entry')} wait for it")
        with self._news:
            if not self._broken:
                self._waiting.append((what, size))
            skipped = bool(size) and self._skip()
            first, self._skips = skipped and not self._skips, self._skips or skipped
            self._news.notify()
        if first:
            self._warn(f"warning: {self._name} is behind this run: pictures that wait for it are left out.")

    def _skip(self) -> bool:
        """Leaves out the oldest pictures that wait, until the others have room; returns whether there were any."""
        sizes = [size for _, size in self._waiting]
        excess, kept = sum(sizes) - _ROOM, []
        for (what, size), newer in zip(self._waiting, range(len(sizes) - 1, -1, -1)):
            if size and newer and excess > 0:
                excess -= size
            else:
                kept.append((what, size))
        self._waiting = collections.deque(kept)
        return len(kept) < len(sizes)

    def end(self, how: str) -> None:
        with self._news:
            self._how = how
            self._news.notify()

    def join(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._fail(f"it has not taken everything {_PATIENCE:.0f} s after the end of the run")

    def _run(self) -> None:
        try:
            tracker = OPENERS[self._name](self._about)
            self._keep(self._name, tracker.name)
            while not self._broken and (what := self._next()) is not None:
                what(tracker)
            tracker.close(self._how or FAILED)
        except BaseException as error:  # whatever a client raises, SystemExit too: it ends this thread alone
            self._fail(_without_secrets(first_line(error)))

    def _next(self) -> Callable[[Tracker], None] | None:
        """Waits for what comes next; None: the run has ended."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._how)
            return self._waiting.popleft()[0] if self._waiting else None

    def _fail(self, why: str) -> None:
        with self._news:
            if self._broken:
                return
            self._broken = True
            self._waiting.clear()
        self._warn(f"warning: {self._name} does not track this run from here on, which goes on without it: {why}.")


def _without_secrets(text: str) -> str:
    """Returns a client's words with "..." for the user and password of an address, and for its keys."""
    for name in _KEYS:
        if os.getenv(name):
            text = text.replace(os.environ[name], "...")
    return re.sub(r"://\S*@", "://...@", text)


def _read_names(file: Path) -> dict[str, str]:
    """Returns {tracker: its name for the run}; {} if nothing readable is there."""
    try:
        names = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in names.items() if isinstance(v, str)} if isinstance(names, dict) else {}
