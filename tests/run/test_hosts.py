"""A process that loses another of its run says so in one sentence, and does not wait for it at its end."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxseg.errors import CheckpointError, HostError
from jaxseg.run import hosts
from jaxseg.run.checkpoint import Checkpoints

LOST = "UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:43950: Connection reset by peer"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)


def test_what_the_backend_says_of_a_lost_process_becomes_a_sentence(two: None, tmp_path: Path) -> None:
    message = rf"Another of the 2 processes of this run .*\({re.escape(LOST)}\).* in {tmp_path}"
    with pytest.raises(HostError, match=message), hosts.naming_lost_hosts(tmp_path):
        raise jax.errors.JaxRuntimeError(LOST)
    with pytest.raises(HostError, match=message), hosts.naming_lost_hosts(tmp_path):
        try:
            raise jax.errors.JaxRuntimeError(LOST)
        except jax.errors.JaxRuntimeError as error:  # the states of the data iterators are exchanged in a save
            raise CheckpointError("could not be saved") from error


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("INTERNAL: a bug"),
        jax.errors.JaxRuntimeError("INTERNAL: Failed to open /data/gloomy/x.png"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory in nccl-AllReduce: connection closed"),
        jax.errors.JaxRuntimeError("INTERNAL: NCCL operation failed: unhandled system error: out of memory"),
        ValueError("gloo"),
        KeyError("x"),
    ],
)
def test_other_errors_stay_what_they_are(two: None, tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, hosts.naming_lost_hosts(tmp_path):
        raise error
    assert raised.value is error


def test_one_process_loses_no_other(tmp_path: Path) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError), hosts.naming_lost_hosts(tmp_path):
        raise jax.errors.JaxRuntimeError(LOST)


def test_files_are_closed_without_a_wait_for_the_lost_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoints, "wait", lambda self: pytest.fail("waits"))
    with pytest.raises(HostError), Checkpoints(tmp_path):
        raise HostError("lost")


def test_some_calls_of_jaxlib_raise_a_value_error(two: None, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="Connection reset by peer"), hosts.naming_lost_hosts(tmp_path):
        raise ValueError(LOST)


@pytest.mark.parametrize("status", ["1", "int('x')", "sys.exit(1)"])
def test_a_failed_process_of_several_leaves_without_what_python_does_at_its_end(status: str) -> None:
    program = """
import atexit, sys, jax
from jaxseg.run import hosts
jax.distributed.is_initialized = lambda: True
atexit.register(lambda: print("end", end=""))
print("error", end="")
sys.exit(hosts.run_to_the_end(lambda: eval(sys.argv[1])))
"""
    done = subprocess.run([sys.executable, "-c", program, status], capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"error")
    assert (b"ValueError" in done.stderr) == (status == "int('x')")


def test_a_process_that_is_alone_or_succeeds_ends_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hosts.run_to_the_end(lambda: 3) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        hosts.run_to_the_end(lambda: int("x"))
    monkeypatch.setattr("jax.distributed.is_initialized", lambda: True)
    assert hosts.run_to_the_end(lambda: 0) == 0


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("os.abort()", -6, "error: the first\n"),
        ("deep(80)", -6, "error: the first\n"),  # a traceback of more than the pipe holds
        ("os.kill(os.getpid(), 9)", -9, ""),
        ("os.kill(os.getpid(), 11)", -11, ""),
        ("sys.exit(3)", 3, ""),
    ],
)
def test_an_aborted_process_has_last_words(end: str, status: int, said: str) -> None:
    program = f"""
import os, sys
from jaxseg.run import last_words
def deep(depth):
    return deep(depth - 1) if depth else os.abort()
last_words.say("not started")
last_words.start()
last_words.say("of before")
last_words.say("the first")
{end}
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == status
    assert ended.stderr == (f"\n{said}" if said else "")
