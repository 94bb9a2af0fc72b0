"""`benchmarks/collect.py`: the runs that training and evaluation left, in one table, with commands to repeat them."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from jaxseg.config import default_config, update
from jaxseg.run.messages import python_call
from jaxseg.run.provenance import end_record, run_record
from jaxseg.run.workdir import prepare_workdir

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_a_run_and_those_of_an_earlier_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    collect = importlib.import_module("collect")
    config = default_config()
    update(config, model__name="unet", steps=8)
    for name, score in (("a", 0.25), ("b", 0.5)):
        workdir = prepare_workdir(tmp_path / "runs" / name, config)
        words = [
            *(["jaxseg.train"] if name == "a" else ["/env/bin/jaxseg", "train"]),
            "--config",
            "experiments/unet.py",
            "--workdir",
            str(workdir),
            "--config.data.dir=/mine",
        ]
        monkeypatch.setattr(sys, "argv", [*words, "--config.model.args.widths=(4, 8)"])
        run_record(workdir, config)
        end_record(workdir, step=8, seconds=90.0, mean_iou=score)
        scores = {"parameters": 1234, "step": 8, "images": 2, "mean_iou": score, "pixel_accuracy": 0.75, "classes": []}
        if name == "b":
            scores["intervals"] = {"level": 0.95, "mean_iou": [0.375, 0.625]}
        (workdir / "evaluate-val.json").write_text(json.dumps(scores))
    assert collect.main([str(tmp_path / "runs" / "a"), "--split=val", "--out", str(tmp_path / "one")]) == 0
    kept = ["--split=val", "--keep", str(tmp_path / "one.json"), "--note", "A note."]
    assert collect.main([str(tmp_path / "runs" / "b"), "--out", str(tmp_path / "two"), *kept]) == 0
    runs = {run["run"]: run for run in json.loads((tmp_path / "two.json").read_text())["runs"]}
    assert runs["a"]["interval"] is None and runs["b"]["interval"] == [0.375, 0.625]
    text = (tmp_path / "two.md").read_text()
    assert text.startswith("A note.\n") and text in capsys.readouterr().out
    assert text.index("| b | ") < text.index("| a | "), "best first"
    assert "| 1,234 | 8 |" in text and "| 50.0 | 75.0 | 1.5 |" in text
    for command in (
        "jaxseg.train --config experiments/unet.py --workdir runs/a",
        "jaxseg train --config experiments/unet.py --workdir runs/b",
    ):
        expected = f"python -m {command} --config.data.dir=PATH '--config.model.args.widths=(4, 8)'"
        assert f"\n    {expected}\n" in text
    assert collect.main([str(tmp_path / "runs" / "a"), "--out", str(tmp_path / "none")]) == 1
    assert "--split test" in capsys.readouterr().err and not (tmp_path / "none.json").exists()


def test_result_tables_leave_the_folders_of_a_machine_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    collect = importlib.import_module("collect")
    given = ["--config", "/home/me/p/experiments/unet.py:camvid", "--workdir=/data/runs/a"]
    given += ["--config.data.dir", "/secret", "--config.data.cache=/c", "--config.steps=3", "--config.seed", "4"]
    given += ["--config.model.encoder_weights=/data/runs/ae"]
    expected = ["--config", "experiments/unet.py:camvid", "--workdir", "runs/a", "--config.data.dir=PATH"]
    expected += ["--config.steps=3", "--config.seed=4", "--config.model.encoder_weights=runs/ae"]
    given.append("--config.log.folder=/home/me/x/y")
    expected.append("--config.log.folder=x/y")
    assert collect.public(given) == expected
    command = "python /home/me/own.py -f /home/me/kernel.json"
    assert collect.public_command(command) == "python me/own.py -f me/kernel.json"


def test_calls_from_python_leave_them_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    collect = importlib.import_module("collect")
    overrides = {"data.dir": Path("/secret"), "data.cache": "/c", "steps": 3, "data__size": (4, 8)}
    call = python_call("/home/me/p/experiments/unet.py:camvid", Path("/data/runs/a"), overrides)
    expected = "jaxseg.train('experiments/unet.py:camvid', workdir='runs/a', steps=3, data__size=(4, 8), "
    assert collect.public_command(call) == expected + "**{'data.dir': 'PATH'})"
    call = python_call(default_config(), "runs/a", {"data__dir": "/secret", "data__cache": "/c"})
    assert collect.public_command(call) == "jaxseg.train(config, workdir='runs/a', data__dir='PATH')"
