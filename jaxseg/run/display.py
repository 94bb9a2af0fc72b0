"""The live display of a training on a terminal: a few lines that stay below all that is printed.

A thread draws them twice a second from what the training has noted. It alone writes to the terminal: what the process
prints meanwhile, by `print`, `warnings` or `logging`, waits in a queue until the thread prints it above, at once unless
the terminal is busy. So nothing that prints waits for the terminal, and a print in a signal handler or a finaliser, in
this thread too, waits for no lock. The cursor stays visible and the screen is the usual one, so that a process which is
killed leaves the terminal as it was.
"""

import contextlib
import io
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from absl import logging as absl_logging
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from jaxseg.errors import first_line
from jaxseg.memory import device_memory, host_memory
from jaxseg.run.panel import Status, panel

_PAUSE = 0.5  # seconds between two drawings
_PATIENCE = 5.0  # seconds that the end waits for a drawing, which a stopped terminal (^S) holds up


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
        self._shown: RenderableType = ""
        self._console = _Console(file=stream, force_terminal=True, force_interactive=True, force_jupyter=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
            get_renderable=lambda: self._shown,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()  # of which a `put` may interrupt another
        self._process = os.getpid()
        self._closed = self._done = self._off = False
        self._keep = False
        self._thread = threading.Thread(target=self._run, name="jaxseg-display", daemon=True)
        self._redirected = contextlib.ExitStack()

    def open(self) -> None:
        """Begins to draw; an error leaves the terminal as it was."""
        try:
            self._redirected.enter_context(_redirected(self._stream, self.message))
            self._draw()
            self._thread.start()
        except BaseException:
            self._closed = True
            self._end()
            self._restore()
            raise

    def close(self, *, keep: bool) -> None:
        """Ends the display; `keep` leaves its last state on the terminal."""
        if self._closed:
            return
        self._keep, self._closed = keep, True
        try:
            self._lines.put("")  # wakes the thread
            self._thread.join(_PATIENCE)
        except BaseException:  # a signal; a second one ends the process
            self._thread.join(_PATIENCE)
            raise
        finally:
            self._restore()

    def message(self, text: str) -> None:
        """Prints lines above the display, soon; waits for nothing, so that a signal handler may call it."""
        if os.getpid() != self._process:  # a process that was forked from this one has no thread for it
            self._print(f"{text}\n")
            return
        self._lines.put(f"{text}\n")
        if self._done:
            self._print(self._waiting())

    def _restore(self) -> None:
        """Prints without the display from here on; a thread that is still busy leaves its last drawing there."""
        self._redirected.close()
        self._done = True
        self._print(("\n" if self._thread.is_alive() else "") + self._waiting())

    def _waiting(self, seconds: float = 0.0) -> str:
        """Returns the lines that wait to be printed; if there are none, waits for some."""
        text = ""
        with contextlib.suppress(queue.Empty):
            text += self._lines.get(timeout=max(0.0, seconds))
            while True:
                text += self._lines.get_nowait()
        return text

    def _run(self) -> None:
        due = time.monotonic() + _PAUSE
        while not self._closed:
            self._say(self._waiting(due - time.monotonic()))
            if time.monotonic() >= due:
                self._draw()
                due = time.monotonic() + _PAUSE
        self._say(self._waiting())
        self._draw()
        if not self._done:
            self._end()

    def _say(self, text: str) -> None:
        """Prints whole lines above the display."""
        if self._off:
            self._print(text)
        elif text:
            with self._drawing(text):
                self._console.print(Text(text.removesuffix("\n")), soft_wrap=True)

    def _draw(self) -> None:
        if not self._off:
            with self._drawing():
                now, width = time.perf_counter(), self._console.width
                self._shown = panel(self._status, now, width, host_memory(), device_memory())
                if not self._done:
                    self._live.start()
                    self._live.refresh()

    @contextlib.contextmanager
    def _drawing(self, text: str = "") -> Iterator[None]:
        """An error in this context ends the display, not the run, with a warning; `text` is then printed without it."""
        try:
            yield
        except OSError:  # the terminal is gone, or will be there again
            pass
        except Exception as error:
            self._off, self._shown = True, ""
            self._end()
            self._print(f"{text}warning: the live display ends here, the run goes on: {first_line(error)}.\n")

    def _end(self) -> None:
        self._live.transient = not self._keep
        with contextlib.suppress(Exception):
            self._live.stop()

    def _print(self, text: str) -> None:
        """Prints lines without the display."""
        if text:
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                self._stream.write(text)
                self._stream.flush()


class _Console(Console):
    """A console that never hides the cursor: nobody would show it again after a process that is killed."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class _Above(io.TextIOBase):
    """Text that a process prints while the display is open: whole lines go above it.

    It is no terminal, on which a library would move the cursor. All else is as at the stream that it stands for; what
    is written to its `buffer` goes past the display.
    """

    def __init__(self, message: Callable[[str], None], instead_of: TextIO):
        self._message, self._stream = message, instead_of
        self._lock = threading.RLock()  # no other is taken within it
        self._line = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stream.errors

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
