"""What goes wrong while the display is open: the run goes on, the terminal is as it was, and no line is lost."""

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.terminal import Terminal

from jaxseg.run import display
from jaxseg.run.display import Display
from jaxseg.run.panel import Status
from jaxseg.run.report import Reporter


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal, which is standard error from here on; not a fixture, after which pytest sets standard error."""
    stream = Terminal()
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(display, "_PAUSE", 0.001)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.001)


def lines_of(stream: Terminal) -> list[str]:
    return [line for line in stream.screen().text.splitlines() if line]


def test_prints_in_a_drawing_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as those of a finaliser, in the thread that draws; and another thread may print meanwhile."""
    stream = terminal(monkeypatch)
    held, drawn = [], display.panel

    def prints(*values: Any) -> Any:
        if len(held) < 3:
            other = threading.Thread(target=print, args=("another thread",), kwargs={"file": sys.stderr}, daemon=True)
            other.start()
            other.join(10)
            held.append(other.is_alive())
            print("this thread", file=sys.stderr)
        return drawn(*values)

    monkeypatch.setattr(display, "panel", prints)
    shown = Display(stream, Status(0.0))
    shown.open()
    wait_until(lambda: len(held) == 3)
    shown.close(keep=False)
    assert held == [False] * 3
    assert lines_of(stream) == ["another thread", "this thread"] * 3


def test_a_stopped_terminal_holds_up_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    shown, go, writes = Display(stream, Status(0.0)), threading.Event(), threading.Event()
    shown.open()
    write = stream.write

    def stopped(text: str) -> int:
        writes.set()
        go.wait(30)
        return write(text)

    monkeypatch.setattr(stream, "write", stopped)
    assert writes.wait(30)
    began = time.monotonic()
    for i in range(3):
        shown.message(f"message {i}")
        print(f"print {i}", file=sys.stderr)
    assert time.monotonic() - began < 10
    go.set()
    shown.close(keep=False)
    assert lines_of(stream) == [f"{what} {i}" for i in range(3) for what in ("message", "print")]


def test_the_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    shown, go, stuck = Display(stream, Status(0.0)), threading.Event(), threading.Event()
    monkeypatch.setattr(display, "host_memory", lambda: None)
    shown.open()

    def panel(*_: Any) -> str:
        stuck.set()
        go.wait(30)
        return "a late drawing"

    monkeypatch.setattr(display, "panel", panel)
    monkeypatch.setattr(display, "_PATIENCE", 0.05)
    assert stuck.wait(30)
    print("the last line", file=sys.stderr)
    began = time.monotonic()
    shown.close(keep=False)
    assert time.monotonic() - began < 10 and sys.stderr is stream and "the last line\n" in stream.getvalue()
    go.set()
    shown._thread.join(30)
    assert not shown._thread.is_alive() and stream.screen().text.endswith("elapsed\nthe last line\n")


@pytest.mark.parametrize("good", [0, 1])
def test_an_error_in_a_drawing_ends_the_display_alone(monkeypatch: pytest.MonkeyPatch, good: int) -> None:
    stream = terminal(monkeypatch)
    drawings: list[int] = []

    def panel(*_: Any) -> str:
        drawings.append(1)
        if len(drawings) > good:
            raise ZeroDivisionError("division by zero.\nmore")
        return "drawn"

    monkeypatch.setattr(display, "panel", panel)
    shown = Display(stream, Status(0.0))
    shown.open()
    wait_until(lambda: "warning" in stream.getvalue())
    print("after it", file=sys.stderr)
    wait_until(lambda: "after it" in stream.getvalue())
    shown.close(keep=True)
    assert len(drawings) == good + 1 and sys.stderr is stream
    assert lines_of(stream) == ["warning: the live display ends here, the run goes on: division by zero.", "after it"]


def test_an_interrupted_start_restores_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)

    def interrupt(*_: Any) -> str:
        print("before", file=sys.stderr)
        raise KeyboardInterrupt

    monkeypatch.setattr(display, "panel", interrupt)
    shown = Display(stream, Status(0.0))
    with pytest.raises(KeyboardInterrupt):
        shown.open()
    assert sys.stderr is stream and lines_of(stream) == ["before"]


class _Ends:
    """A file or a tracker whose end raises an error."""

    def __init__(self, error: BaseException):
        self._error = error

    def close(self, **_: Any) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("name", "error"), [("_writer", OSError("No space left on device")), ("_tracking", SystemExit(130))]
)
def test_the_terminal_is_restored_whatever_ends_badly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    """A full disk at the end of a file, and a signal while a tracker is waited for."""
    stream = terminal(monkeypatch)
    reporter = Reporter(tmp_path, every=1, tensorboard=False, stream=stream, progress="auto")
    with pytest.raises(type(error)), reporter:
        reporter.start(0, 2)
        thread, log = reporter._display._thread, reporter._log  # pyright: ignore[reportOptionalMemberAccess]
        setattr(reporter, name, _Ends(error))
        reporter.notice("SIGINT: stopping")
    assert sys.stderr is stream and not thread.is_alive()
    assert lines_of(stream) == ["SIGINT: stopping"]
    with pytest.raises(OSError):
        os.fstat(log._handle)  # pyright: ignore[reportOptionalMemberAccess]
    reporter.close()


def test_a_stream_that_outlives_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that a library makes meanwhile keeps it; a process that is forked has it, and no thread."""
    stream = terminal(monkeypatch)
    shown = Display(stream, Status(0.0))
    shown.open()
    kept = sys.stderr
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        print("forked", file=kept)
        assert stream.getvalue().endswith("forked\n")
    shown.close(keep=False)
    print("after the end", file=kept)
    assert stream.getvalue().endswith("after the end\n")


def test_attributes_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)

    class Wrapper(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Wrapper(file, "latin-1", "backslashreplace"))
    shown = Display(stream, Status(0.0))
    shown.open()
    try:
        assert sys.stdout.errors == "backslashreplace" and sys.stdout.encoding == "latin-1"
        sys.stdout.buffer.write(b"bytes\n")
        sys.stdout.reconfigure(errors="strict")  # pyright: ignore[reportAttributeAccessIssue]
        assert sys.stdout.errors == "strict" and not hasattr(sys.stdout, "no_such_thing")
    finally:
        shown.close(keep=False)
    assert file.getvalue() == b"bytes\n" and sys.stdout.errors == "strict"
