"""The reason why a checkpoint cannot be written or read, in one line."""

import errno
import os
import shutil
from pathlib import Path

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
