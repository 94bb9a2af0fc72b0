"""Full disks, workdirs that vanish or are read-only, moves that are not atomic, damaged bytes, clocks."""

import collections
import functools
import os
import random
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.faults import Starter, Training, bits, command
from helpers.tiny_training import ROOT

from jaxseg.build import build_parts
from jaxseg.errors import CheckpointError, counted
from jaxseg.run.checkpoint import Checkpoints, CheckpointWarning
from jaxseg.run.workdir import read_config

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system in memory, with these options, and again with others."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        kind = ["-o", f"remount,{options}"] if mounted else ["-t", "tmpfs", "-o", options, "tmpfs"]
        done = subprocess.run(["mount", *kind, str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(options)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def steps(training: Training) -> bool:
    return "\nstep " in training.said()


def last_line(said: str) -> str:
    return said.strip().splitlines()[-1]


def test_a_disk_that_is_full_at_each_write_in_turn(
    starter: Starter, expected: dict[str, bytes], disk: Callable[[str], Path], record: Callable[..., None]
) -> None:
    """The disk grows by 24 KiB after each failure: every start gets a little further than the one before."""
    size, failures, warned = 4, collections.Counter(), 0
    while True:
        workdir = disk(f"size={size}k,nr_inodes=2000") / "run"
        status, said = starter.run(command(workdir))
        assert "Traceback" not in said, said
        missing = "lines are missing" in said
        if status == 0 and not missing and "cannot be drawn" not in said:
            break
        warned += missing
        if status:
            error = last_line(said)
            assert status == 1 and error.startswith("error: ") and "o space left" in error, said
            what = "a checkpoint" if "checkpoint of step" in error else "the files of the start"
            failures[what] += 1
        if missing:  # the run went on: what its log lacks, no later start adds
            shutil.rmtree(workdir)
        size += 24
        assert size < 2000
    assert bits(workdir) == expected and failures["a checkpoint"] >= 3
    record(
        "disk full, with 24 KiB more at each start",
        sum(failures.values()),
        f"{failures['the files of the start']} times no file of the start, {failures['a checkpoint']} times no "
        "checkpoint could be written: one sentence, status 1, older checkpoints intact; with more space the "
        "same command ended in the same bits",
        lost="nothing; a line of the log that does not fit is left out, with a warning",
        log_warnings=warned,
        kibibytes=size,
    )


def test_a_workdir_that_becomes_read_only(
    starter: Starter, expected: dict[str, bytes], disk: Callable[[str], Path], record: Callable[..., None]
) -> None:
    workdir = disk("size=64m") / "run"
    training = starter.start(command(workdir))
    starter.wait_until(training, lambda: "\nstep 3/" in training.said(), 120)
    os.kill(training.pid, signal.SIGKILL)  # an open file would keep the disk writable
    starter.wait(training)
    disk("ro")
    refused, said = starter.run(command(workdir))
    disk("rw")
    again, _ = starter.run(command(workdir))
    assert (refused, again) == (1, 0) and "Read-only file system" in last_line(said) and "Traceback" not in said, said
    assert bits(workdir) == expected
    record("workdir becomes read-only", 1, "the start is refused in one sentence; written again, the same bits")


def test_a_workdir_that_vanishes(
    starter: Starter, expected: dict[str, bytes], tmp_path: Path, record: Callable[..., None]
) -> None:
    workdir = tmp_path / "run"
    training = starter.start(command(workdir))
    starter.wait_until(training, lambda: "\nstep 3/" in training.said(), 120)
    workdir.rename(tmp_path / "moved")
    status, said = starter.wait(training), training.said()
    assert status == 1 and "Traceback" not in said and last_line(said).startswith("error: "), said
    assert not workdir.exists() or not list(workdir.glob("checkpoints/*"))
    shutil.rmtree(workdir, ignore_errors=True)
    (tmp_path / "moved").rename(workdir)
    again, said = starter.run(command(workdir))
    assert again == 0, said
    assert bits(workdir) == expected
    record("workdir vanishes in mid-run", 1, "one sentence, status 1; put back, the same command ends in the same bits")


def test_a_rename_that_is_not_atomic(
    starter: Starter, expected: dict[str, bytes], tmp_path: Path, record: Callable[..., None]
) -> None:
    rng, kills, damaged, chains, over = random.Random(2), 0, 0, 0, 0
    while kills < 10:
        workdir = tmp_path / f"run-{chains}"
        while True:
            training = starter.start(command(workdir), "slow_moves", 0.05)
            status = starter.wait_until(training, functools.partial(steps, training), 120)
            if status is None and kills < 10:
                status = starter.wait_until(training, lambda: False, rng.uniform(0.2, 3))
            elif status is None:
                status = starter.wait(training)
            damaged += training.said().count("is damaged")
            if status is not None:
                break
            os.kill(training.pid, signal.SIGKILL)
            starter.wait(training)
            kills += 1
        if status == 1 and "no other to fall back to" in training.said():  # killed in the move of the first checkpoint
            shutil.rmtree(workdir)
            over += 1
            continue
        assert status == 0, training.said()
        assert bits(workdir) == expected
        chains += 1
    record(
        "a rename that is not atomic, killed in it",
        kills,
        f"{damaged} times an incomplete checkpoint was named and the one before it read, "
        f"{f'{over} times it was the only one, an error' if over else 'never was it the only one'}; "
        f"{counted(chains, 'run')} ended in the same bits",
    )


def test_damaged_bytes_at_200_places(whole: Path, tmp_path: Path, record: Callable[..., None]) -> None:
    os.chdir(ROOT)
    parts = build_parts(read_config(whole), 6)
    template = jax.eval_shape(parts.init, jax.random.key(0))
    with Checkpoints(whole / "checkpoints") as checkpoints:
        newest = checkpoints.latest_step()
        intact = {step: checkpoints.restore(template, step) for step in checkpoints.steps()}
    rng, found = random.Random(3), collections.Counter()
    files = sorted(path for path in (whole / "checkpoints" / str(newest)).rglob("*") if path.is_file())
    copy = tmp_path / "checkpoints"
    shutil.copytree(whole / "checkpoints", copy)
    for number in range(200):
        file = copy / files[number % len(files)].relative_to(whole / "checkpoints")
        before = file.read_bytes()
        place = rng.randrange(len(before)) if before else 0
        changed = bytearray(before)
        if number // len(files) % 2 and before:
            changed[place] ^= 1 << rng.randrange(8)
        else:
            changed = changed[:place]
        file.write_bytes(changed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            restored = Checkpoints(copy).restore(template)
        file.write_bytes(before)
        said = [str(w.message) for w in caught if w.category is CheckpointWarning]
        assert (restored.step == newest) == (not said)
        if said:
            assert f"{newest} is damaged" in said[0] and f"falling back to that of step {restored.step}" in said[0]
        right = intact[restored.step]
        assert restored[2:] == right[2:]
        for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(right.state), strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
        found["named" if said else "without effect"] += 1
    assert found["named"] >= 50
    record(
        "a bit flipped or the rest cut off, in a checkpoint",
        200,
        f"{found['named']} times named, and the checkpoint before was read; {found['without effect']} times without "
        "effect on any value; never wrong numbers",
    )


def test_all_checkpoints_damaged_are_an_error(whole: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    for about in copy.glob("*/about/metadata"):
        about.write_bytes(b"{")
    template = jax.eval_shape(build_parts(read_config(whole), 6).init, jax.random.key(0))
    with pytest.raises(CheckpointError, match="no other to fall back to"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Checkpoints(copy).restore(template)


def test_two_processes_on_one_workdir(
    starter: Starter, expected: dict[str, bytes], tmp_path: Path, record: Callable[..., None]
) -> None:
    refused = 0
    for number in range(3):
        workdir = tmp_path / f"run-{number}"
        both = [starter.start(command(workdir)) for _ in range(2)]
        statuses = [starter.wait(training) for training in both]
        for status, training in zip(statuses, both):
            if status:
                assert f"trains in the workdir {workdir}" in last_line(training.said()), training.said()
                refused += 1
        assert 0 in statuses
        assert bits(workdir) == expected
    assert refused
    record("two trainings on one workdir", 3, f"{refused} times the second was refused, with the number of the first")


def test_a_clock_that_is_set_back(
    starter: Starter, expected: dict[str, bytes], tmp_path: Path, record: Callable[..., None]
) -> None:
    workdir = tmp_path / "run"
    training = starter.start(command(workdir), "clock_back", 400)
    starter.wait_until(training, lambda: "\nstep 5/" in training.said(), 120)
    os.kill(training.pid, signal.SIGKILL)
    starter.wait(training)
    for path in workdir.rglob("*"):
        os.utime(path, (0, 0) if "checkpoints" in path.parts else (4e9, 4e9))
    status, said = starter.run(command(workdir), "clock_back", 4000)
    assert status == 0 and "resuming after step" in said, said
    assert bits(workdir) == expected
    record("clock set back, times of files in 1970 and 2096", 1, "nothing: the order is that of the steps, same bits")
