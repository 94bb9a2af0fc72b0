"""One of two hosts is killed, or stops answering: the other ends in time with a sentence, and a new start goes on."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.faults import bits, command
from helpers.tiny_training import ROOT
from helpers.xla_flags import quick_flags

pytestmark = pytest.mark.slow


def start_hosts(workdir: Path, logs: Path, **changes: object) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        join = ["--coordinator", f"localhost:{free.getsockname()[1]}", "--processes", "2", "--process"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": quick_flags(devices=1)}
    logs.mkdir()
    words = [sys.executable, "-m", "jaxseg.train", *command(workdir, **changes), *join]
    return [
        subprocess.Popen(
            [*words, str(i)], cwd=ROOT, env=environment, stdout=(logs / str(i)).open("w"), stderr=subprocess.STDOUT
        )
        for i in range(2)
    ]


def run_hosts(workdir: Path, logs: Path) -> None:
    for process in start_hosts(workdir, logs):
        assert process.wait(timeout=300) == 0, (logs / "0").read_text() + (logs / "1").read_text()


@pytest.mark.parametrize(
    ("victim", "number", "at"),
    [
        (1, signal.SIGKILL, "\nstep 3/"),
        (0, signal.SIGKILL, "\nstep 3/"),
        (1, signal.SIGSTOP, "\nstep 3/"),
        (1, signal.SIGTERM, "\ncompiling the step"),
    ],
)
def test_the_other_host_ends_with_a_sentence_and_a_new_start_goes_on(
    tmp_path: Path, record: Callable[..., None], victim: int, number: signal.Signals, at: str
) -> None:
    run_hosts(tmp_path / "whole", tmp_path / "whole-logs")
    workdir, logs = tmp_path / "run", tmp_path / "logs"
    processes = start_hosts(workdir, logs)
    end = time.monotonic() + 200
    while at not in (logs / "0").read_text() and time.monotonic() < end:
        time.sleep(0.02)
    processes[victim].send_signal(number)
    began = time.monotonic()
    status = processes[1 - victim].wait(timeout=120)
    seconds = time.monotonic() - began
    processes[victim].kill()
    said = (logs / str(1 - victim)).read_text()
    ours = "error: Another of the 2 processes of this run has ended or cannot be reached" in said
    assert status and seconds < 60 and (ours or "another task died" in said), (seconds, said)
    run_hosts(workdir, tmp_path / "again")
    assert bits(workdir) == bits(tmp_path / "whole")
    what = {signal.SIGKILL: "is killed", signal.SIGSTOP: "stops answering"}
    what[signal.SIGTERM] = "gets SIGTERM before the first step"
    whose = "a sentence" if ours else "the message of JAX"
    record(
        f"host {victim} of two {what[number]}",
        1,
        f"the other ended after {seconds:.0f} s with {whose}, status {status}; started again, both ended in the same "
        "bits",
    )
