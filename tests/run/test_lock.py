"""One process trains in a workdir: the second is refused, and a killed one leaves no lock."""

import errno
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


def test_a_lock_goes_with_an_error_and_one_that_waits_gets_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "made" / "lock"
    with pytest.raises(ZeroDivisionError), files.locked(path):
        raise ZeroDivisionError
    assert not path.exists()
    with files.locked(path):
        waiting = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert waiting.poll() is None
    assert waiting.stdout is not None and waiting.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError), files.locked(path, wait=False):  # not a second file of that name
        pass
    waiting.communicate("\n")
    assert not path.exists()


def test_other_processes_of_a_run_hold_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with training_lock(tmp_path):
        monkeypatch.setattr("jax.process_index", lambda: 1)
        with training_lock(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).exists()


def test_a_file_system_without_locks_is_noted_and_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with training_lock(tmp_path):
        pass
    assert "has no locks (No locks available)" in caplog.text
    assert not list(tmp_path.glob("*.part"))
