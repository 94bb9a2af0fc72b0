"""The clients of trackers themselves, without a network: what they keep on the disk, and a run that goes on."""

import csv
import io
import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_run import short_config

from jaxseg.metrics import scores
from jaxseg.run.report import Reporter
from jaxseg.run.tracking import Tracking


def report_a_run(workdir: Path, tracker: str, start: int, stop: int) -> None:
    """A start that makes the steps after `start`; the last one of all is 4."""
    workdir.mkdir(exist_ok=True)
    stream, tracking = io.StringIO(), Tracking(short_config(log__trackers=(tracker,)), workdir)
    with Reporter(
        workdir, every=1, tensorboard=False, stream=stream, classes=("sky", "a/../b"), tracking=tracking
    ) as reporter:
        reporter.start(start, 4)
        for step in range(start + 1, stop + 1):
            numbers: dict[str, Any] = dict.fromkeys(("grad_norm", "param_norm", "learning_rate"), np.float32(0.5))
            confusion = np.array([[3, 1], [0, 4]], np.int32)
            reporter.train(step, {**numbers, "loss": np.float32(step), "confusion": confusion}, 8)
        result = scores(np.array([[1, 1], [0, 2]]))
        reporter.evaluation(stop, result, 0.5)
        reporter.picture(stop, "predictions", np.full((6, 8, 3), 7, np.uint8))
        if stop == 4:
            reporter.final(stop, result)
    assert "warning" not in stream.getvalue(), stream.getvalue()


@pytest.mark.parametrize("scheme", ["sqlite:///{}/mlflow.db", "file://{}/mlruns"])
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shapes")
    mlflow.set_tracking_uri(scheme.format(tmp_path))
    try:
        report_a_run(tmp_path / "run", "mlflow", 0, 2)
        of_run = json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"]
        client = mlflow.MlflowClient()
        assert client.get_run(of_run).info.status == "KILLED"
        report_a_run(tmp_path / "run", "mlflow", 2, 4)
        [run] = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
        history = client.get_metric_history(of_run, "train/loss")
        files = {path.path for name in ("val/classes", "predictions") for path in client.list_artifacts(of_run, name)}
        table = Path(client.download_artifacts(of_run, "val/classes/step-0000004.csv", str(tmp_path))).read_text()
    finally:
        mlflow.set_tracking_uri(None)
    assert (run.info.run_id, run.info.status, run.info.run_name) == (of_run, "FINISHED", f"{tmp_path.name}/run")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert run.data.metrics["val/mean_iou"] == run.data.metrics["final/mean_iou"] == pytest.approx(7 / 12)
    assert run.data.metrics["val/iou/a/_b"] == pytest.approx(2 / 3) and run.data.metrics["best/step"] == 2
    assert run.data.params["model.name"] == "cnn" and run.data.params["steps"] == "4"
    assert {f"predictions/step-000000{step}.png" for step in (2, 4)} < files
    assert [row[:2] for row in csv.reader(table.splitlines())] == [
        ["class", "iou"],
        ["sky", "0.5"],
        *[["a/../b", str(2 / 3)]],
    ]


def records_of(file: Path) -> Iterator[Any]:
    """The records of a file of wandb: after 7 bytes, blocks of 32 KiB in LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if -place % 2**15 < 7:  # no room for a header in this block
            place += -place % 2**15
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: each start has a folder with a file of the same run, which `wandb sync` sends later."""
    pytest.importorskip("wandb.proto.wandb_internal_pb2")
    for name in ("WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    report_a_run(tmp_path / "run", "wandb", 0, 2)
    of_run = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    report_a_run(tmp_path / "run", "wandb", 2, 4)
    files = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*-{of_run}/run-{of_run}.wandb"))
    rows, summary, runs, codes = [], {}, [], []
    for record in itertools.chain(*map(records_of, files)):
        if record.HasField("history"):
            rows.append(values(record.history.item))
        if record.HasField("summary"):
            summary |= values(record.summary.update)
        if record.HasField("run"):
            runs.append((record.run.run_id, record.run.project, record.run.display_name))
        if record.HasField("exit"):
            codes.append(record.exit.exit_code)
    assert len(files) == 2 and set(runs) == {(of_run, "jaxseg", f"{tmp_path.name}/run")} and codes == [0, 0]
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [
        (i, float(i)) for i in range(1, 5)
    ]
    for name in ("val/classes", "predictions"):
        assert [row["step"] for row in rows if any(key.startswith(name) for key in row)] == [2, 4]
    assert summary["final/mean_iou"] == pytest.approx(7 / 12) and summary["best/step"] == 2
