"""Trackers: they get what the log gets, in one run however often it is resumed, and never change or end a training."""

import io
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import fake_trackers
from helpers.terminal import Screen, Terminal
from helpers.tiny_run import short_config
from helpers.tiny_training import assert_identical, state_of

from jaxseg.config import update
from jaxseg.errors import ConfigError
from jaxseg.metrics import scores
from jaxseg.run import display, tracking
from jaxseg.run.check import check
from jaxseg.run.report import Reporter, read_log
from jaxseg.run.trackers.about import About
from jaxseg.run.trackers.in_mlflow import _plain
from jaxseg.run.tracking import Tracking, require_clients
from jaxseg.train import train

SECRET = "zebrafinch"
BOTH = ("wandb", "mlflow")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_PROJECT", "WANDB_DIR", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)


def step_metrics(step: int) -> dict[str, Any]:
    numbers = {"loss": step, "grad_norm": 2 * step, "param_norm": 3 * step, "learning_rate": 0.5}
    return {k: np.float32(v) for k, v in numbers.items()} | {"confusion": np.array([[3, 1], [0, 4]], np.int32)}


def report_a_run(workdir: Path) -> str:
    stream = io.StringIO()
    workdir.mkdir(parents=True, exist_ok=True)
    config = short_config(log__trackers=BOTH)
    with Reporter(
        workdir, every=1, tensorboard=False, stream=stream, classes=("a", "b/.."), tracking=Tracking(config, workdir)
    ) as reporter:
        reporter.start(0, 2)
        for step in (1, 2):
            reporter.train(step, step_metrics(step), 8)
        result = scores(np.array([[1, 1], [0, 2]]))
        reporter.evaluation(2, result, 0.5)
        reporter.picture(2, "predictions", np.zeros((6, 8, 3), np.uint8))
        reporter.final(2, result)
    return stream.getvalue()


def test_a_training_is_tracked_and_stays_bit_for_bit_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped and resumed with trackers and the display, or plain: the same parameters and the same log."""
    wandb, mlflow = fake_trackers.install(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@host.example")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(display, "_PAUSE", 0.01)
    tracked, plain = tmp_path / "tracked", tmp_path / "plain"
    with_trackers = short_config(log__trackers=BOTH, log__project="cells", log__progress="auto", log__images=1)
    for until in (3, None):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        train(with_trackers, tracked, "", until=until)
    assert "4 of 4" in stream.getvalue()
    assert Screen(100).feed(stream.getvalue()).text.rstrip().endswith("preds/"), "the display is gone"
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    train(short_config(log__progress="none", log__images=1), plain, "")
    assert "\x1b" not in stream.getvalue() and "step 4/4  val" in stream.getvalue()
    assert "step 1/4" not in stream.getvalue()

    assert_identical(state_of(tracked), state_of(plain))
    logs = [read_log(path / "log.jsonl") for path in (tracked, plain)]
    for record in (*logs[0], *logs[1]):
        del record["images_per_second" if record["split"] == "train" else "split"]
    assert logs[0] == logs[1]

    [(of_run, run)] = mlflow.runs.items()
    first, second = wandb.starts
    assert json.loads((tracked / "trackers.json").read_text()) == {"mlflow": of_run, "wandb": first.id}
    assert second.id == second.options["id"] == first.id and first.options["id"] is None
    assert run.status == ["RUNNING", "KILLED", "RUNNING", "FINISHED"] and (first.ended, second.ended) == (0, 0)
    assert run.experiment == mlflow.experiments["cells"] and second.options["project"] == "cells"
    assert second.options["config"]["optimizer.learning_rate"] == with_trackers.optimizer.learning_rate
    assert run.params["log.trackers"] == str(BOTH)

    records = read_log(tracked / "log.jsonl")
    for split, name in (
        ("train", "loss"),
        ("train", "loss/cross_entropy"),
        ("val", "mean_iou"),
        ("train", "grad_norm"),
    ):
        expected = [(r["step"], r[name]) for r in records if r["split"] == split and name in r]
        assert expected or "/" in name
        of_mlflow = [(m.step, m.value) for m in run.metrics if m.key == f"{split}/{name}"]
        rows = [*first.rows, *second.rows]
        of_wandb = [(row["step"], row[f"{split}/{name}"]) for row in rows if f"{split}/{name}" in row]
        assert of_mlflow == of_wandb == expected
    finals = {m.key: m.value for m in run.metrics if m.key.startswith(("final/", "best/"))}
    assert finals == second.summary and finals["final/step"] == 4
    assert finals["best/mean_iou"] == max(r["mean_iou"] for r in records if r["split"] == "val")
    assert sorted(run.images) == ["predictions/step-0000002.png", "predictions/step-0000004.png"]
    for path in tracked.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def test_tables_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, mlflow = fake_trackers.install(monkeypatch)
    assert "warning" not in report_a_run(tmp_path / "runs" / "first")
    [run], [start] = mlflow.runs.values(), wandb.starts
    [text] = run.files.values()
    assert text.splitlines() == ["class,iou,precision,recall,f1,pixels", *text.splitlines()[1:]]
    assert text.splitlines()[1].startswith("a,0.5,1.0,0.5,0.66") and text.splitlines()[1].endswith(",2")
    [tabled] = [row["val/classes"][1] for row in start.rows if "val/classes" in row]
    assert tabled["columns"][:2] == ["class", "iou"] and tabled["data"][1][:2] == ["b/..", pytest.approx(2 / 3)]
    assert [row["predictions"] for row in start.rows if "predictions" in row] == [[(6, 8, 3)]]
    assert start.axes == [("step", {"hidden": True}), ("*", {"step_metric": "step"})]
    assert (run.name, start.options["name"], start.options["project"]) == ("first", "first", "jaxseg")
    assert start.options["dir"] == str(tmp_path / "runs" / "first")
    monkeypatch.setenv("WANDB_DIR", "/elsewhere")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    report_a_run(tmp_path / "sweep" / "unet" / "seed-0")
    assert (mlflow.runs["run1"].experiment, mlflow.runs["run1"].name) == ("77", "unet/seed-0")
    assert wandb.starts[1].options["dir"] == "/elsewhere"


def test_names_of_runs_and_numbers() -> None:
    for path, name in (("/runs/a", "a"), ("/x/sweep/b/seed-0", "b/seed-0"), ("/a", "a"), ("a", "a")):
        assert About(Path(path), "", {}, "").name == name
    names = {"val/iou/b/..": "val/iou/b/_", "val/iou/größe (cm)": "val/iou/größe _cm_", "val/iou//x": "val/iou/_x"}
    assert {name: _plain(name) for name in names} == names and _plain("train/loss") == "train/loss"


def test_a_run_that_the_store_has_lost_is_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mlflow = fake_trackers.install(monkeypatch)
    for content in ('{"mlflow": "gone"}', "[]", "nonsense", '{"mlflow": 3}'):
        (tmp_path / "trackers.json").write_text(content)
        assert "warning" not in report_a_run(tmp_path)
        last = list(mlflow.runs)[-1]
        assert json.loads((tmp_path / "trackers.json").read_text())["mlflow"] == last and len(mlflow.runs[last].metrics)
    assert len(mlflow.runs) == 4


@pytest.mark.parametrize("broken", ["create_run", "log_batch", "log_text", "set_terminated"])
def test_a_tracker_that_fails_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    wandb, mlflow = fake_trackers.install(monkeypatch)

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("Connection refused.\nwith details")

    setattr(mlflow, broken, fail)
    said = report_a_run(tmp_path)
    sentence = "warning: mlflow does not track this run from here on, which goes on without it: Connection refused.\n"
    assert said.count("warning") == said.count(sentence) == 1
    assert wandb.starts[0].ended == 0 and len([r for r in wandb.starts[0].rows if "train/loss" in r]) == 2
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 2, 2]


def test_a_tracker_that_hangs_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, mlflow = fake_trackers.install(monkeypatch)
    go, began = threading.Event(), time.monotonic()
    monkeypatch.setattr(mlflow, "log_batch", lambda *_, **__: go.wait(60))
    monkeypatch.setattr(tracking, "_PATIENCE", 0.2)
    said = report_a_run(tmp_path)
    go.set()
    assert time.monotonic() - began < 30
    assert "mlflow does not track this run from here on" in said and "not taken everything 0 s after the end" in said
    assert wandb.starts[0].ended == 0


def test_what_waits_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mlflow = fake_trackers.install(monkeypatch)
    go = threading.Event()
    monkeypatch.setattr(mlflow, "log_batch", lambda *_, **__: go.wait(60))
    monkeypatch.setattr(tracking, "_AHEAD", 3)
    said: list[str] = []
    tracked = Tracking(short_config(log__trackers=("mlflow",)), tmp_path)
    tracked.start(said.append)
    for step in range(10):
        tracked.scalars(step, {"x": 1.0})
    assert len(said) == 1 and "3 entries wait for it" in said[0]
    go.set()
    tracked.close()


def test_pictures_that_wait_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that hangs at its start; afterwards it gets every number, and the newest pictures."""
    _, mlflow = fake_trackers.install(monkeypatch)
    go, create = threading.Event(), mlflow.create_run
    monkeypatch.setattr(mlflow, "create_run", lambda *of, **more: (go.wait(60), create(*of, **more))[1])
    monkeypatch.setattr(tracking, "_ROOM", 300)
    said: list[str] = []
    tracked = Tracking(short_config(log__trackers=("mlflow",)), tmp_path)
    tracked.start(said.append)
    for step in range(6):
        tracked.scalars(step, {"x": 1.0})
        tracked.picture(step, "few", np.zeros((1, 10, 10, 3) if step == 5 else (1, 5, 10, 3), np.uint8))
    waiting = [size for _, size in tracked._lanes[0]._waiting]
    assert sum(waiting) == 300 and len(waiting) == 7
    tracked.picture(6, "few", np.zeros((1, 11, 10, 3), np.uint8))
    assert sum(size for _, size in tracked._lanes[0]._waiting) == 330, "the newest stays, however large"
    go.set()
    tracked.close()
    [run] = mlflow.runs.values()
    assert [m.step for m in run.metrics] == list(range(6)) and list(run.images) == ["few/step-0000006.png"]
    assert said == ["warning: mlflow is behind this run: pictures that wait for it are left out."]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (f"POST http://me:{SECRET}@host/api failed", "POST http://...@host/api failed"),
        (f"'https://{SECRET}@host', 'sqlite://a:{SECRET}/@b@host/x'", "'https://...@host', 'sqlite://...@host/x'"),
        (f"the key {SECRET} is wrong", "the key ... is wrong"),
        ("no run at http://host/a, say ops@host", "no run at http://host/a, say ops@host"),
    ],
)
def test_no_warning_has_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, shown: str) -> None:
    """Clients put the address that they were given into their errors, with the password in it."""
    _, mlflow = fake_trackers.install(monkeypatch)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError(words)

    monkeypatch.setattr(mlflow, "create_run", fail)
    said: list[str] = []
    tracked = Tracking(short_config(log__trackers=("mlflow",)), tmp_path)
    tracked.start(said.append)
    tracked.close()
    assert said == [f"warning: mlflow does not track this run from here on, which goes on without it: {shown}."]


def test_an_error_of_the_run_is_one_of_its_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, mlflow = fake_trackers.install(monkeypatch)
    for error, status, code in ((ValueError, "FAILED", 1), (SystemExit, "KILLED", 0)):
        tracked = Tracking(short_config(log__trackers=BOTH), tmp_path / status)
        (tmp_path / status).mkdir()
        with (
            pytest.raises(error),
            Reporter(tmp_path / status, every=1, tensorboard=False, stream=io.StringIO(), tracking=tracked) as reporter,
        ):
            reporter.start(0, 2)
            raise error
        assert list(mlflow.runs.values())[-1].status[-1] == status and wandb.starts[-1].ended == code


def test_only_the_first_process_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, mlflow = fake_trackers.install(monkeypatch)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    report_a_run(tmp_path)
    assert not wandb.starts and not mlflow.runs and list(tmp_path.iterdir()) == []


def test_a_client_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "OPENERS", {"notinstalled": None})
    (tmp_path / "notinstalled").mkdir()  # such as the folder that wandb writes, where it is not installed
    for name in ("notinstalled", "neitherthis"):
        with pytest.raises(ConfigError, match=rf"log.trackers: {name} needs its client: pip install -e '\.\[{name}\]'"):
            require_clients([name])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = short_config()
    update(config, log__trackers=("wandb",))
    with pytest.raises(ConfigError, match=r"wandb needs its client: pip install -e '\.\[wandb\]'"):
        check(config)
    with pytest.raises(ConfigError, match=r"log\.trackers"):
        update(config, log__trackers=("tensorboard",))
        check(config)
