"""The live display: what a person sees, what stands above it, and that the run is the same as without it."""

import io
import logging
import math
import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.terminal import Terminal
from rich.console import Console

from jaxseg import memory
from jaxseg.memory import DeviceMemory
from jaxseg.metrics import scores
from jaxseg.run import display
from jaxseg.run.display import Display
from jaxseg.run.pace import Rhythm, Times
from jaxseg.run.panel import Status, panel
from jaxseg.run.report import Reporter


@pytest.fixture(autouse=True)
def terminal_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)


def step_metrics(step: int) -> dict[str, Any]:
    values = {"loss": step, "grad_norm": 2 * step, "param_norm": 3 * step, "learning_rate": 0.5 / step}
    terms = {"cross_entropy": np.float32(0.25), "dice": np.float32(step - 0.25)}
    matrix = np.array([[3, 1], [0, 4]], np.int32)
    return {**{name: np.float32(value) for name, value in values.items()}, "terms": terms, "confusion": matrix}


def status(**fields: Any) -> Status:
    times = Times(Rhythm(evaluations=200, checkpoints=200, epoch=400), 5000)
    times.step(0.5)
    record = {"loss": 0.5, "mean_iou": 0.7, "learning_rate": 0.01, "images_per_second": 412.34}
    record |= {"loss/cross_entropy": 0.3, "loss/dice": 0.2}
    return Status(began=-125.0, every=20, doing="training", step=1240, times=times, train=record, **fields)


def shown(status: Status, width: int = 100, host: int | None = 1_500_000_000, device: Any = None) -> list[str]:
    console = Console(width=width, color_system=None, file=io.StringIO())
    console.print(panel(status, 0.0, width, host, device))
    lines = console.file.getvalue().splitlines()  # pyright: ignore
    assert all(line[width - 4 :] == "" for line in lines)
    return [line.rstrip() for line in lines]


def test_what_it_shows() -> None:
    known = status(last=(1200, 0.7431), best=(1000, 0.7502))
    lines = shown(known, device=DeviceMemory(3_400_000_000, 5_100_000_000, 16_000_000_000))
    assert lines[0].startswith("step        1240 of 5000  ━") and lines[0].endswith("24.8 %  epoch 3.1 of 12.5")
    assert lines[1:] == [
        "now         training",
        "training    loss 0.5000  mIoU 70.00 %  lr 0.01  cross_entropy 0.3000  dice 0.2000",
        "validation  mIoU 74.31 % at step 1200  best 75.02 % at step 1000",
        "time        2 min 05 s elapsed  about 31 min 20 s left, plus 19 evaluations  412.3 images/s",
        "memory      host 1.5 GB  device 3.4 GB of 16 GB, at most 5.1 GB so far",
    ]
    known.doing, known.scored = "evaluating", (48, 100)
    assert shown(known)[1].startswith("now         evaluating  ━") and shown(known)[1].endswith("48 of 100 images")
    assert len(shown(known, host=None)) == 5


def test_before_anything_is_known() -> None:
    assert shown(Status(began=-3.0), host=None) == ["now         starting", "time        0 min 03 s elapsed"]
    begun = Status(began=-3.0, every=20, step=25, times=Times(Rhythm(evaluations=30), 50))
    lines = shown(begun, host=None)
    assert lines[2:4] == ["training    first numbers at step 40", "validation  first evaluation at step 30"]
    assert lines[4] == "time        0 min 03 s elapsed  time left not known yet"
    begun.evaluated(30, math.nan)
    assert shown(begun, host=None)[3] == "validation  mIoU - at step 30"


@pytest.mark.parametrize("width", [24, 40, 60, 100])
def test_no_line_fills_the_terminal(width: int) -> None:
    """Four columns stay free for ^C twice: on a full line it would begin another, and the next drawing be one off."""
    known = status(last=(1200, 0.7431), best=(1000, 0.7502), scored=(1, 2))
    lines = shown(known, width, device=DeviceMemory(1, 2, 3))
    assert len(lines) == 6
    words = ("step", "now", "training", "validation", "time", "memory")
    assert all(line.startswith(word) for line, word in zip(lines, words))


def test_the_best_is_the_highest_number() -> None:
    known = Status(began=0.0)
    for step, value in ((1, math.nan), (2, 0.5), (3, 0.7), (4, 0.6), (5, math.nan)):
        known.evaluated(step, value)
    assert known.best == (3, 0.7) and known.last[0] == 5


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.001)


def report_a_run(workdir: Path, stream: Terminal, steps: range, **options: Any) -> None:
    with Reporter(workdir, every=2, tensorboard=False, stream=stream, progress="auto", **options) as reporter:
        reporter.start(steps.start - 1, 6)
        for step in steps:
            reporter.train(step, step_metrics(step), 8)
        with reporter.scoring(range(10)) as scored:
            scored(4)
        reporter.evaluation(steps[-1], scores(np.eye(2, dtype=int)), 0.5)


def test_a_run_on_a_terminal(tmp_path: Path) -> None:
    """At its end the display is gone, and the lines stay; the cursor is where the next line begins."""
    stream = Terminal()
    report_a_run(tmp_path, stream, range(1, 5))
    screen = stream.screen()
    assert screen.text.strip() == "step 4/6  val: mIoU 100.00 %  pixel accuracy 100.00 %  loss 0.5000"
    assert (screen.row, screen.column, screen.hidden) == (1, 0, False)
    assert "\x1b[?25l" not in stream.getvalue(), "the cursor is never hidden"


def test_after_an_error_the_last_state_stays(tmp_path: Path) -> None:
    stream = Terminal()
    with (
        pytest.raises(ZeroDivisionError),
        Reporter(tmp_path, every=2, tensorboard=False, stream=stream, progress="auto") as reporter,
    ):
        reporter.start(2, 6)
        reporter.train(3, step_metrics(3), 8)
        reporter.flush()
        raise ZeroDivisionError
    screen = stream.screen()
    assert "step        3 of 6" in screen.text and screen.column == 0 and screen.row == len(screen.lines) - 1


def test_a_resumed_run_knows_its_scores(tmp_path: Path) -> None:
    report_a_run(tmp_path, Terminal(), range(1, 5))
    stream = Terminal()
    with Reporter(tmp_path, every=2, tensorboard=False, stream=stream, progress="auto") as reporter:
        reporter.start(4, 6)
        assert reporter._status.best == (4, 1.0) and reporter._status.step == 4


def test_all_that_is_printed_stands_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prints, warnings, logging and what a signal handler says, whole and in order, over a display that goes on."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    handler, logger = logging.StreamHandler(), logging.getLogger("jaxseg.test.display")
    logger.addHandler(handler)
    monkeypatch.setattr(display, "_PAUSE", 0.001)
    long = "w" * 130
    shown = Display(stream, status())
    shown.open()
    assert handler.stream is not stream and not sys.stderr.isatty()
    print("a print", end="")
    print(" in two")
    print("[bold]no markup[/bold]", "and \x1b[31mred\x1b[0m", file=sys.stderr)
    sys.stderr.write("x.py:1: UserWarning: a warning\n  warnings.warn()\n")  # as `warnings` does
    logger.warning("a log line")
    shown.message(long)
    shown.message("SIGINT: finishing this step")
    wait_until(lambda: "SIGINT: finishing this step" in stream.getvalue())
    sys.stdout.write("without an end")
    open_screen = stream.screen()
    shown.close(keep=True)
    logger.removeHandler(handler)
    assert handler.stream is stream and sys.stderr is stream and sys.stdout is stream
    lines = stream.screen().text.splitlines()
    assert lines[:2] == ["a print in two", "[bold]no markup[/bold] and red"]
    assert lines[2:4] == ["x.py:1: UserWarning: a warning", "  warnings.warn()"]
    assert lines[4:8] == ["a log line", long[:100], long[100:], "SIGINT: finishing this step"]
    assert lines[8].startswith("step        1240 of 5000") and lines[13].startswith("memory")
    assert lines[14:] == ["without an end"]
    assert open_screen.text.splitlines()[8:] == lines[8:14], "the display was there meanwhile"


def test_what_goes_to_a_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, file = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    shown = Display(stream, status())
    shown.open()
    print("for the file")
    shown.close(keep=False)
    assert file.getvalue() == "for the file\n" and stream.screen().text.strip() == ""


@pytest.mark.parametrize(
    ("progress", "term", "process", "live"),
    [
        ("auto", "xterm", 0, True),
        ("auto", "xterm", 1, False),
        ("auto", "dumb", 0, False),
        ("lines", "xterm", 0, False),
        ("none", "xterm", 0, False),
    ],
)
def test_who_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: str, term: str, process: int, live: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    stream = Terminal()
    with Reporter(tmp_path, every=1, tensorboard=False, stream=stream, progress=progress) as reporter:
        reporter.start(0, 2)
        reporter.train(1, step_metrics(1), 8)
        reporter.message("hello")
    drawn = stream.getvalue()
    assert ("\x1b" in drawn) is live
    assert drawn.startswith("step 1/2") is False and ("hello" in drawn) is (process == 0)
    lines = progress == "lines" or term == "dumb"
    assert ("step 1/2  loss 1.0000  mIoU 77.50 %" in drawn) is lines


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    colors = {}
    for value in (None, "1"):
        if value is not None:
            monkeypatch.setenv("NO_COLOR", value)
        stream = Terminal()
        shown = Display(stream, status())
        shown.open()
        shown.close(keep=True)
        colors[value] = any(f"\x1b[{code}" in stream.getvalue() for code in ("38;", "3", "9"))
    assert colors == {None: True, "1": False}


def test_a_terminal_that_is_gone_ends_the_drawing_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_PAUSE", 0.001)
    stream = Terminal()
    shown = Display(stream, status())
    shown.open()
    tries: list[str] = []

    def gone(text: str) -> int:
        tries.append(text)
        raise OSError("Input/output error")

    monkeypatch.setattr(stream, "write", gone)
    wait_until(lambda: len(tries) >= 3)
    assert shown._thread.is_alive()
    monkeypatch.undo()
    shown.close(keep=False)


def test_memory_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.device_memory() is None, "CPUs do not say"
    before = memory.host_memory()
    with mmap.mmap(-1, 2**26) as block:  # its pages are not those that an array before it left
        block.write(b"1" * 2**26)
        assert before is not None and memory.host_memory() - before > 0.8 * 2**26

    class Device:
        def __init__(self, stats: Any):
            self.stats = stats

        def memory_stats(self) -> Any:
            if self.stats is None:
                raise jax.errors.JaxRuntimeError("UNIMPLEMENTED")
            return self.stats

    full = {"bytes_in_use": 7, "peak_bytes_in_use": 9, "bytes_limit": 16, "num_allocs": 3}
    devices = [Device({"bytes_in_use": 5}), Device(full), Device(None), Device({})]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert memory.device_memory() == (7, 9, 16)
