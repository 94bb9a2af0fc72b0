"""Why a checkpoint could not be written or read, in one line."""

import errno
import os
import shutil
from pathlib import Path

_LEAST_FREE = 1 << 20  # bytes: a disk with less is full


def one_line(error: BaseException) -> str:
    """Returns the message of an error in one line: that of the operating system, where this is the cause."""
    system = _system_error(error)
    if system is not None:
        return os.strerror(system)
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return line.rstrip(".") if len(line) <= 300 else line[:300] + "…"


def reason_of_a_failed_save(error: BaseException, directory: Path) -> str:
    """Returns why nothing could be written to `directory`.

    Orbax raises errors without a number for some failures of the disk, so the disk is asked whether it is full.
    """
    if _system_error(error) is None and directory.is_dir() and shutil.disk_usage(directory).free < _LEAST_FREE:
        return os.strerror(errno.ENOSPC)
    return one_line(error)


def _system_error(error: BaseException) -> int | None:
    """Returns the number of the first OSError among an error and its causes, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        cause = cause.__cause__
    return None
