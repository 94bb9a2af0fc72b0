"""The live display of a training on a terminal: a few lines that stay below all that is printed.

A thread draws them twice a second from what the training has noted, so that no step waits for the terminal. What the
process prints meanwhile, by `print`, `warnings` or `logging`, stands above. The cursor stays visible and the screen is
the usual one, so that a process which is killed leaves the terminal as it was.
"""

import collections
import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from absl import logging as absl_logging
from rich.console import Console
from rich.live import Live
from rich.text import Text

from jaxseg.memory import device_memory, host_memory
from jaxseg.run.panel import Status, panel

_PAUSE = 0.5  # seconds between two drawings


def is_live(stream: TextIO) -> bool:
    """Returns whether the stream is a terminal that can move its cursor."""
    dumb = "TERM" in os.environ and os.environ["TERM"].lower() in ("dumb", "unknown", "")
    return stream.isatty() and not dumb


class Display:
    """Draws a `Status` at the bottom of a terminal, from `open` to `close`."""

    def __init__(self, stream: TextIO, status: Status):
        """Args:
        stream: the terminal.
        status: what is drawn; it is read at each drawing.
        """
        self._stream, self._status = stream, status
        self._console = _Console(file=stream, force_terminal=True, force_interactive=True, force_jupyter=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
            get_renderable=self._panel,
        )
        self._lock = threading.RLock()
        self._notices: collections.deque[str] = collections.deque()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="jaxseg-display", daemon=True)
        self._redirected = contextlib.ExitStack()

    def open(self) -> None:
        """Begins to draw."""
        self._redirected.enter_context(_redirected(self._stream, self.message))
        self._live.start(refresh=True)
        self._thread.start()

    def close(self, *, keep: bool) -> None:
        """Ends the display; `keep` leaves its last state on the terminal."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        self._live.transient = not keep
        with self._redirected:
            self._say_notices()
            self._live.stop()

    def message(self, text: str) -> None:
        """Prints lines above the display."""
        with self._lock:
            self._console.print(Text(text), soft_wrap=True)

    def notice(self, text: str) -> None:
        """Prints lines at the next drawing: for a signal handler, which must wait for nothing."""
        self._notices.append(text)

    def _say_notices(self) -> None:
        while self._notices:
            self.message(self._notices.popleft())

    def _draw(self) -> None:
        while not self._closed.wait(_PAUSE):
            with contextlib.suppress(OSError), self._lock:  # the terminal may be gone, of which the training says more
                self._say_notices()
                self._live.refresh()

    def _panel(self) -> Any:
        width = self._console.width
        return panel(self._status, time.perf_counter(), width, host_memory(), device_memory())


class _Console(Console):
    """A console that never hides the cursor: nobody would show it again after a process that is killed."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class _Above(io.TextIOBase):
    """Text that a process prints while the display is open: whole lines go above it."""

    def __init__(self, message: Callable[[str], None], instead_of: TextIO):
        self._message, self._stream = message, instead_of
        self._lock = threading.RLock()
        self._line = ""

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stream.encoding

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
            if lines:
                self._message("\n".join(lines))
        return len(text)

    def last(self) -> None:
        """Prints what has no end of line yet."""
        with self._lock:
            if self._line:
                self._message(self._line)
            self._line = ""


@contextlib.contextmanager
def _redirected(terminal: TextIO, message: Callable[[str], None]) -> Iterator[None]:
    """Sends what Python prints on the terminal to `message`; files and pipes go on as they are."""
    stdout, stderr = sys.stdout, sys.stderr
    streams = [stream for stream in (stdout, stderr) if stream is terminal or stream.isatty()]
    above = {id(stream): _Above(message, stream) for stream in streams}
    handlers = [(handler, handler.stream) for handler in _handlers() if id(handler.stream) in above]
    sys.stdout, sys.stderr = (above[id(stream)] if id(stream) in above else stream for stream in (stdout, stderr))
    for handler, stream in handlers:
        handler.setStream(above[id(stream)])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr
        for handler, stream in handlers:
            handler.setStream(stream)
        for stream in above.values():
            stream.last()


def _handlers() -> list[Any]:
    """Returns the handlers of `logging` that write to a stream."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    found = [handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers]
    found.append(absl_logging.get_absl_handler().python_handler)
    streaming = {id(handler): handler for handler in found if isinstance(handler, logging.StreamHandler)}
    return list(streaming.values())
