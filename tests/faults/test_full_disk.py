"""A disk that is full from each single write on: of a checkpoint, and of the other files of a run."""

import collections
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.faults import Starter, bits, command
from helpers.full_disk import filled

from jaxseg.errors import CheckpointError
from jaxseg.run.checkpoint import Checkpoints, CheckpointWarning

SHORT = {"steps": 2, "eval__every": 2, "checkpoint__keep": 1}


def state(value: float) -> dict[str, np.ndarray]:
    return {name: np.full((2, 3), value, np.float32) for name in ("a", "b", "c")}


def restored(checkpoints: Checkpoints) -> tuple[int, dict[str, np.ndarray]]:
    found = checkpoints.restore(jax.eval_shape(lambda: state(0.0)))
    assert found is not None
    return found.step, found.state


def require_equal(found: tuple[int, dict[str, np.ndarray]], step: int) -> None:
    assert found[0] == step
    for name, array in state(float(step)).items():
        np.testing.assert_array_equal(found[1][name], array, strict=True)


def waiting(seconds: float = 10) -> list[str]:
    """Returns the threads of a save that the end of this process would still wait for after some seconds."""
    end = time.monotonic() + seconds
    while True:
        names = [t.name for t in threading.enumerate() if t.name.startswith(("json_ch", "np_type", "write_metadata"))]
        if not names or time.monotonic() >= end:
            return names
        time.sleep(0.01)


def test_a_disk_that_is_full_from_each_single_write_of_a_checkpoint_on(
    tmp_path: Path, record: Callable[..., None]
) -> None:
    first, counted = tmp_path / "first", tmp_path / "counted"
    with Checkpoints(first, keep=1) as checkpoints:
        checkpoints.save(1, state(1.0), wait=True)
    shutil.copytree(first, counted)
    with Checkpoints(counted, keep=1) as checkpoints, filled(0, counted) as disk:
        checkpoints.save(2, state(2.0), wait=True)
    kinds = collections.Counter(use.split(" ")[0] for use in disk.uses)
    assert {"open", "write", "mkdir", "rename", "array"} <= set(kinds) and kinds["array"] == 3, disk.uses
    failed = after = 0
    for number in range(1, len(disk.uses) + 1):
        folder = Path(shutil.copytree(first, tmp_path / str(number)))
        with Checkpoints(folder, keep=1) as checkpoints:
            try:
                with filled(number, folder), warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always", CheckpointWarning)
                    checkpoints.save(2, state(2.0), wait=True)
                after, last = after + 1, 2  # the new one is complete, and the old one stays
                assert any("cannot be removed" in str(each.message) for each in said)
                assert checkpoints.steps() == [1, 2]
            except CheckpointError as error:
                assert "o space left on device" in str(error) and "the older ones are intact (steps 1)" in str(error)
                failed += 1
                assert checkpoints.steps() == [1] and not waiting(), (disk.uses[number - 1], waiting(0))
                require_equal(restored(checkpoints), 1)
                # With space again. TensorStore of this process remembers the folder of step 2, which is gone.
                last = 3
                checkpoints.save(last, state(3.0), wait=True)
            require_equal(restored(checkpoints), last)
        shutil.rmtree(folder)
    assert (failed, after) == (len(disk.uses) - 1, 1)
    record(
        "disk full from each single write of a checkpoint on",
        len(disk.uses),
        f"{failed} times one sentence, and the checkpoint before was intact and read; once, at the removal of the old "
        "one, a warning; with space again the next was saved",
        uses=dict(kinds),
    )


@pytest.mark.slow
def test_a_disk_that_is_full_from_each_single_write_of_the_other_files_on(
    starter: Starter, tmp_path: Path, record: Callable[..., None]
) -> None:
    listing, workdir = tmp_path / "listing", tmp_path / "whole"
    status, said = starter.run(command(workdir, **SHORT), "full_disk", 0, str(workdir), str(listing))
    assert status == 0, said
    uses, expected = listing.read_text().splitlines(), bits(workdir)
    numbers = [number for number, use in enumerate(uses, start=1) if "checkpoints" not in use and "array" not in use]
    kinds = collections.Counter(uses[number - 1].split(" ")[0] for number in numbers)
    assert {"open", "write", "fsync", "mkdir", "rename"} <= set(kinds), kinds
    ends = collections.Counter()
    for number in numbers:
        workdir, use = tmp_path / f"run-{number}", uses[number - 1]
        status, said = starter.run(command(workdir, **SHORT), "full_disk", number, str(workdir), str(listing))
        assert "Traceback" not in said and len(listing.read_text().splitlines()) >= number, (use, said)
        error = said.strip().splitlines()[-1]
        missing = "lines are missing" in said
        if status:
            assert status == 1 and error.startswith("error: ") and "o space left" in error, (use, said)
            ends["a checkpoint" if "checkpoint of step" in error else "a file"] += 1
        else:
            assert missing or "cannot be" in said, (use, said)
            ends["went on"] += 1
        if missing:  # what the log lacks, no later start adds
            shutil.rmtree(workdir)
        again, more = starter.run(command(workdir, **SHORT))
        assert again == 0 and bits(workdir) == expected, (use, more)
        shutil.rmtree(workdir)
    record(
        "disk full from each single write of a run's other files on",
        len(numbers),
        f"{ends['a file'] + ends['a checkpoint']} times one sentence, status 1; {ends['went on']} times the run went "
        "on with a warning; started again, each ended in the same bits",
        lost="nothing; a line of the log that does not fit is left out, with a warning",
        uses=dict(kinds),
    )
