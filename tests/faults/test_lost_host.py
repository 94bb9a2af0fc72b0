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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two hosts that nothing breaks."""
    folder = tmp_path_factory.mktemp("two-hosts")
    run_hosts(folder / "run", folder / "logs")
    return folder / "run"


def said_by(logs: Path, text: str) -> Callable[[Path], bool]:
    return lambda workdir: text in (logs / "0").read_text()


def saving(workdir: Path) -> bool:
    return any(workdir.glob("checkpoints/4.orbax-checkpoint-tmp*"))


AT = {
    "at a step": "\nstep 3/",
    "before the first step": "\ncompiling the step",
    "at an evaluation": "\nstep 4/",
    "in a save": saving,
}
ENDS = {signal.SIGKILL: "is killed", signal.SIGSTOP: "stops answering", signal.SIGTERM: "gets SIGTERM"}


@pytest.mark.parametrize(
    ("victim", "number", "at"),
    [
        *((victim, signal.SIGKILL, at) for victim in (0, 1) for at in AT),
        (1, signal.SIGSTOP, "at a step"),
        (1, signal.SIGTERM, "before the first step"),
    ],
)
def test_the_other_host_ends_with_a_sentence_and_a_new_start_goes_on(
    tmp_path: Path, whole: Path, record: Callable[..., None], victim: int, number: signal.Signals, at: str
) -> None:
    workdir, logs, moment = tmp_path / "run", tmp_path / "logs", AT[at]
    processes = start_hosts(workdir, logs)
    end = time.monotonic() + 200
    reached = moment if callable(moment) else said_by(logs, moment)
    while not reached(workdir) and time.monotonic() < end:
        time.sleep(0.01)
    processes[victim].send_signal(number)
    began = time.monotonic()
    status = processes[1 - victim].wait(timeout=120)
    seconds = time.monotonic() - began
    processes[victim].kill()
    said = (logs / str(1 - victim)).read_text()
    last = said.strip().splitlines()[-1]
    assert status and seconds < 60, (seconds, said)
    at_once = "error: Another of the 2 processes of this run has ended or cannot be reached"
    aborted = "error: JAX has ended this process, for the reason in its lines above"
    assert last.startswith((at_once, aborted)), said
    run_hosts(workdir, tmp_path / "again")
    assert bits(workdir) == bits(whole)
    how = "at once" if last.startswith(at_once) else "when JAX had ended it"
    record(
        f"host {victim} of two {ENDS[number]} {at}",
        1,
        f"the other ended after {seconds:.0f} s, with a sentence {how}, status {status}; started again, both ended in "
        "the same bits",
    )
