"""The training command: files, messages, signals and errors of a run, and bit-for-bit resuming."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers.tiny_training import ROOT, arguments, assert_identical, state_of

from jaxseg import pictures, session
from jaxseg.config import command
from jaxseg.inference.score import score
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.garbage import look_rarely
from jaxseg.run.report import read_log
from jaxseg.train import main, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole tiny run."""
    os.chdir(ROOT)  # for any directory that the tests are started from
    workdir = tmp_path_factory.mktemp("train") / "run"
    assert main(arguments(workdir, log__images=2)) == 0
    return workdir


def test_run_leaves_what_it_promises(run):
    for name in ("config.json", "run.json", "data.json", "log.jsonl", "curves.png", "predictions.png", "checkpoints"):
        assert (run / name).exists(), name
    assert not list(run.glob(".*")), "a temporary file was left"
    records = read_log(run / "log.jsonl")
    assert [r["step"] for r in records if r["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in records if r["split"] == "val"] == [3, 6]
    record = json.loads((run / "run.json").read_text())
    assert re.search(r"resunet", json.dumps(record)) and re.search(r"\"jax\": \"\d", json.dumps(record))


def test_starting_a_finished_run_again_changes_nothing(run, capsys):
    before, log = state_of(run), (run / "log.jsonl").read_text()
    assert main(arguments(run)) == 0
    assert_identical(before, state_of(run))
    assert (run / "log.jsonl").read_text() == log
    out = "".join(capsys.readouterr())
    for word in ("mean IoU", "checkpoints:", "curves.png", "jaxseg.evaluate", "jaxseg.predict"):
        assert word in out
    assert "To resume" not in out and "compiled the step" not in out  # there is nothing to resume
    assert f"python -m jaxseg.train --config EXPERIMENT --workdir OTHER --config.model.weights={run}" in out


@pytest.mark.slow  # tests/test_step.py and tests/test_steady_loop.py do the same with the step and the loop
def test_pmap_run_gives_the_numbers_of_jit(run, tmp_path):
    assert main(arguments(tmp_path / "pmap", strategy="pmap")) == 0
    jit, pmap = state_of(run), state_of(tmp_path / "pmap")
    assert jit.keys() == pmap.keys()
    for name in jit:
        np.testing.assert_allclose(pmap[name], jit[name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_same_seed_same_run_and_another_seed_another(run, tmp_path, capsys):
    assert main(arguments(tmp_path / "same")) == 0
    assert_identical(state_of(run), state_of(tmp_path / "same"))
    other = arguments(tmp_path / "other", seed=1, epochs=2.25)  # as many steps, so that nothing is compiled again
    other.remove("--config.steps=6")
    capsys.readouterr()
    assert main(other) == 0
    out = "".join(capsys.readouterr())
    assert "2.25 epochs of 20 images in batches of 8 are 6 steps\n" in out and "last step, 6, on val" in out
    assert main(other) == 0  # the same command reads the steps again
    out = "".join(capsys.readouterr())
    assert "This run had ended before, after 6 steps" in out and "2.25 epochs" not in out
    assert read_log(tmp_path / "other" / "log.jsonl")[0]["loss"] != read_log(run / "log.jsonl")[0]["loss"]


def test_garbage_is_rarely_looked_for_up_to_the_first_step_alone(tmp_path, monkeypatch):
    """What the process of the caller had before, it has after the first step and after a mistake."""
    seen, before = [], (gc.get_threshold(), gc.get_freeze_count() > 0)

    def noting(name):
        training = sys.modules["jaxseg.train"]
        function = getattr(training, name)

        def call(*args, **kwargs):
            seen.append((name, gc.get_threshold()[0], gc.get_freeze_count() > 0))
            return function(*args, **kwargs)

        monkeypatch.setattr(training, name, call)

    gc.unfreeze()
    gc.set_threshold(701, 9, 9)
    try:
        for name in ("make_programs", "what_is_due"):
            noting(name)
        assert main(arguments(tmp_path / "run", steps=1, schedule__warmup=0)) == 0
        assert seen == [("make_programs", 200_000, True), ("what_is_due", 701, False)]
        assert main(["--config", str(tmp_path / "none.py")]) != 0
        assert gc.get_threshold() == (701, 9, 9) and not gc.get_freeze_count()
        gc.freeze()  # by the caller
        end = look_rarely()
        assert gc.get_threshold()[0] == 200_000
        end()
        end()
        assert gc.get_threshold() == (701, 9, 9) and gc.get_freeze_count()
    finally:
        gc.unfreeze()
        gc.set_threshold(*before[0])
        if before[1]:
            gc.freeze()


def start(workdir, **changes):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "jaxseg.train", *arguments(workdir, **changes)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process, pattern):
    """Reads the process's output until a line matches; returns what was read."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
    raise AssertionError(f"{pattern!r} never came:\n" + "".join(lines))


@pytest.mark.slow  # tests/test_resume.py kills a run too
def test_killed_at_several_points_and_started_again_ends_in_the_same_bits(run, tmp_path):
    """SIGKILL of a real process: before the first checkpoint, while one is written, and after an evaluation."""
    workdir = tmp_path / "killed"
    for pattern in (r"^step 1/6", r"^step 2/6", r"^step 3/6.*val", r"^step 5/6"):
        process = start(workdir)
        read_until(process, pattern)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    process = start(workdir)
    out = process.communicate()[0]
    assert process.returncode == 0, out
    assert re.search(r"resuming after step [2345]", out)
    assert_identical(state_of(run), state_of(workdir))
    strip = lambda path: [{k: v for k, v in r.items() if k != "images_per_second"} for r in read_log(path)]  # noqa: E731
    assert strip(workdir / "log.jsonl") == strip(run / "log.jsonl")


def test_sigterm_saves_and_leaves_cleanly_and_the_command_resumes(run, tmp_path):
    workdir = tmp_path / "stopped"
    process = start(workdir, checkpoint__every=100, eval__every=100)
    read_until(process, r"^step 1/6")
    process.send_signal(signal.SIGTERM)
    out = process.communicate()[0]
    assert process.returncode == 0, out
    assert "SIGTERM: finishing this step, then saving" in out
    assert re.search(rf"Stopped after step \d as asked. To resume from there: python -m jaxseg.train .*{workdir}", out)
    assert main(arguments(workdir, checkpoint__every=100, eval__every=100)) == 0
    assert_identical(state_of(run), state_of(workdir))


def test_signal_where_nothing_is_unsaved_says_so_and_leaves(tmp_path, capfd, monkeypatch):
    """Signals before the first step, and while a finished run draws its curves."""
    initial_state, checkpoints = session.initial_state, tmp_path / "run" / "checkpoints"

    def signalled(function):
        def call(*args, **kwargs):
            signal.raise_signal(signal.SIGTERM)
            return function(*args, **kwargs)

        return call

    def start_and_leave():
        with pytest.raises(SystemExit) as left:
            main(arguments(tmp_path / "run", steps=1, schedule__warmup=0))
        assert left.value.code == 128 + signal.SIGTERM
        error = capfd.readouterr().err
        assert "SIGTERM: stopping; there is nothing to save." in error and "finishing" not in error
        return sorted(path.name for path in checkpoints.glob("*"))

    monkeypatch.setattr(session, "initial_state", signalled(initial_state))
    assert start_and_leave() == []
    monkeypatch.setattr(session, "initial_state", initial_state)
    monkeypatch.setattr(pictures, "curves", signalled(pictures.curves))
    assert start_and_leave() == ["1"]
    monkeypatch.undo()
    assert main(arguments(tmp_path / "run", steps=1, schedule__warmup=0)) == 0
    assert "had ended before" in capfd.readouterr().err


def test_signal_in_the_last_evaluation_says_that_the_run_ends(tmp_path, capfd, monkeypatch):
    def signalled(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return score(*args, **kwargs)

    monkeypatch.setattr(session, "score", signalled)
    assert main(arguments(tmp_path / "run", steps=1, schedule__warmup=0, log__images=2)) == 0
    error = capfd.readouterr().err
    assert "SIGINT: the last step is done; scoring and saving it, then the run ends; a second signal stops" in error
    assert "finishing" not in error and "Scores of the last step, 1" in error
    assert not (tmp_path / "run" / "predictions.png").exists()


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(run, tmp_path):
    workdir = shutil.copytree(run, tmp_path / "damaged")
    newest = workdir / "checkpoints" / "6"
    for file in newest.rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.warns(UserWarning, match="6"):
        assert main(arguments(workdir)) == 0
    assert_identical(state_of(run), state_of(workdir))


def test_another_configuration_or_model_in_the_workdir_is_refused(run, capsys):
    before = state_of(run)
    assert main(arguments(run, seed=3, steps=7)) == 1
    error = capsys.readouterr().err
    assert "seed: 0 -> 3" in error and "steps: 6 -> 7" in error
    assert main(arguments(run, log__every=5)) == 0  # has no effect on numbers
    assert_identical(before, state_of(run))


def test_checkpoint_of_another_model_is_refused(run, tmp_path, capsys):
    workdir = tmp_path / "other"
    shutil.copytree(run, workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["model"]["args"]["widths"] = [4, 8]
    (workdir / "config.json").write_text(json.dumps(config))
    assert main(arguments(workdir, model__args__widths="(4,8)")) == 1
    assert re.search(r"error: .*(4, 6|6)", capsys.readouterr().err)


def test_diverging_run_stops_before_anything_broken_is_saved(tmp_path, capsys):
    workdir = tmp_path / "nan"
    changes = {"optimizer__name": "sgd", "optimizer__learning_rate": 1e38, "schedule__warmup": 0}
    assert main(arguments(workdir, checkpoint__every=1, **changes)) == 1
    error = capsys.readouterr().err
    assert re.search(r"error: The training diverged at step 1 \(.*there is no checkpoint yet.*learning_rate", error)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() is None


def test_pictures_that_cannot_be_written_cost_a_message_not_the_run(tmp_path, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "prediction_sheet", full)
    monkeypatch.setattr(pictures, "curves", full)
    assert main(arguments(tmp_path / "run", log__images=2)) == 0
    out = "".join(capsys.readouterr())
    # Two sheets of predictions, and the curves.
    assert out.count("warning: a picture cannot be drawn: [Errno 28] No space left on device.") == 3
    assert "curves:" not in out and "checkpoints:" in out


def test_disk_full_while_saving_is_one_sentence_and_keeps_the_checkpoint_before(tmp_path, capsys, monkeypatch):
    import orbax.checkpoint as ocp

    workdir, save, calls = tmp_path / "run", ocp.AsyncCheckpointer.save, []

    def full_at_the_second(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return save(self, *args, **kwargs)

    monkeypatch.setattr(ocp.AsyncCheckpointer, "save", full_at_the_second)
    assert main(arguments(workdir)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "No space left on device" in error
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [2]
    monkeypatch.undo()
    assert main(arguments(workdir)) == 0


def test_training_outside_the_main_thread(tmp_path):
    """Signals cannot be handled there; everything else works."""
    _, config = command.parse_command_line(arguments(tmp_path), "x", "x")
    results = []
    thread = threading.Thread(target=lambda: results.append(train(config, tmp_path / "run", "x")))
    thread.start()
    thread.join()
    assert results[0].images == 8
