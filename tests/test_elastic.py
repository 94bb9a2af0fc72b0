"""A run goes on with other devices, on the other strategy and with other hosts: each step has the same images."""

import functools
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.tiny_training import ROOT, arguments, assert_identical, state_of
from helpers.xla_flags import quick_flags

from jaxseg import build, parallel
from jaxseg.data import pipeline
from jaxseg.data.shapes import ShapesSource
from jaxseg.errors import CheckpointError
from jaxseg.run.report import read_log
from jaxseg.run.restored import Restored, require_one_step
from jaxseg.train import main

NETWORK = {
    "experiment": "experiments/cnn.py",
    "model__args__hidden": 8,
    "model__args__hidden_kernel": 3,
    "model__args__dropout": 0.5,
    "checkpoint__keep": 9,
    "log__images": 0,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of 6 steps on 8 devices, which keeps the checkpoint of every second step."""
    os.chdir(ROOT)
    workdir = tmp_path_factory.mktemp("elastic") / "whole"
    assert main(arguments(workdir, **NETWORK)) == 0
    return workdir


def stopped(whole: Path, workdir: Path, after: int = 2) -> Path:
    """Copies a run as it was when it had been stopped after a step."""
    shutil.copytree(whole, workdir)
    for checkpoint in (workdir / "checkpoints").iterdir():
        if int(checkpoint.name) > after:
            shutil.rmtree(checkpoint)
    return workdir


def assert_near(workdir: Path, whole: Path) -> None:
    """Two runs end in the same parameters and log the same numbers, to rounding."""
    ends = state_of(workdir), state_of(whole)
    assert ends[0].keys() == ends[1].keys()
    for name in ends[1]:
        np.testing.assert_allclose(ends[0][name], ends[1][name], rtol=2e-3, atol=2e-5, err_msg=name)
    logs = read_log(workdir / "log.jsonl"), read_log(whole / "log.jsonl")
    for one, other in zip(*logs, strict=True):
        assert (one["step"], one["split"]) == (other["step"], other["split"])
        np.testing.assert_allclose([one["loss"], one["mean_iou"]], [other["loss"], other["mean_iou"]], rtol=1e-4)


@pytest.mark.parametrize(("strategy", "devices"), [("jit", 1), ("pmap", 4)])
def test_a_run_of_eight_devices_goes_on_with_fewer(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, devices: int
) -> None:
    workdir = stopped(whole, tmp_path / "run")
    fewer = functools.partial(parallel.make_strategy, devices=jax.devices()[:devices])
    monkeypatch.setattr(build.parallel, "make_strategy", fewer)
    assert main(arguments(workdir, strategy=strategy, **NETWORK)) == 0
    assert_near(workdir, whole)


def test_another_batch_size_is_refused_with_the_reason(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = stopped(whole, tmp_path / "run")
    assert main(arguments(workdir, batch_size=16, **NETWORK)) == 1
    error = capsys.readouterr().err
    assert "The keys that differ: batch_size: 8 -> 16. The images of every step and the learning rates follow" in error
    assert "counts over all devices and hosts" in error


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_a_batch_has_the_same_images_in_the_same_rows_however_many_hosts_read_it(hosts: int) -> None:
    def loader(index: int, count: int) -> pipeline.TrainLoader:
        source = ShapesSource("train", 11, (8, 8))
        return pipeline.make_train_loader(
            source,
            batch_size=8,
            size=(6, 6),
            fit="crop",
            channels=3,
            seed=3,
            prefetch=0,
            process_index=index,
            process_count=count,
        )

    with loader(0, 1) as alone:
        batches = [next(alone) for _ in range(4)]
        state = alone.get_state()
        batches.append(next(alone))
    parts = []
    for index in range(hosts):
        with loader(index, hosts) as part:
            rows = [next(part) for _ in range(4)]
            assert part.get_state() == state  # the position in the sequence of batches
            part.set_state(state)  # of the single host
            parts.append([*rows, next(part)])
    for number, batch in enumerate(batches):
        for name in batch:
            together = np.concatenate([part[number][name] for part in parts])
            np.testing.assert_array_equal(together, batch[name])


def test_processes_that_read_different_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As hosts whose workdirs are not one folder, or of which one alone finds a file damaged."""
    monkeypatch.setattr("jaxseg.run.restored.all_processes", lambda text: [text, "none"])
    with pytest.raises(CheckpointError, match=r"same checkpoint in .*\(process 0: that of step 4; process 1: none\)"):
        require_one_step(Restored(4, {}, (), None, None), tmp_path)
    require_one_step(None, tmp_path)


def run_processes(workdir: Path, hosts: int, devices: int, strategy: str) -> str:
    """Continues a run by real processes with CPU devices each; returns what process 0 says."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    join: Sequence[str] = ()
    processes = []
    for index in range(hosts):
        if hosts > 1:
            join = ("--coordinator", f"localhost:{port}", "--processes", str(hosts), "--process", str(index))
        command = [sys.executable, "-m", "jaxseg.train", *arguments(workdir, strategy=strategy, **NETWORK), *join]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": quick_flags(devices=devices)}
        processes.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    said = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * hosts, "\n".join(said)
    return said[0]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["jit", "pmap"])
@pytest.mark.parametrize(("hosts", "devices"), [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 4)])
def test_real_processes_continue_a_run_of_one_host_with_eight_devices(
    whole: Path, tmp_path: Path, hosts: int, devices: int, strategy: str
) -> None:
    workdir = stopped(whole, tmp_path / "run")
    said = run_processes(workdir, hosts, devices, strategy)
    assert "resuming after step 2" in said
    assert_near(workdir, whole)
    if (hosts, devices, strategy) == (1, 8, "jit"):
        assert_identical(state_of(workdir), state_of(whole))
        assert "The start before this one" not in said
    else:
        had = r"had 8 devices of 1 process with strategy=jit; this one has "
        assert re.search(had + rf"{hosts * devices} devices? of {hosts} process(es)? with strategy={strategy}", said)


@pytest.mark.slow
def test_a_run_of_two_hosts_goes_on_with_one_and_with_four(whole: Path, tmp_path: Path) -> None:
    """From the checkpoint of two hosts: they end in the same bits, others with as many devices near."""
    two = stopped(whole, tmp_path / "two")
    run_processes(two, 2, 2, "jit")
    again, one, four = (stopped(two, tmp_path / name, after=4) for name in ("again", "one", "four"))
    run_processes(again, 2, 2, "jit")
    assert_identical(state_of(again), state_of(two))
    run_processes(one, 1, 4, "jit")
    assert_near(one, two)
    run_processes(four, 4, 1, "jit")
    assert_near(four, two)
