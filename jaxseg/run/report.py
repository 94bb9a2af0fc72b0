"""Reports a run: a live display or plain lines on the console, `log.jsonl`, TensorBoard files and trackers.

The metrics of a step are read after the next step is dispatched to the device, so that the device never waits for the
host. `log.jsonl` has two kinds of line. A log step has {"step", "split": "train", "loss", "mean_iou", "grad_norm",
"param_norm", "loss/TERM" for each part of the loss before its weight, "learning_rate", "images_per_second"} over the
steps since the previous line. An evaluation has {"step", "split": "val", "loss", "mean_iou", "pixel_accuracy", ...,
"iou"}, with "frechet_distance" and "frechet_distance_of_training" of a network that generates images. If the steps
report gradients, `gradients.jsonl` has a line {"step", "norms"} for the first step, whose gradient is that at
initialisation, and for each log step.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import jax
import numpy as np

from jaxseg.errors import printable
from jaxseg.metrics import Scores
from jaxseg.run.log_file import LOG_FILE, Log, evaluations, read_log
from jaxseg.run.pace import Pace, Rhythm, Times, duration
from jaxseg.run.signals import write_notice
from jaxseg.run.trackers.about import FAILED, FINISHED, STOPPED
from jaxseg.run.tracking import Tracking
from jaxseg.run.window import Window
from jaxseg.types import Array

if TYPE_CHECKING:
    from jaxseg.run.display import Display

__all__ = ["GRADIENTS_FILE", "LOG_FILE", "Reporter", "StepMetrics", "read_log"]
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
        progress: str = "lines",
        rhythm: Rhythm | None = None,
        began: float | None = None,
        tracking: Tracking | None = None,
    ):
        """Args:
        workdir: the directory of the run; it exists.
        every: steps between log lines.
        tensorboard: whether to write TensorBoard files to workdir/tensorboard.
        classes: class names for the IoU of each class.
        stream: the console, standard error by default.
        advice: what would be quicker, for a run that takes long.
        progress: auto (a live display where the console is a terminal, else a line for each log step), lines, or none
            (neither; messages and evaluations are printed all the same).
        rhythm: what comes between the steps, for the time that is left.
        began: when this start began, by `time.perf_counter`; None: now.
        tracking: the trackers of the run, if it has any.
        """
        self._workdir = Path(workdir)
        self._every = every
        self._classes = tuple(classes)
        self._active = jax.process_index() == 0
        self._stream = sys.stderr if stream is None else stream
        self._tensorboard = tensorboard and self._active
        self._writer: Any = None
        self._log: Log | None = None
        self._gradients: Log | None = None
        self._display: Display | None = None
        self._progress = progress
        self._tracking = tracking if self._active else None
        self._how = STOPPED
        self._rhythm = rhythm or Rhythm()
        self._status: Any = None  # of the display
        self._times = Times(self._rhythm, 0)
        self._began = time.perf_counter() if began is None else began
        self._pending: tuple[int, Mapping[str, Array], int] | None = None
        self._window = Window()
        self._clock: float | None = None
        self._total = 0
        self._pace = Pace(0, advice)

    def __enter__(self) -> "Reporter":
        if self._active and self._progress == "auto":
            from jaxseg.run.display import Display, is_live  # imports rich, which other runs do not need
            from jaxseg.run.panel import Status

            if is_live(self._stream):
                self._status = Status(self._began, self._every)
                self._display = Display(self._stream, self._status)
                self._display.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None and issubclass(kind, Exception):  # a signal is none
            self._how = FAILED
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
        self._window = Window(window)
        self._times = Times(self._rhythm, total)
        if not self._active:
            return
        self._log = Log(self._workdir / LOG_FILE, step)
        if self._tensorboard:
            from tensorboardX import SummaryWriter

            purge = step + 1 if step else None
            self._writer = SummaryWriter(str(self._workdir / TENSORBOARD), purge_step=purge)
        if self._tracking is not None:
            self._tracking.start(self.message)
        if self._status is not None:
            self._status.step, self._status.times = step, self._times
            for record in evaluations(self._workdir / LOG_FILE):
                value = record["mean_iou"]
                self._status.evaluated(record["step"], math.nan if value is None else value)

    def train(self, step: int, metrics: Mapping[str, Array], images: int) -> StepMetrics | None:
        """Takes the metrics of a step that was just dispatched; reads and returns those of the step before.

        Args:
            step: the number of steps made, including this one.
            metrics: the metrics of a step of `make_train_step` with a schedule.
            images: images in the batch of this step, over all processes.
        """
        done = self._read()
        self._times.go_on(time.perf_counter())
        self._doing("training")
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
        self._times.pause(time.perf_counter())
        return done

    @contextlib.contextmanager
    def scoring(self, source: Sized) -> Iterator[Callable[[int], None]]:
        """Says that an evaluation of a source goes on; yields what takes the number of images that are scored."""
        images = -(-len(source) // jax.process_count())  # of this process
        self._times.pause(time.perf_counter())
        self._times.evaluates()
        self._doing("evaluating", (0, images))

        def scored(count: int) -> None:
            if self._status is not None:
                self._status.scored = (self._status.scored[0] + count, images)

        yield scored
        self._doing("saving and drawing")

    def _doing(self, what: str, scored: tuple[int, int] | None = None) -> None:
        if self._status is not None:
            self._status.doing, self._status.scored = what, scored

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
        if self._tracking is not None:
            self._tracking.evaluation(step, split, result, self._classes)
        if self._status is not None:
            self._status.evaluated(step, result.mean_iou)
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

    def final(self, step: int, result: Scores) -> None:
        """Reports the scores of the last step of a run that is complete, and its best evaluation."""
        self._how = FINISHED
        self._doing("ending")
        if self._tracking is not None:
            summary = {name: getattr(result, name) for name in _SUMMARY}
            self._tracking.final(step, summary, evaluations(self._workdir / LOG_FILE))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an image u8[h,w,3], or several u8[n,h,w,3], to TensorBoard and the trackers."""
        images = image[None] if image.ndim == 3 else image
        if self._tracking is not None:
            self._tracking.picture(step, name, images)
        if self._writer is not None:
            self._writer.add_images(name, images, step, dataformats="NHWC")

    def message(self, text: str) -> None:
        """Prints a line on the console, above the display if there is one."""
        if not self._active:
            return
        if self._display is not None:
            self._display.message(text)
        else:
            print(text, file=self._stream, flush=True)

    def notice(self, text: str) -> None:
        """Prints a line without waiting for another, as a signal handler must."""
        if self._display is not None:
            self._display.message(text)
        else:
            write_notice(text)

    def close(self) -> None:
        """Reads the metrics of the pending step and closes the files; further calls do nothing.

        After an error the last state of the display stays on the terminal.
        """
        with contextlib.ExitStack() as ending:  # from the last to the first, whatever fails or is interrupted
            ending.callback(self._close, "_display", keep=self._how == FAILED)
            for name in ("_gradients", "_log", "_writer"):
                ending.callback(self._close, name)
            ending.callback(self._close, "_tracking", how=self._how)
            ending.callback(self._doing, "ending")
            self.flush()

    def _close(self, name: str, **options: Any) -> None:
        closed = getattr(self, name)
        setattr(self, name, None)
        if closed is not None:
            closed.close(**options)

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
        if seconds is not None:
            self._times.step(seconds)
        if self._status is not None:
            self._status.step = step
        due = step % self._every == 0 or step == self._total
        if "gradients" in host and self._log is not None and (due or step == 1):
            self._gradients = self._gradients or Log(self._workdir / GRADIENTS_FILE, step - 1)
            self._gradients.append({"step": step, "norms": {name: float(x) for name, x in host["gradients"].items()}})
        if due:
            self._report(step)
        return StepMetrics(step, *(float(host[name]) for name in ("loss", "grad_norm", "param_norm")))

    def _report(self, step: int) -> None:
        record = {"step": step, "split": "train", **self._window.summary()}
        left = self._window.seconds_a_step * (self._total - step)
        self._window = Window()
        if not self._active:
            return
        self._record(record, record)
        if self._status is not None:
            self._status.train = record
        if self._status is not None or self._progress == "none":
            return
        rate = record["images_per_second"]
        shown = {"loss": f"{record['loss']:.4f}", "mIoU": f"{100 * record['mean_iou']:.2f} %"}
        shown["img/s"] = f"{rate:.4g}" if math.isfinite(rate) else "-"
        numbers = "  ".join(f"{name} {value}" for name, value in shown.items())
        self.message(f"step {step}/{self._total}  {numbers}  {duration(left)} left")

    def _record(self, record: Mapping[str, Any], scalars: Mapping[str, Any]) -> None:
        if self._log is not None:
            self._log.append(record)
        named = {f"{record['split']}/{k}": v for k, v in scalars.items() if k not in ("step", "split")}
        if self._tracking is not None:
            self._tracking.scalars(record["step"], named)
        if self._writer is not None:
            for name, value in named.items():
                if math.isfinite(value):
                    self._writer.add_scalar(name, value, record["step"])
