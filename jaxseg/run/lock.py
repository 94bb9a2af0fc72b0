"""The lock of a workdir: one process at a time trains a run."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxseg.errors import ConfigError
from jaxseg.files import locked
from jaxseg.run.snapshot import all_processes

LOCK_FILE = ".training.lock"
_LOCKED = "locked"  # what process 0 sends to the others, or the text of its error


@contextlib.contextmanager
def training_lock(workdir: Path) -> Iterator[None]:
    """Keeps other processes from training in `workdir`, until this body or this process ends; they may read the run.

    With several processes, process 0 holds the lock for all, and every process calls this function. On a file system
    without locks there is none; a note says so.

    Raises:
        ConfigError: if another process trains there; the message has its number and host.
    """
    with contextlib.ExitStack() as stack:
        answer = _LOCKED
        if jax.process_index() == 0:
            try:
                hold(workdir, stack)
            except ConfigError as error:
                answer = str(error)
        answer = all_processes(answer)[0]
        if answer != _LOCKED:
            raise ConfigError(answer)
        yield


def hold(workdir: Path, stack: contextlib.ExitStack) -> None:
    """Takes the lock of `workdir` for this process alone until `stack` ends; raises as `training_lock` does."""
    file, without = workdir / LOCK_FILE, "take care that no other process trains in this workdir"
    holder = f"process {os.getpid()} on {platform.node()}"
    try:
        stack.enter_context(locked(file, wait=False, note=holder, without=without))
    except BlockingIOError as error:
        named = ""
        with contextlib.suppress(OSError):  # it has just ended
            holder = file.read_text(encoding="utf-8", errors="replace").strip()
            named = f" ({holder})" if holder else ""
        raise ConfigError(
            f"Another process{named} trains in the workdir {workdir}; wait for its end or stop it, or give another "
            "--workdir."
        ) from error
    except OSError as error:
        raise ConfigError(f"The workdir {workdir} cannot be locked: {error.strerror or error}.") from error
