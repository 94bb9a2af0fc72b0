"""The lock of a workdir: one process at a time trains a run."""

import contextlib
import errno
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxseg.errors import ConfigError
from jaxseg.files import locked

LOCK_FILE = ".training.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # what file systems without locks answer
_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def training_lock(workdir: Path) -> Iterator[None]:
    """Keeps other processes from training in `workdir`, until this body or this process ends; they may read the run.

    With several processes, process 0 holds the lock for all. On a file system without locks there is none; a note
    says so.

    Raises:
        ConfigError: if another process trains there; the message has its number and host.
    """
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            _lock(workdir, stack)
        yield


def _lock(workdir: Path, stack: contextlib.ExitStack) -> None:
    file = workdir / LOCK_FILE
    try:
        stack.enter_context(locked(file, wait=False, note=f"process {os.getpid()} on {platform.node()}"))
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
        if error.errno not in _NO_LOCKS:
            raise ConfigError(f"The workdir {workdir} cannot be locked: {error.strerror or error}.") from error
        _logger.warning(
            "the file system of %s has no locks (%s): take care that no other process trains in this workdir.",
            workdir,
            error.strerror or error,
        )
