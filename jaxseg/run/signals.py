"""Stops a run cleanly: the first SIGTERM or SIGINT asks the training loop to stop, the second ends the process."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax
import numpy as np

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether a signal has asked this run to stop, and what the run does before it stops.

    Attributes:
        signal: the first signal that came, or None.
        finishing: what the run does before it stops, for the message to the user, such as "finishing this step, then
            saving". While it is empty, as at the start, the first signal ends the process at once.
        say: prints the message to the user; it must wait for nothing, and not call `print`.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.finishing = ""
        self.say: Callable[[str], None] = write_notice

    @property
    def requested(self) -> bool:
        """Whether a signal has come to this process."""
        return self.signal is not None

    def agreed(self) -> bool:
        """Returns whether a signal has come to any process; all processes must call this at the same step.

        With one process this is `requested`. With several, it exchanges one number and so waits for the device: call
        it at the log steps, not at every step.
        """
        if jax.process_count() == 1:
            return self.requested
        from jax.experimental import multihost_utils

        return bool(np.asarray(multihost_utils.process_allgather(np.array([self.requested]))).any())


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Sets `stop.requested` at the first SIGTERM or SIGINT; the second ends the process at once.

    While `StopRequest.finishing` is empty, the first signal raises SystemExit, so that files are closed and temporary
    files removed. Its status is that which shells give a process that this signal ended.

    The end of the context restores the previous handlers. Outside the main thread, where Python allows no handlers,
    the context does nothing and `requested` stays False.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            signal.signal(number, signal.SIG_DFL)
            write_notice("")  # what follows begins on a line of its own
            os.kill(os.getpid(), number)
            return
        stop.signal = signal.Signals(number)
        if stop.finishing:
            stop.say(f"{stop.signal.name}: {stop.finishing}; a second signal stops at once.")
            return
        if not ignored:
            stop.say(f"{stop.signal.name}: stopping; there is nothing to save.")
        raise SystemExit(128 + number)

    def again(unraisable: Any) -> None:
        """Repeats a signal that came in a callback of the garbage collector or in `__del__`, which end no process."""
        if ended or stop.signal is None or not isinstance(unraisable.exc_value, SystemExit):
            hook(unraisable)
            return
        number, stop.signal = stop.signal, None
        ignored.append(number)
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()  # now it would be ignored again

    ignored: list[int] = []
    ended: list[bool] = []
    hook, sys.unraisablehook = sys.unraisablehook, again
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        ended.append(True)
        if sys.unraisablehook is again:  # else another hook that was set meanwhile calls this one
            sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def write_notice(text: str) -> None:
    """Writes lines to standard error, from a signal handler too, after the end of the line that is there."""
    text = f"\n{text}\n" if text else "\n"
    with contextlib.suppress(OSError):  # not `print`, which fails if the signal comes during another `print`
        os.write(2, text.encode())
