"""What a run tells its user: a progress bar or plain lines, `log.jsonl`, and TensorBoard files where wanted.

Metrics of a step are read when the next step has been handed to the device, so that the device never waits for the
host. `log.jsonl` has one line a log step, {"step", "split": "train", "loss", "mean_iou", "grad_norm", "param_norm",
"learning_rate", "images_per_second"}, over the steps since the line before, and one an evaluation, {"step",
"split": "val", "loss", "mean_iou", "pixel_accuracy", ..., "iou"}. Steps that report gradients give `gradients.jsonl` a
line {"step", "norms"} of the first step, whose gradient is that at initialisation, and of each log step.
"""

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import numpy as np
from tqdm import tqdm

from jaxseg.files import write_text
from jaxseg.metrics import Scores, scores
from jaxseg.types import Array

LOG_FILE = "log.jsonl"
GRADIENTS_FILE = "gradients.jsonl"
TENSORBOARD = "tensorboard"
_SUMMARY = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "mean_f1")


class StepMetrics(NamedTuple):
    """The numbers of one step, on the host."""

    step: int
    loss: float
    grad_norm: float
    param_norm: float

    @property
    def finite(self) -> bool:
        """False once loss, gradient or the norm of the new parameters is NaN or infinite: they are of no use."""
        return all(map(math.isfinite, (self.loss, self.grad_norm, self.param_norm)))


class Reporter:
    """Console, `log.jsonl` and TensorBoard of one run; a context manager. Of several processes, the first reports."""

    def __init__(
        self,
        workdir: str | Path,
        *,
        every: int,
        tensorboard: bool = True,
        classes: Sequence[str] = (),
        stream: TextIO | None = None,
    ):
        """Args:
        workdir: directory of the run, which exists.
        every: steps between log lines.
        tensorboard: also write TensorBoard files under workdir/tensorboard.
        classes: class names for the IoU of each class.
        stream: where the console output goes, standard error by default; a progress bar if it is a terminal.
        """
        self._workdir = Path(workdir)
        self._every = every
        self._classes = tuple(classes)
        self._active = jax.process_index() == 0
        self._stream = sys.stderr if stream is None else stream
        self._tensorboard = tensorboard and self._active
        self._writer: Any = None
        self._log: _Log | None = None
        self._gradients: _Log | None = None
        self._bar: tqdm | None = None
        self._pending: tuple[int, Mapping[str, Array], int] | None = None
        self._window = _Window()
        self._clock: float | None = None
        self._total = 0

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def start(self, step: int, total: int, window: Mapping[str, Any] | None = None) -> None:
        """Begins at `step` of `total`; records of later steps, of a run that was killed, are dropped.

        Args:
            step: the number of steps made before.
            total: the steps of the whole run.
            window: what `open_window` returned at `step`, so the next line is as without a pause, but for images/s.
        """
        self._total = total
        self._window = _Window(window)
        if not self._active:
            return
        self._log = _Log(self._workdir / LOG_FILE, step)
        if self._tensorboard:
            from tensorboardX import SummaryWriter

            purge = step + 1 if step else None
            self._writer = SummaryWriter(str(self._workdir / TENSORBOARD), purge_step=purge)
        if self._stream.isatty():
            self._bar = tqdm(total=total, initial=step, file=self._stream, unit="step", dynamic_ncols=True)

    def train(self, step: int, metrics: Mapping[str, Array], images: int) -> StepMetrics | None:
        """Takes the metrics of a step that was just dispatched; reads and returns those of the step before.

        Args:
            step: the number of steps made, this one included.
            metrics: what a step of `make_train_step` with a schedule returns.
            images: images in this step's batch, over all processes.
        """
        done = self._read()
        for leaf in jax.tree.leaves(dict(metrics)):
            if isinstance(leaf, jax.Array):
                leaf.copy_to_host_async()
        self._pending = (step, metrics, images)
        return done

    def flush(self) -> StepMetrics | None:
        """Reads the step that is still pending (waits for the device) and stops the clock of images/s.

        Call it before an evaluation or a checkpoint, and at the end.
        """
        self._clock = None  # the steps are timed from dispatch to dispatch, and none follows this one
        done = self._read()
        self._clock = None
        return done

    def open_window(self) -> dict[str, Any] | None:
        """Returns the sums over the steps since the last log line, for JSON; None where there is no such step.

        Call it after `flush`.
        """
        return self._window.state()

    def evaluation(self, step: int, result: Scores, loss: float, split: str = "val") -> None:
        """Reports the scores of an evaluation."""
        self.flush()
        record = {"step": step, "split": split, "loss": loss}
        record |= {name: getattr(result, name) for name in _SUMMARY}
        scalars = dict(record)
        record["iou"] = [float(value) for value in result.iou]
        if len(self._classes) == len(result.iou):
            scalars |= {f"iou/{name}": value for name, value in zip(self._classes, result.iou)}
        self._record(record, scalars)
        self.message(
            f"step {step}/{self._total}  {split}: mIoU {result.mean_iou:.4f}  "
            f"pixel accuracy {result.pixel_accuracy:.4f}  loss {loss:.4f}"
        )

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Shows u8[h,w,3], or several as u8[n,h,w,3], in TensorBoard; nothing without it."""
        if self._writer is not None:
            images = image[None] if image.ndim == 3 else image
            self._writer.add_images(name, images, step, dataformats="NHWC")

    def message(self, text: str) -> None:
        """Prints a line on the console without breaking the progress bar."""
        if not self._active:
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Reads what is pending and closes the files; more calls do nothing."""
        try:
            self.flush()
        finally:
            for resource in (self._bar, self._writer, self._log, self._gradients):
                if resource is not None:
                    resource.close()
            self._bar = self._writer = self._log = self._gradients = self._pending = None

    def _read(self) -> StepMetrics | None:
        """Converts the metrics of the pending step, and reports when a log step is complete."""
        if self._pending is None:
            return None
        (step, metrics, images), self._pending = self._pending, None
        host = jax.tree.map(np.asarray, dict(metrics))
        now = time.perf_counter()
        self._window.add(host, images, None if self._clock is None else now - self._clock)
        self._clock = now
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        due = step % self._every == 0 or step == self._total
        if "gradients" in host and self._log is not None and (due or step == 1):
            self._gradients = self._gradients or _Log(self._workdir / GRADIENTS_FILE, step - 1)
            self._gradients.append({"step": step, "norms": {name: float(x) for name, x in host["gradients"].items()}})
        if due:
            self._report(step)
        return StepMetrics(step, *(float(host[name]) for name in ("loss", "grad_norm", "param_norm")))

    def _report(self, step: int) -> None:
        record = {"step": step, "split": "train", **self._window.summary()}
        left = self._window.seconds_a_step * (self._total - step)
        self._window = _Window()
        if not self._active:
            return
        self._record(record, record)
        rate = record["images_per_second"]
        shown = {"loss": f"{record['loss']:.4f}", "mIoU": f"{record['mean_iou']:.4f}"}
        shown["img/s"] = f"{rate:.4g}" if math.isfinite(rate) else "-"
        if self._bar is not None:
            self._bar.set_postfix(shown)
        else:
            numbers = "  ".join(f"{name} {value}" for name, value in shown.items())
            self.message(f"step {step}/{self._total}  {numbers}  {duration(left)} left")

    def _record(self, record: Mapping[str, Any], scalars: Mapping[str, Any]) -> None:
        if self._log is not None:
            self._log.append(record)
        if self._writer is not None:
            for name, value in scalars.items():
                if name not in ("step", "split") and math.isfinite(value):
                    self._writer.add_scalar(f"{record['split']}/{name}", value, record["step"])


class _Window:
    """Sums over the steps since the last log line."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._means: dict[str, list[float]] = {"loss": [], "grad_norm": [], "param_norm": []}
        self._learning_rate = math.nan
        self._confusion: np.ndarray = np.zeros((), np.int64)
        if state is not None:
            self._means |= {name: list(values) for name, values in state["means"].items()}
            self._confusion = np.asarray(state["confusion"], np.int64)
        self._timed_images = 0
        self._timed_steps = 0
        self._seconds = 0.0

    def add(self, host: Mapping[str, np.ndarray], images: int, seconds: float | None) -> None:
        for name, values in self._means.items():
            values.append(float(host[name]))
        self._learning_rate = float(host["learning_rate"])
        self._confusion = self._confusion + host["confusion"].astype(np.int64)
        if seconds is not None:  # the first step after a pause has no beginning to measure from
            self._timed_images += images
            self._timed_steps += 1
            self._seconds += seconds

    def state(self) -> dict[str, Any] | None:
        """Returns the sums, but not the times, which a pause interrupts; None where there is nothing to sum."""
        if not self._means["loss"]:
            return None
        return {
            "means": {name: list(values) for name, values in self._means.items()},
            "confusion": np.asarray(self._confusion).tolist(),
        }

    @property
    def seconds_a_step(self) -> float:
        return self._seconds / self._timed_steps if self._timed_steps else math.nan

    def summary(self) -> dict[str, float]:
        rate = self._timed_images / self._seconds if self._seconds else math.nan
        numbers = {name: math.fsum(values) / len(values) for name, values in self._means.items()}
        numbers["mean_iou"] = scores(self._confusion).mean_iou
        return {**numbers, "learning_rate": self._learning_rate, "images_per_second": rate}


class _Log:
    """`log.jsonl`: whole lines or none. A full disk costs lines and a warning, never the run."""

    def __init__(self, path: Path, step: int):
        """Opens the log of a run that goes on from `step`; later and torn lines are removed."""
        self._path = path
        if path.exists():
            kept = "".join(json.dumps(record) + "\n" for record in read_log(path) if record["step"] <= step)
            if kept != path.read_text(encoding="utf-8", errors="replace"):
                write_text(path, kept)
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._warned = False

    def append(self, record: Mapping[str, Any]) -> None:
        line = (json.dumps(_plain(record), allow_nan=False) + "\n").encode()
        size = os.fstat(self._handle).st_size
        try:
            if os.write(self._handle, line) != len(line):
                raise OSError("no room for a whole line")
        except OSError as error:
            os.ftruncate(self._handle, size)
            if not self._warned:
                warnings.warn(f"{self._path} lacks lines from step {record['step']} on: {error}.", stacklevel=5)
            self._warned = True

    def close(self) -> None:
        os.close(self._handle)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Returns the records of a `log.jsonl`, oldest first; a torn last line is left out."""
    records = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record["step"] if "step" in record else None, int):
            records.append(record)
    return records


def _plain(value: Any) -> Any:
    """Returns the value as JSON has it: null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def duration(seconds: float) -> str:
    """Returns seconds in words, "?" for NaN and infinity."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
