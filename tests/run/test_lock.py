"""One process trains in a workdir: the second is refused, and a killed one leaves no lock."""

import contextlib
import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_training import ROOT, arguments

from jaxseg import files
from jaxseg.errors import ConfigError
from jaxseg.run.lock import LOCK_FILE, training_lock
from jaxseg.train import main

_HOLD = """
import sys
from jaxseg.files import locked
with locked(sys.argv[1], note="process 7 on there"):
    print("held", flush=True)
    input()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """Starts a process that holds the lock `path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    workdir = tmp_path / "run"
    first = hold(workdir / LOCK_FILE)
    assert main(arguments(workdir)) == 1
    error = f"error: Another process (process 7 on there) trains in the workdir {workdir}; wait for its end or stop it"
    assert error in capsys.readouterr().err
    assert [path.name for path in workdir.iterdir()] == [LOCK_FILE]  # the refused start has written nothing
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (workdir / LOCK_FILE).exists()
    with training_lock(workdir):
        holder = f"process {os.getpid()} on {platform.node()}"
        assert (workdir / LOCK_FILE).read_text() == holder
        with pytest.raises(ConfigError, match=holder), training_lock(workdir):
            pass
    assert not list(workdir.iterdir())


def test_a_lock_goes_with_an_error(tmp_path: Path) -> None:
    path = tmp_path / "made" / "lock"
    with pytest.raises(ZeroDivisionError), files.locked(path):
        raise ZeroDivisionError
    assert not path.exists()


def test_one_that_waited_for_a_removed_file_locks_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flock, waited = tmp_path / "lock", fcntl.flock, []

    def removed_while_waiting(file: int, operation: int) -> None:
        flock(file, operation)
        if not waited:  # the process that held the lock before removes its file when it ends
            path.unlink()
        waited.append(operation)

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", removed_while_waiting)
        stack = contextlib.ExitStack()
        stack.enter_context(files.locked(path))
    assert len(waited) == 2 and path.exists()
    with stack, pytest.raises(BlockingIOError), files.locked(path, wait=False):
        pass
    assert not path.exists()


def test_other_processes_of_a_run_hold_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with training_lock(tmp_path):
        monkeypatch.setattr("jax.process_index", lambda: 1)
        with training_lock(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).exists()


def test_all_processes_of_a_run_are_refused_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One alone would leave the others waiting for it."""
    sent: list[str] = []
    monkeypatch.setattr("jaxseg.run.lock.all_processes", lambda text: sent.append(text) or [sent[0], text])
    with files.locked(tmp_path / LOCK_FILE, note="process 7"):
        for index in (0, 1):
            monkeypatch.setattr("jax.process_index", lambda index=index: index)
            with pytest.raises(ConfigError, match=r"Another process \(process 7\) trains"), training_lock(tmp_path):
                pass
    assert len(sent) == 2 and sent[0].startswith("Another") and sent[1] == "locked"


def test_a_file_system_without_locks_is_noted_and_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with training_lock(tmp_path):
        pass
    assert "has no locks (No locks available)" in caplog.text
    assert not list(tmp_path.iterdir())
