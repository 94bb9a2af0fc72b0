"""Reports a run: a progress bar or plain lines on the console, `log.jsonl`, and optional TensorBoard files.

The metrics of a step are read after the next step is dispatched to the device, so that the device never waits for the
host. `log.jsonl` has two kinds of line. A log step has {"step", "split": "train", "loss", "mean_iou", "grad_norm",
"param_norm", "loss/TERM" for each part of the loss before its weight, "learning_rate", "images_per_second"} over the
steps since the previous line. An evaluation has {"step", "split": "val", "loss", "mean_iou", "pixel_accuracy", ...,
"iou"}, with "frechet_distance" and "frechet_distance_of_training" of a network that generates images. If the steps
report gradients, `gradients.jsonl` has a line {"step", "norms"} for the first step, whose gradient is that at
initialisation, and for each log step.
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

from jaxseg.errors import printable
from jaxseg.files import parse_json, write_text
from jaxseg.metrics import Scores, scores
from jaxseg.run.pace import Pace, duration
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
        """Whether the loss and the norms of the gradient and of the new parameters are finite."""
        return all(map(math.isfinite, (self.loss, self.grad_norm, self.param_norm)))


class Reporter:
    """Writes to the console, `log.jsonl` and TensorBoard of one run; a context manager. Only process 0 reports."""

    def __init__(
        self,
        workdir: str | Path,
        *,
        every: int,
        tensorboard: bool = True,
        classes: Sequence[str] = (),
        stream: TextIO | None = None,
        advice: str = "",
    ):
        """Args:
        workdir: the directory of the run; it exists.
        every: steps between log lines.
        tensorboard: whether to write TensorBoard files to workdir/tensorboard.
        classes: class names for the IoU of each class.
        stream: the console, standard error by default; a terminal has a progress bar.
        advice: what would be quicker, for a run that takes long.
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
        self._pace = Pace(0, advice)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def start(self, step: int, total: int, window: Mapping[str, Any] | None = None) -> None:
        """Opens the log at `step` of `total`; removes its records of later steps, which this start repeats.

        Args:
            step: the number of steps made before.
            total: the steps of the whole run.
            window: the value of `open_window` at `step`: the next line then has the numbers of a run without a stop,
                except for images/s.
        """
        self._total = total
        self._pace = Pace(total, self._pace.advice)
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
            step: the number of steps made, including this one.
            metrics: the metrics of a step of `make_train_step` with a schedule.
            images: images in the batch of this step, over all processes.
        """
        done = self._read()
        for leaf in jax.tree.leaves(dict(metrics)):
            if isinstance(leaf, jax.Array):
                leaf.copy_to_host_async()
        self._pending = (step, metrics, images)
        return done

    def flush(self) -> StepMetrics | None:
        """Reads the metrics of the pending step (waits for the device) and stops the clock of images/s.

        Call it before an evaluation or a checkpoint, and at the end.
        """
        self._clock = None  # times run from dispatch to dispatch, and no dispatch follows this step
        done = self._read()
        self._clock = None
        return done

    def open_window(self) -> dict[str, Any] | None:
        """Returns the sums over the steps since the last log line as JSON values; None if there is no such step.

        Call it after `flush`.
        """
        return self._window.state()

    def evaluation(
        self, step: int, result: Scores, loss: float, split: str = "val", more: Mapping[str, float] | None = None
    ) -> None:
        """Reports the scores of an evaluation, and `more` numbers by name."""
        self.flush()
        record = {"step": step, "split": split, "loss": loss}
        record |= {name: getattr(result, name) for name in _SUMMARY} | dict(more or {})
        if result.hamming_accuracy is not None:
            record["hamming_accuracy"] = result.hamming_accuracy
        scalars = dict(record)
        record["iou"] = [float(value) for value in result.iou]
        if len(self._classes) == len(result.iou):
            scalars |= {f"iou/{printable(name)}": value for name, value in zip(self._classes, result.iou)}
        self._record(record, scalars)
        if math.isnan(result.pixel_accuracy):
            scores = "no labelled pixel, so nothing to score" + ("" if math.isnan(loss) else f"  loss {loss:.4f}")
        else:
            accuracy = "pixel accuracy" if result.hamming_accuracy is None else "exact match"
            scores = f"mIoU {100 * result.mean_iou:.2f} %  {accuracy} {100 * result.pixel_accuracy:.2f} %  "
            scores += f"loss {loss:.4f}"
        self.message(
            f"step {step}/{self._total}  {split}: {scores}"
            + "".join(
                f"  {name.replace('_', ' ')} {value}" if isinstance(value, int) else f"  {name} {value:.4f}"
                for name, value in (more or {}).items()
            )
        )

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an image u8[h,w,3], or several u8[n,h,w,3], to TensorBoard if this is on."""
        if self._writer is not None:
            images = image[None] if image.ndim == 3 else image
            self._writer.add_images(name, images, step, dataformats="NHWC")

    def message(self, text: str) -> None:
        """Prints a line on the console, above the progress bar if there is one."""
        if not self._active:
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Reads the metrics of the pending step and closes the files; further calls do nothing."""
        try:
            self.flush()
        finally:
            for resource in (self._bar, self._writer, self._log, self._gradients):
                if resource is not None:
                    resource.close()
            self._bar = self._writer = self._log = self._gradients = self._pending = None

    def _read(self) -> StepMetrics | None:
        """Reads the metrics of the pending step; if it is a log step, writes the line."""
        if self._pending is None:
            return None
        (step, metrics, images), self._pending = self._pending, None
        host = jax.tree.map(np.asarray, dict(metrics))
        now = time.perf_counter()
        seconds = None if self._clock is None else now - self._clock
        self._window.add(host, images, seconds)
        self._clock = now
        if forecast := self._pace.add(step, seconds):
            self.message(forecast)
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
        shown = {"loss": f"{record['loss']:.4f}", "mIoU": f"{100 * record['mean_iou']:.2f} %"}
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

    def add(self, host: Mapping[str, Any], images: int, seconds: float | None) -> None:
        terms = host["terms"] if "terms" in host else {}
        numbers = {name: host[name] for name in ("loss", "grad_norm", "param_norm")}
        for name, value in (numbers | {f"loss/{term}": value for term, value in terms.items()}).items():
            self._means.setdefault(name, []).append(float(value))
        self._learning_rate = float(host["learning_rate"])
        self._confusion = self._confusion + host["confusion"].astype(np.int64)
        if seconds is not None:  # None for the first step after a pause
            self._timed_images += images
            self._timed_steps += 1
            self._seconds += seconds

    def state(self) -> dict[str, Any] | None:
        """Returns the sums without the times, which a stop interrupts; None if there are no steps."""
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
    """Appends records to a file of JSON lines; on a full disk, leaves out the line and warns once."""

    def __init__(self, path: Path, step: int):
        """Opens the log at `step`; removes records of later steps and incomplete lines."""
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
                raise OSError("no space for a complete line")
        except OSError as error:
            os.ftruncate(self._handle, size)
            if not self._warned:
                text = f"{self._path}: lines are missing from step {record['step']} on: {error}."
                warnings.warn(text, stacklevel=5)
            self._warned = True

    def close(self) -> None:
        os.close(self._handle)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Returns the records of a `log.jsonl`, oldest first; incomplete lines are left out."""
    records = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record["step"] if "step" in record else None, int):
            records.append(record)
    return records


def _plain(value: Any) -> Any:
    """Returns the value with None, which JSON writes as null, in place of NaN and infinity."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
