"""What Orbax reports of a failed read or write: the reason in one line, without its log lines and tracebacks."""

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LEAST_FREE = 1 << 20  # bytes; a disk with less is full


def one_line(error: BaseException) -> str:
    """Returns an error's message in one line; if an error of the operating system caused it, the system's message."""
    system = _system_error(error)
    if system is not None:
        return os.strerror(system)
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return line.rstrip(".") if len(line) <= 300 else line[:300] + "…"


def reason_of_a_failed_save(error: BaseException, directory: Path, size: int) -> str:
    """Returns why `size` bytes cannot be written to `directory`.

    TensorStore, which writes the arrays for Orbax, raises errors without errno or cause. It removes its incomplete
    files before that, so the disk counts as full if its free space is less than `size`.
    """
    needed = max(size, _LEAST_FREE)
    if _system_error(error) is None and directory.is_dir() and shutil.disk_usage(directory).free < needed:
        return os.strerror(errno.ENOSPC)
    return one_line(error)


def _system_error(error: BaseException) -> int | None:
    """Returns the errno of the first OSError among an error and its causes, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        cause = cause.__cause__
    return None


def quieten_orbax() -> None:
    """Drops Orbax's log lines and the tracebacks of its read and write threads; further calls do nothing.

    When one of several reads or writes fails, Orbax raises an error, which `jaxseg.run.checkpoint` reports. The others
    then fail because their event loop is closed. They print this to standard error from their own threads, where it
    cannot be caught.
    """
    logger = logging.getLogger("absl")
    if _not_orbax not in logger.filters:
        logger.addFilter(_not_orbax)
        logging.getLogger("asyncio").addFilter(_not_an_abandoned_read)
        sys.unraisablehook = _drop_closed_loops(sys.unraisablehook)


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _not_an_abandoned_read(record: logging.LogRecord) -> bool:
    return "OCDBT" not in record.getMessage()


def _drop_closed_loops(before: Callable[[Any], None]) -> Callable[[Any], None]:
    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    return hook
