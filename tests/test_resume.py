"""Resuming a run with dropout, accumulated gradients and worker processes that is killed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.report import read_log
from jaxseg.run.snapshot import flat
from jaxseg.train import main

ROOT = Path(__file__).resolve().parent.parent
HARD = {
    "steps": 6,
    "batch_size": 16,
    "accumulate": 2,
    "eval.every": 3,
    "eval.batch_size": 8,
    "checkpoint.every": 2,
    "data.source": "shapes",
    "data.size": "(16,16)",
    "data.shapes_train": 40,
    "data.shapes_val": 8,
    "model.name": "cnn",
    "model.args.widths": "(4,6)",
    "model.args.hidden": 8,
    "model.args.hidden_kernel": 3,
    "model.args.dropout": 0.5,
    "ema.decay": 0.9,
    "schedule.warmup": 1,
    "augment.zoom": "(0.8,1.2)",
    "augment.brightness": 0.2,
    "log.every": 1,
    "log.images": 0,
    "log.tensorboard": False,
}


def arguments(workdir: Path, workers: int) -> list[str]:
    values = [f"--config.{key}={value}" for key, value in (HARD | {"data.workers": workers}).items()]
    return ["--config", "experiments/cnn.py", "--workdir", str(workdir), *values]


def start(workdir: Path, workers: int) -> subprocess.Popen[str]:
    """Starts the training program, in a session of its own with its worker processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "jaxseg.train", *arguments(workdir, workers)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill_at(process: subprocess.Popen[str], pattern: str) -> str:
    """Kills the program and its workers when a line of its output matches; returns the output."""
    said = ""
    for line in process.stdout:
        said += line
        if re.search(pattern, line):
            break
    else:
        raise AssertionError(f"{pattern!r} never came:\n{said}")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return said


def arrays_of(workdir: Path) -> dict[str, np.ndarray]:
    """Returns {name: array} of the newest checkpoint."""
    import orbax.checkpoint as ocp

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        path = checkpoints.path(checkpoints.latest_step())
    with ocp.StandardCheckpointer() as reader:
        return flat(reader.restore(path / "state"))


def log_of(workdir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in read_log(workdir / "log.jsonl")]


# The second kill is that of the first once more, of a run that has been resumed.
@pytest.mark.parametrize(
    ("workers", "twice"), [(1, False), *(pytest.param(n, True, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_killed_with_dropout_accumulation_and_workers_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, twice: bool
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    monkeypatch.chdir(ROOT)
    assert main(arguments(whole, workers)) == 0
    kill_at(start(killed, workers), r"^step 4/6")  # saving step 3 has waited for the checkpoint of step 2
    if twice:
        again = kill_at(start(killed, workers), r"^step 5/6")
        assert re.search(r"resuming after step [23]", again)
    process = start(killed, workers)
    last = process.communicate()[0]
    assert process.returncode == 0, last
    assert re.search(rf"resuming after step {'[2345]' if twice else '[23]'}", last)
    expected, found = arrays_of(whole), arrays_of(killed)
    assert expected.keys() == found.keys() and any(name.startswith("params/") for name in found)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert log_of(killed) == log_of(whole)
