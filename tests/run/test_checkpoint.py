"""Checkpoints: exact, written atomically, with clear errors."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from helpers.xla_flags import quick_flags

from jaxseg.errors import ArgumentError, CheckpointError
from jaxseg.run import snapshot
from jaxseg.run.checkpoint import Checkpoints, CheckpointWarning

ROOT = Path(__file__).resolve().parents[2]


@struct.dataclass
class State:
    """A small substitute for `jaxseg.state.TrainState`."""

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema_params: Any


def make_state(step: int = 0, width: int = 5, ema: bool = False) -> State:
    params = {
        "stem": {"kernel": jax.random.normal(jax.random.key(step), (3, 3, 2, width)), "bias": jnp.zeros(width)},
        "head": {"kernel": jnp.full((width, 2), step, jnp.bfloat16)},
    }
    mask = {"stem": {"kernel": True, "bias": False}, "head": {"kernel": True}}
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, mask=mask), optax.scale_by_schedule(lambda n: n))
    return State(
        step=jnp.int32(step),
        params=params,
        batch_stats={
            "norm": {"mean": jnp.full(width, 1e-40), "var": jnp.array([jnp.nan, jnp.inf, -0.0, 1, 2])[:width]}
        },
        opt_state=tx.init(params),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
    )


def assert_same(restored: Any, state: Any) -> None:
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state)):
        assert isinstance(a, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape
        assert a.tobytes() == np.asarray(b).tobytes()


def template() -> State:
    return jax.eval_shape(make_state)


def filled(directory: Path, steps: tuple[int, ...] = (1, 2), keep: int = 5) -> Path:
    with Checkpoints(directory, keep=keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {"position": step})
    return directory


@pytest.mark.parametrize("ema", [False, True])
def test_restores_every_bit_type_and_node(tmp_path: Path, ema: bool) -> None:
    state = make_state(3, ema=ema)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(3, state, {"a": [1, None, "x"]}, {"mean_iou": 0.25})
        restored = checkpoints.restore(jax.eval_shape(lambda: make_state(ema=ema)))
    assert_same(restored.state, state)
    assert restored.state.ema_params is None or ema
    assert (restored.step, restored.iterator_state, restored.metrics) == (3, {"a": [1, None, "x"]}, {"mean_iou": 0.25})
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:  # another process, with arrays for a template
        assert_same(checkpoints.restore(make_state(0, ema=ema)).state, state)


def test_iterator_state_may_be_bytes_or_absent(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": np.arange(3)}, b"\x00\xff\x80")
        assert checkpoints.restore({"a": np.arange(3)}).iterator_state == b"\x00\xff\x80"
        checkpoints.save(2, {"a": np.arange(3)})
        assert checkpoints.restore({"a": np.arange(3)}).iterator_state is None


def test_invalid_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="keep must be a whole number of at least 1, got 0"):
        Checkpoints(tmp_path, keep=0)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ArgumentError, match="step must be a whole number of at least 0 or one of 'best' or None"):
            checkpoints.restore({"a": np.arange(3)}, step="last")
        with pytest.raises(ArgumentError, match="step must be a whole number of at least 0, got -1"):
            checkpoints.save(-1, {"a": np.arange(3)})
    assert not list(tmp_path.iterdir())


def test_carries_the_configuration(tmp_path: Path) -> None:
    config = {"steps": 3, "model": {"name": "unet", "args": {"widths": (4, 8)}}, "data": {"dir": None}}
    with Checkpoints(tmp_path, config=config) as checkpoints:
        config["steps"] = 4  # later changes have no effect on the checkpoint
        checkpoints.save(1, {"a": np.arange(3)}, wait=True)
        assert checkpoints.restore({"a": np.arange(3)}).config["steps"] == 3
    with Checkpoints(tmp_path) as reader:
        stored = reader.restore({"a": np.arange(3)}).config
        assert stored == {"steps": 3, "model": {"name": "unet", "args": {"widths": [4, 8]}}, "data": {"dir": None}}
        reader.save(2, {"a": np.arange(3)})
        assert reader.restore({"a": np.arange(3)}, step=2).config is None
    with pytest.raises(TypeError, match="not JSON serializable"):
        Checkpoints(tmp_path, config={"dir": tmp_path})


def test_carries_what_the_log_has_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    window = {"means": {"loss": [0.5, 0.1]}, "confusion": [[3, 1], [0, 2]]}
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, {"a": np.arange(3)}, log=window)
        checkpoints.save(2, {"a": np.arange(3)})
        assert checkpoints.restore({"a": np.arange(3)}, step=1).log == window
        assert checkpoints.restore({"a": np.arange(3)}, step=2).log is None
        seal = snapshot.seal
        monkeypatch.setattr(snapshot, "seal", lambda content: seal({k: v for k, v in content.items() if k != "log"}))
        checkpoints.save(3, {"a": np.arange(3)})  # as earlier versions did
        assert checkpoints.restore({"a": np.arange(3)}, step=3).log is None


def test_another_number_of_processes_takes_the_iterator_only_if_all_had_one_state(tmp_path: Path) -> None:
    filled(tmp_path)
    restored = Checkpoints(tmp_path).restore(template())
    assert restored._replace(iterator_states=({"next_batch": 3},) * 4).iterator_state == {"next_batch": 3}
    with pytest.raises(CheckpointError, match="different data iterator for each of 2 processes, this run has 1"):
        _ = restored._replace(iterator_states=(1, 2)).iterator_state


def test_odd_leaves(tmp_path: Path) -> None:
    state = {
        "empty": jnp.zeros((0, 3), jnp.bfloat16),
        "bool": np.array([True, False]),
        "u8": np.arange(5, dtype=np.uint8),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "f16": np.float16(2.5),
        "nothing": None,
        "list": [np.ones(1), (), {}],
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        restored = checkpoints.restore(state).state
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state)):
        np.testing.assert_array_equal(a, b, strict=True)
    assert restored["nothing"] is None and restored["list"][1:] == [(), {}]


def test_state_may_be_donated_as_soon_as_save_returns(tmp_path: Path) -> None:
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 7, tree), donate_argnums=0)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for number in range(3):
            state = {"a": jnp.full((512, 512), number, jnp.float32), "n": jnp.int32(number)}
            host = np.full((4, 4), number)
            checkpoints.save(number, {**state, "host": host})
            host[:] = -7
            state = step(state)
            del state
        for number in range(3):
            like = {"a": np.zeros((512, 512), np.float32), "n": np.int32(0), "host": np.zeros((4, 4), int)}
            restored = checkpoints.restore(like, step=number).state
            assert all((leaf == number).all() for leaf in jax.tree.leaves(restored))


def test_takes_arrays_replicated_over_devices(tmp_path: Path) -> None:
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated = jax.NamedSharding(mesh, jax.P())
    state = jax.device_put(make_state(4), replicated)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, state)
        restored = checkpoints.restore(template()).state
    assert_same(restored, state)
    placed = jax.device_put(restored, replicated)
    assert jax.tree.leaves(placed)[0].sharding == replicated


def test_none_where_there_is_none(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "nowhere") as checkpoints:
        assert checkpoints.restore(template()) is None and checkpoints.restore(template(), "best") is None
        assert checkpoints.latest_step() is None and checkpoints.best_step() is None and checkpoints.steps() == []
        with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
            checkpoints.restore(template(), step=7)
    assert not (tmp_path / "nowhere").exists()


def test_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    scores = {10: 0.1, 20: 0.9, 30: 0.3, 40: None, 50: float("nan"), 60: 0.2}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, {"a": np.full(2, step)}, metrics=None if score is None else {"mean_iou": score})
        checkpoints.wait()
        assert checkpoints.steps() == [20, 50, 60] and checkpoints.best_step() == 20
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.restore({"a": np.zeros(2, int)}, "best").state["a"][0] == 20
        assert checkpoints.restore({"a": np.zeros(2, int)}).step == 60
        assert np.isnan(checkpoints.restore({"a": np.zeros(2, int)}, 50).metrics["mean_iou"])
        checkpoints.save(70, {"a": np.full(2, 70)}, metrics={"mean_iou": 0.95}, wait=True)
        assert checkpoints.steps() == [60, 70] and checkpoints.best_step() == 70
    assert sorted(os.listdir(tmp_path)) == ["60", "70"]


def test_a_checkpoint_that_a_training_replaces_meanwhile_is_no_damage(tmp_path: Path, monkeypatch: Any) -> None:
    old, new = {"a": np.zeros(2)}, {"a": np.ones(2)}
    with Checkpoints(tmp_path, keep=1) as training, Checkpoints(tmp_path) as reader:
        training.save(1, old, metrics={"mean_iou": 0.1}, wait=True)
        steps = reader.steps

        def late() -> list[int]:  # the training saves between the list of the steps and the reading
            found = steps()
            if found == [1]:
                training.save(2, new, metrics={"mean_iou": 0.2}, wait=True)
            return found

        monkeypatch.setattr(reader, "steps", late)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            restored = reader.restore(old)
        assert restored is not None and restored.step == 2 and restored.state["a"].tolist() == [1, 1]


def test_best_without_any_evaluation_is_the_newest(tmp_path: Path) -> None:
    assert Checkpoints(filled(tmp_path)).restore(template(), "best").step == 2


def test_saving_the_same_step_again(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": np.zeros(2)}, wait=True)
        checkpoints.save(1, {"a": np.ones(2)})  # the same step of the same run: nothing to do
        assert checkpoints.restore({"a": np.ones(2)}).state["a"][0] == 0
        checkpoints.save(1, {"a": np.ones(2)})  # after a restore, the step is saved again
        assert checkpoints.restore({"a": np.ones(2)}).state["a"][0] == 1
        checkpoints.save(1, {"a": np.ones(2)}, metrics={"mean_iou": 0.5})
        assert checkpoints.restore({"a": np.ones(2)}).metrics == {"mean_iou": 0.5}
    assert os.listdir(tmp_path) == ["1"]


def test_another_way_from_an_older_step(tmp_path: Path) -> None:
    filled(tmp_path, (1, 2, 3))
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.restore(template(), step=1)
        checkpoints.save(2, make_state(9), wait=True)
        assert checkpoints.steps() == [1, 2]
        assert_same(checkpoints.restore(template()).state, make_state(9))


@pytest.mark.parametrize("how", ["truncated", "emptied", "deleted", "flipped"])
def test_damage_to_any_file_is_found(tmp_path: Path, how: str) -> None:
    """Damages each file of the newest checkpoint in turn; if the damage has no effect, step 2 may be restored."""
    filled(tmp_path / "whole")
    rng = random.Random(0)
    harmful = 0
    files = [p.relative_to(tmp_path / "whole") for p in sorted((tmp_path / "whole/2").rglob("*")) if p.is_file()]
    assert len(files) >= 5
    for number, file in enumerate(files):
        copy = tmp_path / f"{how}{number}"
        subprocess.run(["cp", "-r", tmp_path / "whole", copy], check=True)
        data = bytearray((copy / file).read_bytes())
        if how == "deleted":
            (copy / file).unlink()
        elif how == "flipped" and data:
            for _ in range(3):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            (copy / file).write_bytes(data)
        else:
            (copy / file).write_bytes(data[: len(data) // 2 if how == "truncated" else 0])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            restored = Checkpoints(copy).restore(template())
        assert_same(restored.state, make_state(restored.step))
        assert restored.iterator_state == {"position": restored.step}
        said = [w for w in caught if w.category is CheckpointWarning]
        assert len(said) == (restored.step == 1)
        if said:
            assert re.search(r"checkpoint .*2 is damaged .* falling back to that of step 1", str(said[0].message))
        harmful += restored.step == 1
    assert harmful >= 2


def test_whole_directories_lost(tmp_path: Path) -> None:
    filled(tmp_path, (1, 2, 3))
    subprocess.run(["rm", "-r", tmp_path / "3/state", tmp_path / "2/about"], check=True)
    with pytest.warns(CheckpointWarning) as caught:
        assert Checkpoints(tmp_path).restore(template()).step == 1
    assert len(caught) == 2
    with pytest.raises(CheckpointError, match=r"3 is damaged .* no other"):
        Checkpoints(tmp_path).restore(template(), step=3)
    subprocess.run(["rm", "-r", tmp_path / "1/state"], check=True)
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError, match="no other to fall back to"):
        Checkpoints(tmp_path).restore(template())


def test_a_workdir_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(1, make_state(1), wait=True)
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(CheckpointError, match=r"step 2 could not be saved .*No such file or directory"):
            checkpoints.save(2, make_state(2), wait=True)
    assert not (tmp_path / "run").exists()


def test_damaged_best_falls_back_to_the_next_best(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=5) as checkpoints:
        for step, score in {1: 0.5, 2: 0.9, 3: 0.1}.items():
            checkpoints.save(step, make_state(step), metrics={"mean_iou": score})
    subprocess.run(["rm", "-r", tmp_path / "2/state"], check=True)
    with pytest.warns(CheckpointWarning, match="falling back to that of step 1"):
        assert Checkpoints(tmp_path).restore(template(), "best").step == 1


def test_training_goes_on_over_a_damaged_checkpoint(tmp_path: Path) -> None:
    filled(tmp_path, (1, 3))
    (tmp_path / "3/about/metadata").write_text("{")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        with pytest.warns(CheckpointWarning):
            assert checkpoints.restore(template()).step == 1
        checkpoints.save(2, make_state(2), wait=True)
        assert checkpoints.steps() == [2]
        checkpoints.save(3, make_state(3), wait=True)
        assert_same(checkpoints.restore(template()).state, make_state(3))


def test_checkpoint_of_another_model_is_no_damage(tmp_path: Path) -> None:
    filled(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            CheckpointError, match=r"of another shape or type: .*float32\[5\] there and float32\[4\] here"
        ):
            checkpoints.restore(jax.eval_shape(lambda: make_state(width=4)))
        with pytest.raises(CheckpointError, match=r"3 missing from it: ema_params/head/kernel"):
            checkpoints.restore(jax.eval_shape(lambda: make_state(ema=True)))
        with pytest.raises(CheckpointError, match="unexpected in it: batch_stats/norm/mean"):
            checkpoints.restore(template().replace(batch_stats={}))
        with pytest.raises(CheckpointError, match=r"step is int32\[\] there and int16\[\] here"):
            checkpoints.restore(template().replace(step=jax.ShapeDtypeStruct((), jnp.int16)))


def fail_in_background(monkeypatch: pytest.MonkeyPatch, text: str = "No space left on device") -> None:
    from orbax.checkpoint._src.checkpointers import async_checkpointer

    original = async_checkpointer._background_wait_for_commit_futures

    def commit(directory: Any, futures: Any, on_commit: Any, **kwargs: Any) -> None:
        def fail() -> None:
            raise OSError(28, text)

        original(directory, futures, fail, **kwargs)

    monkeypatch.setattr(async_checkpointer, "_background_wait_for_commit_futures", commit)


@pytest.mark.parametrize("where", ["save", "wait", "close", "restore", "exit"])
def test_failure_in_the_background_comes_to_light(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, where: str
) -> None:
    filled(tmp_path)
    expected = r"checkpoint of step 3 could not be saved in .*No space left.*; the older ones are intact .steps 1, 2."
    with pytest.raises(CheckpointError, match=expected), Checkpoints(tmp_path) as checkpoints:
        with monkeypatch.context() as patch:
            fail_in_background(patch)
            checkpoints.save(3, make_state(3))
            time.sleep(0.2)
        if where == "save":
            checkpoints.save(4, make_state(4))
        elif where == "restore":
            checkpoints.restore(template())
        elif where != "exit":
            getattr(checkpoints, where)()
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]
    assert "Traceback" not in capfd.readouterr().err
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(template()).step == 2


def test_saving_works_again_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        with monkeypatch.context() as patch:
            fail_in_background(patch)
            checkpoints.save(3, make_state(3))
            with pytest.raises(CheckpointError):
                checkpoints.wait()
        checkpoints.save(3, make_state(3), wait=True)
        assert checkpoints.restore(template()).step == 3


def test_failure_does_not_hide_the_error_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.warns(CheckpointWarning, match="could not be saved"),
        pytest.raises(KeyError),
        Checkpoints(tmp_path) as checkpoints,
    ):
        fail_in_background(monkeypatch)
        checkpoints.save(3, make_state(3))
        raise KeyError


def test_failed_replacement_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        fail_in_background(monkeypatch)
        with pytest.raises(CheckpointError, match=r"older ones are intact .steps 1, 2."):
            checkpoints.save(2, make_state(9), wait=True)
        assert_same(checkpoints.restore(template()).state, make_state(2))


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"step 1 could not be saved in .*file.*; there is no older one"):
        Checkpoints(tmp_path / "file/checkpoints").save(1, make_state(1))


def python(code: str, *arguments: Any) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick_flags(devices=1)}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SAVES = """
    import sys
    import numpy as np
    from jaxseg.run.checkpoint import Checkpoints
    with Checkpoints(sys.argv[1], keep=2) as checkpoints:
        restored = checkpoints.restore({"a": np.zeros((400, 500)), "step": np.zeros((), np.int64)})
        step = 0 if restored is None else restored.step
        print("start", step, flush=True)
        while True:
            step += 1
            checkpoints.save(step, {"a": np.full((400, 500), step, float), "step": np.array(step)}, {"step": step})
            print(step, flush=True)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.slow)])  # each is a process of its own
def test_killed_at_any_moment_the_run_before_is_there(tmp_path: Path, kills: int) -> None:
    like = {"a": np.zeros((400, 500)), "step": np.zeros((), np.int64)}
    rng = random.Random(0)
    reached = 0
    for _ in range(kills):
        process = python(SAVES, tmp_path)
        start = int(process.stdout.readline().split()[1])
        assert start >= reached  # no progress is lost
        for _ in range(3):
            process.stdout.readline()  # a save begins when the previous one is complete
        time.sleep(rng.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no incomplete checkpoint is read
            restored = Checkpoints(tmp_path).restore(like)
        assert restored.step >= start + 2
        assert (restored.state["a"] == restored.step).all() and restored.iterator_state == {"step": restored.step}
        reached = restored.step
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(reached + 1, like, wait=True)
    assert os.listdir(tmp_path) == [str(reached + 1)]  # the files of killed processes are removed


def test_disk_that_fills_up(tmp_path: Path) -> None:
    """A limit on file sizes has the effect of a full disk: the write fails in Orbax's own thread."""
    code = """
        import resource, sys
        import numpy as np
        from jaxseg.run.checkpoint import Checkpoints, CheckpointError
        rng = np.random.default_rng(0)
        checkpoints = Checkpoints(sys.argv[1])
        checkpoints.save(1, {"a": rng.random(1000)}, wait=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            checkpoints.save(2, {"a": rng.random(1_000_000)})
            checkpoints.wait()
        except CheckpointError as error:
            print(error)
    """
    out, err = python(code, tmp_path).communicate(timeout=120)
    assert "checkpoint of step 2 could not be saved" in out and "intact (steps 1)" in out, (out, err)
    assert err == ""
    assert os.listdir(tmp_path) == ["1"]


def test_nothing_is_printed(tmp_path: Path) -> None:
    code = """
        import sys, logging
        import absl.logging
        absl.logging.set_verbosity("info")
        import numpy as np
        from jaxseg.run.checkpoint import Checkpoints
        with Checkpoints(sys.argv[1]) as checkpoints:
            for step in range(4):
                checkpoints.save(step, {"a": np.zeros(3)}, metrics={"mean_iou": 0.1})
            checkpoints.restore({"a": np.zeros(3)})
    """
    assert python(code, tmp_path).communicate(timeout=120) == ("", "")


def test_damage_is_one_warning_on_the_console(tmp_path: Path) -> None:
    code = """
        import sys
        import numpy as np
        from pathlib import Path
        from jaxseg.run.checkpoint import Checkpoints
        state = {f"a{i}": np.random.default_rng(0).random((100, 100)) for i in range(20)}
        with Checkpoints(sys.argv[1]) as checkpoints:
            for step in range(2):
                checkpoints.save(step, state)
            checkpoints.wait()
            largest = max(Path(sys.argv[1], "1").rglob("*"), key=lambda path: path.stat().st_size)
            largest.write_bytes(largest.read_bytes()[:1000])
            assert checkpoints.restore(state).step == 0
    """
    out, err = python(code, tmp_path).communicate(timeout=120)
    assert out == "" and err.count("CheckpointWarning: The checkpoint") == 1 and "Traceback" not in err, err


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()  # another process is writing
    before = sorted(p for p in tmp_path.rglob("*"))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(template()).step == 2
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one array"):
        Checkpoints(tmp_path).save(1, {})
