"""A run that is killed, or told to end, at random moments ends in the bits of a run that nothing stops."""

import collections
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.faults import Starter, Training, bits, command

pytestmark = pytest.mark.slow
KILLS = 100
NOTICES = 20
NOTICE = 5.0  # seconds that a preempted machine leaves


def random_moment(starter: Starter, training: Training, rng: random.Random, seconds: float) -> int | None:
    """Waits for a moment of the whole start, or every second time of its steps; returns the status at its end."""
    if rng.random() < 0.5:
        return starter.wait_until(training, lambda: False, rng.uniform(0, seconds))
    status = starter.wait_until(training, lambda: "\nstep " in training.said(), 120)
    return starter.wait_until(training, lambda: False, rng.uniform(0, seconds / 3)) if status is None else status


def phase(workdir: Path, said: str) -> str:
    """Returns what a killed training was doing, as its files and its last lines show."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    if any("tmp" in name for name in names):
        return "writing a checkpoint"
    if any("deleting" in name for name in names):
        return "removing an old checkpoint"
    return "between writes" if re.search(r"^step ", said, re.M) else "starting"


def test_sigkill_at_random_moments(
    starter: Starter, expected: dict[str, bytes], tmp_path: Path, record: Callable[..., None]
) -> None:
    rng, phases = random.Random(0), collections.Counter()
    began = time.monotonic()
    assert starter.run(command(tmp_path / "timed"))[0] == 0
    seconds = time.monotonic() - began
    chains = kills = resumed = 0
    while kills < KILLS:
        workdir = tmp_path / f"run-{chains}"
        while True:
            training = starter.start(command(workdir))
            status = random_moment(starter, training, rng, seconds) if kills < KILLS else starter.wait(training)
            resumed += "resuming after step" in training.said()
            if status is not None:
                assert status == 0, training.said()
                break
            os.kill(training.pid, signal.SIGKILL)
            assert starter.wait(training) in (-signal.SIGKILL, 0)
            assert "Traceback" not in training.said() and "damaged" not in training.said(), training.said()
            phases[phase(workdir, training.said())] += 1
            kills += 1
        assert bits(workdir) == expected
        chains += 1
    assert phases["writing a checkpoint"] > 0 and phases["starting"] > 0
    record(
        "killed (SIGKILL) at a random moment",
        kills,
        f"{chains} runs, killed and started again until their ends: each ended in the same bits and the same log",
        phases=dict(phases),
        resumed=resumed,
    )


def test_sigterm_with_five_seconds_left(
    starter: Starter, expected: dict[str, bytes], tmp_path: Path, record: Callable[..., None]
) -> None:
    rng, ends, longest, sent, chains = random.Random(1), collections.Counter(), 0.0, 0, 0
    began = time.monotonic()
    assert starter.run(command(tmp_path / "timed"))[0] == 0
    seconds = time.monotonic() - began
    while sent < NOTICES:
        workdir = tmp_path / f"run-{chains}"
        while True:
            training = starter.start(command(workdir))
            status = random_moment(starter, training, rng, seconds) if sent < NOTICES else starter.wait(training)
            if status is not None:
                assert status == 0, training.said()
                break
            before = training.said()
            os.kill(training.pid, signal.SIGTERM)
            sent, told = sent + 1, time.monotonic()
            status = starter.wait_until(training, lambda: False, NOTICE)
            longest = max(longest, min(NOTICE, time.monotonic() - told))
            if status is None:
                os.kill(training.pid, signal.SIGKILL)
                starter.wait(training)
                ends["killed after 5 s"] += 1
                continue
            said = training.said()
            assert "Traceback" not in said, said
            if "Scores of the last step" in said:
                ends["the run had ended"] += 1
            elif "Stopped after step" in said:
                assert status == 0, said
                ends["saved, status 0"] += 1
            else:  # it comes before Python's or the loop's first step, where there is nothing to save
                assert status in (128 + signal.SIGTERM, -signal.SIGTERM) and "Stopped" not in said, (before, said)
                ends["before the first step"] += 1
        assert bits(workdir) == expected
        chains += 1
    assert ends["saved, status 0"] > 0
    record(
        "told to end (SIGTERM), killed 5 s later",
        sent,
        f"{ends['saved, status 0']} times saved with status 0, {ends['before the first step']} times before the first "
        f"step, {ends['the run had ended']} times at the end, {ends['killed after 5 s']} times killed; {chains} runs "
        "ended in the same bits",
        seconds_to_the_end=round(longest, 2),
    )
