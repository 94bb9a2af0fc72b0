"""The other processes of a run: how this one joins them, and what it does when one of them ends."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxseg.errors import ConfigError, HostError, first_line
from jaxseg.run import last_words
from jaxseg.run.workdir import CHECKPOINTS

HEARTBEAT_TIMEOUT = 30
"""Seconds without a sign of life after which the other processes of a run take one for dead and end."""
START_TIMEOUT = 300
"""Seconds within which all processes of a run must have started."""
_ENDED = (
    "JAX has ended this process, for the reason in its lines above: where another task died or the service cannot be "
    "reached, "
)
# What Gloo, NCCL, gRPC and the coordination service of JAX say of a process that they cannot reach.
_UNREACHABLE = re.compile(
    r"gloo \w+ failed|nccl.*(remote|system) error|remote process exited|connection (reset|closed|refused)|broken pipe"
    r"|heartbeat|coordination service|deadline_exceeded|unavailable:",
    re.IGNORECASE | re.DOTALL,
)
# What this process lacks itself, whoever reports it.
_OWN = re.compile("resource_exhausted|out of memory", re.IGNORECASE)
# How the text of an error begins that some calls of jaxlib raise as a ValueError.
_STATUS = re.compile("(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): ")


def join_hosts(coordinator: str, processes: int | None = None, process: int | None = None) -> None:
    """Connects this process with the processes on other hosts. Call it before anything uses a device.

    Args:
        coordinator: "HOST:PORT", the address where process 0 listens; "auto": the cluster's environment gives all
            three arguments; "": there is one process, and the call does nothing.
        processes: number of processes.
        process: index of this process, from 0.

    Raises:
        ConfigError: if the arguments contradict each other, or "auto" finds no known cluster.
    """
    if not coordinator:
        if processes is not None or process is not None:
            raise ConfigError("--processes and --process need --coordinator HOST:PORT, the address of process 0.")
        return
    if coordinator != "auto" and (processes is None or process is None or not 0 <= process < processes):
        raise ConfigError("--coordinator HOST:PORT needs --processes N and --process I, 0 <= I < N.")
    last_words.start()
    last_words.say(
        f"{_ENDED}another process of this run has ended, or did not start within {START_TIMEOUT} seconds. Start the "
        "same command again on each host."
    )
    limits: dict[str, Any] = {"heartbeat_timeout_seconds": HEARTBEAT_TIMEOUT, "initialization_timeout": START_TIMEOUT}
    if coordinator != "auto":
        jax.distributed.initialize(coordinator, processes, process, **limits)
        return
    try:
        jax.distributed.initialize(**limits)
    except ValueError as error:
        raise ConfigError(f"--coordinator auto finds no known cluster ({error}); give HOST:PORT.") from error


@contextlib.contextmanager
def naming_lost_hosts(workdir: Path) -> Iterator[None]:
    """Raises HostError if the body ends because another process of the run has ended.

    Args:
        workdir: the directory of the run, for the message.
    """
    again = (
        "Start the same command again, on as many hosts as there are: it resumes from the newest checkpoint in "
        f"{workdir / CHECKPOINTS}."
    )
    if jax.distributed.is_initialized():
        count = jax.process_count()
        last_words.say(
            f"{_ENDED}another of the {count} processes of this run has ended, and its own last lines say why. {again}"
        )
    try:
        yield
    except Exception as error:
        reason = None if isinstance(error, HostError) or jax.process_count() == 1 else _lost(error)
        if reason is None:
            raise
        raise HostError(
            f"Another of the {jax.process_count()} processes of this run has ended or cannot be reached ({reason}); "
            f"its own last lines say why. {again}"
        ) from error


def _lost(error: BaseException) -> str | None:
    """Returns what the backend says if an error or one of its causes is that of a process it cannot reach."""
    cause: BaseException | None = error
    while cause is not None:
        said = str(cause)
        of_backend = isinstance(cause, jax.errors.JaxRuntimeError) or _STATUS.match(said)
        if of_backend and _UNREACHABLE.search(said) and not _OWN.search(said):
            return first_line(cause)[:200]
        cause = cause.__cause__ or cause.__context__
    return None


def run_to_the_end(run: Callable[[], int]) -> int:
    """Returns the exit status that `run` returns; if it fails and there are other processes, ends this one at once.

    At its end, Python would have JAX wait for the others, which wait for this one.
    """
    try:
        status = run()
    except SystemExit as end:  # a signal came where there is nothing to save
        if not jax.distributed.is_initialized():
            raise
        status = end.code if isinstance(end.code, int) else 1
    except (Exception, KeyboardInterrupt):
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        status = 1
    if status and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
