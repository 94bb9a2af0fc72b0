"""Leaving a run cleanly: the first SIGTERM or SIGINT asks the loop to stop, the second ends the process."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
import numpy as np

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether a signal has asked this run to stop, and what the run would finish first.

    Attributes:
        signal: the first that came, or None.
        finishing: what is done before the run is left, in words for the user, such as "finishing this step, then
            saving"; empty, as at the start: nothing, and the first signal ends the run where it is.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.finishing = ""

    @property
    def requested(self) -> bool:
        """True once a signal has come to this process."""
        return self.signal is not None

    def agreed(self) -> bool:
        """True once a signal has come to any process; all processes must ask at the same step.

        With one process this is `requested`. With several it exchanges one number, which waits for the device: ask at
        the log steps, not at every step.
        """
        if jax.process_count() == 1:
            return self.requested
        from jax.experimental import multihost_utils

        return bool(np.asarray(multihost_utils.process_allgather(np.array([self.requested]))).any())


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turns the first SIGTERM or SIGINT into `stop.requested`; the second ends the process at once.

    While there is nothing to finish (see `StopRequest.finishing`) the first raises SystemExit, with the status that
    shells give a process ended by that signal, so that files are closed and temporary ones removed.

    The handlers of before come back at the end. Outside the main thread, where Python sets no handlers, nothing is
    changed and `requested` stays False.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        stop.signal = signal.Signals(number)
        if stop.finishing:
            _say(f"\n{stop.signal.name}: {stop.finishing}; once more to leave at once.\n")
            return
        _say(f"\n{stop.signal.name}: leaving; there is nothing to save.\n")
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # not print: the signal may have come in the middle of one
        os.write(2, text.encode())
