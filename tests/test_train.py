"""The training program as a user meets it: it ends well, resumes bit for bit, and refuses what cannot work."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg import command, pictures, setup
from jaxseg.checkpoint import Checkpoints
from jaxseg.config import ConfigError, update, validate
from jaxseg.presets import VARIANTS
from jaxseg.report import read_log
from jaxseg.train import default_workdir, main, train

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))
TINY = {
    "steps": 6, "batch_size": 8, "data.size": "(16,16)", "data.shapes_train": 20, "data.shapes_val": 8,
    "eval.every": 3, "eval.batch_size": 8, "checkpoint.every": 2, "log.every": 1, "log.images": 2,
    "log.tensorboard": False, "model.args.widths": "(4,6)", "schedule.warmup": 1, "ema.decay": 0.9,
    "augment.zoom": "(0.8,1.2)", "augment.brightness": 0.2,
}  # fmt: skip


def arguments(workdir, experiment="experiments/resunet.py", **changes):
    values = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return ["--config", experiment, "--workdir", str(workdir), *(f"--config.{k}={v}" for k, v in values.items())]


def state_of(workdir):
    """Every array of the newest checkpoint, by name."""
    import orbax.checkpoint as ocp

    with Checkpoints(Path(workdir) / "checkpoints") as checkpoints:
        path = checkpoints.path(checkpoints.latest_step())
    arrays = {}

    def walk(prefix, node):
        for name in node:
            if isinstance(node[name], dict):
                walk(f"{prefix}{name}/", node[name])
            else:
                arrays[prefix + name] = np.asarray(node[name])

    with ocp.StandardCheckpointer() as reader:
        item = next(p for p in path.iterdir() if p.is_dir() and (p / "_METADATA").exists())
        walk("", reader.restore(item))
    assert any("params" in name for name in arrays)
    return arrays


def assert_identical(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole tiny run."""
    os.chdir(ROOT)  # wherever the tests were started from
    workdir = tmp_path_factory.mktemp("train") / "run"
    assert main(arguments(workdir)) == 0
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
    for word in ("mean IoU", "checkpoints:", "curves.png", "jaxseg.evaluate", "jaxseg.predict", "resume:"):
        assert word in out


def test_pmap_run_gives_the_numbers_of_jit(run, tmp_path):
    assert main(arguments(tmp_path / "pmap", strategy="pmap")) == 0
    jit, pmap = state_of(run), state_of(tmp_path / "pmap")
    assert jit.keys() == pmap.keys()
    for name in jit:
        np.testing.assert_allclose(pmap[name], jit[name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_same_seed_same_run_and_another_seed_another(run, tmp_path):
    assert main(arguments(tmp_path / "same")) == 0
    assert_identical(state_of(run), state_of(tmp_path / "same"))
    assert main(arguments(tmp_path / "other", seed=1, steps=2)) == 0
    assert read_log(tmp_path / "other" / "log.jsonl")[0]["loss"] != read_log(run / "log.jsonl")[0]["loss"]


def start(workdir, **changes):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "jaxseg.train", *arguments(workdir, **changes)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def read_until(process, pattern):
    """Reads the process's output until a line matches; returns what was read."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
    raise AssertionError(f"{pattern!r} never came:\n" + "".join(lines))


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
    assert re.search(r"going on after step [2345]", out)
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
    assert "Stopped after step" in out
    assert main(arguments(workdir, checkpoint__every=100, eval__every=100)) == 0
    assert_identical(state_of(run), state_of(workdir))


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(run, tmp_path):
    workdir = tmp_path / "damaged"
    assert main(arguments(workdir)) == 0
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
    assert main(arguments(run, log__every=5)) == 0  # changes no number
    assert_identical(before, state_of(run))


def test_checkpoint_of_another_model_is_refused(run, tmp_path, capsys):
    workdir = tmp_path / "other"
    assert main(arguments(workdir, model__args__widths="(4,8)", steps=2)) == 0
    capsys.readouterr()
    import shutil

    shutil.rmtree(workdir / "checkpoints")
    shutil.copytree(run / "checkpoints", workdir / "checkpoints")
    assert main(arguments(workdir, model__args__widths="(4,8)", steps=2)) == 1
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
    assert main(arguments(tmp_path / "run", steps=2)) == 0
    out = "".join(capsys.readouterr())
    assert out.count("warning: a picture could not be made: [Errno 28] No space left on device.") == 2
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__name": "resnet"}, "There is no model 'resnet'. Did you mean 'resunet'?"),
        ({"model__args__width": "(1,2)"}, "Did you mean 'widths'"),
        ({"loss__terms": "cross_entropi"}, "Did you mean 'cross_entropy'"),
        ({"loss__class_weights": "median"}, "loss.class_weights must be"),
        ({"loss__aux_weights": (0.5, 0.25)}, "has 0 auxiliary outputs, but loss.aux_weights are (0.5, 0.25)"),
        ({"loss__aux_weights": (-1.0,)}, "loss.aux_weights must be finite and at least 0"),
        ({"loss__class_weights": "1,2"}, "2 numbers, but there are 6 classes"),
        ({"optimizer__name": "adamv"}, "Did you mean 'adam"),
        ({"data__source": "shape"}, "Did you mean 'shapes'"),
        ({"data__source": "folder", "data__dir": "nowhere"}, "nowhere"),
        ({"data__classes": "a,b"}, "data.classes names 2 classes"),
        ({"model__num_classes": 3}, "model.num_classes is 3"),
        ({"batch_size": 12}, "batch_size is 12, which 8 devices cannot share evenly"),
        ({"eval__batch_size": 4}, "eval.batch_size"),
        ({"accumulate": 2}, "batch_size / accumulate"),
        ({"strategy": "xmap"}, "strategy is 'xmap'"),
        ({"model__name": "attention_decoder", "model__args__num_heads": 5}, "num_heads 5 does not divide the width"),
        ({"experiment": "experiments/cnn.py", "model__args__hidden_kernel": 4}, "hidden_kernel must be odd"),
        ({"experiment": "experiments/cnn.py", "model__args__dropout": 1.5}, "Dropout needs a rate in [0, 1], got 1.5"),
        ({"model__args__norm": 3}, "norm must be the name of a norm"),
        ({"model__args__act": 3}, "There is no activation 3"),
        (
            {"experiment": "experiments/unet.py", "model__args__encoder": "residual", "model__args__padding": "valid"},
            "another encoder needs 'same'",
        ),
        (
            {"experiment": "experiments/unet.py", "model__args__encoder": "residual"},
            "widths (4, 6) are too few for an encoder of",
        ),
        ({"model__args__widths__x": 3}, "model.args.widths.x cannot be set"),
        ({"optimizer__args__b1": "foo"}, "optimizer.args.b1 must be a number like 0.9, got 'foo'"),
        ({"optimizer__args__b1": 1.5}, "optimizer.args.b1 must lie in [0, 1)"),
        ({"optimizer__args__nesterov": "foo"}, "optimizer.args.nesterov must be True or False, got 'foo'"),
        ({"optimizer__args__mu_dtype": "foo"}, "mu_dtype"),
        ({"augment__brightness": 2.0}, "augment.brightness must lie in [0, 1]"),
        ({"augment__zoom": "a,b"}, "augment.zoom must be numbers"),
        ({"data__classes": "0,1"}, "data.classes names 2 classes (0, 1)"),
        ({"seed": 2**70}, "seed must lie in 0 to 4294967295"),
        ({"data__ignore": 70000}, "data.ignore must lie in -1 to 65535"),
    ],
    ids=str,
)
def test_wrong_input_is_one_sentence_and_leaves_no_run(tmp_path, capsys, change, message):
    assert main(arguments(tmp_path / "run", **change)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_median_frequencies_of_nothing_labelled(monkeypatch):
    nothing = np.zeros(2, np.int64)
    monkeypatch.setattr(setup.pipeline, "pixel_counts", lambda source: (nothing, nothing))
    config = command.load_experiment("experiments/resunet.py")
    update(config, loss__class_weights="median_frequency")
    with pytest.raises(ConfigError, match=r"loss\.class_weights=median_frequency: "):
        setup.class_weights(config, 2, None)


def test_wrong_first_start_does_not_lock_the_workdir(tmp_path, capsys):
    assert main(arguments(tmp_path / "run", optimizer__learning_rate=1e38, optimizer__name="sgd", steps=2)) == 1
    assert main(arguments(tmp_path / "run", steps=2)) == 0


def test_resuming_on_data_with_other_classes_is_refused(tmp_path, capsys):
    def folder(name, classes):
        for kind in ("images", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        listed = [{"index": i, "name": n, "colour": [i, i, i]} for i, n in enumerate(classes)]
        (tmp_path / name / "classes.json").write_text(json.dumps({"classes": listed}))
        for i in range(10):
            Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / name / "images" / f"{i}.png")
            Image.new("L", (16, 16), i % 2).save(tmp_path / name / "masks" / f"{i}.png")
        return str(tmp_path / name)

    changes = {"data__source": "folder", "steps": 2}
    assert main(arguments(tmp_path / "run", data__dir=folder("a", ["sky", "road"]), **changes)) == 0
    capsys.readouterr()
    assert main(arguments(tmp_path / "run", data__dir=folder("b", ["cat", "dog"]), **changes)) == 1
    error = capsys.readouterr().err
    assert "sky" in error and "dog" in error
    assert "sky" in (tmp_path / "run" / "data.json").read_text()


def test_workdir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(arguments(tmp_path / "file" / "run")) == 1
    assert "The run cannot be kept in" in capsys.readouterr().err


def test_default_workdir():
    assert default_workdir("experiments/resunet.py") == Path("runs/resunet")
    assert default_workdir("experiments/resunet.py:camvid") == Path("runs/resunet-camvid")


def test_training_outside_the_main_thread(tmp_path):
    """Signals cannot be handled there; all else works."""
    _, config = command.parse_command_line(arguments(tmp_path, steps=2), "x", "x")
    results = []
    thread = threading.Thread(target=lambda: results.append(train(config, tmp_path / "run", "x")))
    thread.start()
    thread.join()
    assert results[0].images == 8


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_and_variant_is_valid(name, variant):
    config = command.load_experiment(f"experiments/{name}.py:{variant}")
    validate(config)
    setup.check(config)
    docstring = (ROOT / "experiments" / f"{name}.py").read_text().split('"""')[1]
    assert f"python -m jaxseg.train --config experiments/{name}.py" in docstring
    # Never a number that nobody saw: the owner of an experiment writes one in after training it.
    measured = r"[Ss]hapes validation mIoU: (\.\d{3} \(|not yet measured\.)"
    assert re.search(measured, docstring) and "@" not in docstring


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, "shapes") for name in EXPERIMENTS] + [("resunet", v) for v in VARIANTS if v != "shapes"],
)
def test_every_experiment_trains_a_shrunk_step(tmp_path, name, variant):
    config = command.load_experiment(f"experiments/{name}.py:{variant}")
    crop = (16, 16) if config.augment.crop else ()
    update(
        config, data__source="shapes", data__size=(24, 20), augment__crop=crop, data__shapes_train=8,
        data__shapes_val=8, steps=1, batch_size=8, eval__batch_size=8, schedule__warmup=0, log__tensorboard=False,
    )  # fmt: skip
    args = config.model.args.to_dict()
    widths = {"cnn": (4, 4), "encoder_decoder": (4, 4), "unet": (4, 4, 4)}
    if name in widths or "widths" in args:
        update(config, model__args=args | {"widths": widths[name] if name in widths else (4, 4, 4)})
    result = train(config, tmp_path, "x")
    assert result.images == 8 and np.isfinite(result.loss)


@pytest.mark.slow
def test_first_command_reaches_what_the_readme_promises(tmp_path):
    """The README's first command, as it stands: validation mIoU of at least .90 on the shapes data."""
    assert main(["--config", "experiments/resunet.py", "--workdir", str(tmp_path / "run")]) == 0
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["mean_iou"] >= 0.90
