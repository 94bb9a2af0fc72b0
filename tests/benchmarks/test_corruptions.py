"""The benchmark of corruptions: what it trains and writes, and its tables."""

import importlib
import json
from types import SimpleNamespace

import pytest

from jaxseg.run.workdir import prepare_workdir


@pytest.fixture
def benchmark():
    return importlib.import_module("corruptions")


def run_of(network, variant, clean, jpeg, contrast, seed=0):
    rows = {"jpeg": {"drop": jpeg}, "contrast": {"drop": contrast}}
    drops = [*jpeg, *contrast]
    return {
        "network": network,
        "variant": variant,
        "seed": seed,
        "clean": {"mean_iou": clean},
        "corruptions": rows,
        "mean_drop": sum(drops) / len(drops),
    }


def test_the_tables_have_the_means_over_networks_and_seeds(benchmark):
    runs = [
        run_of("unet", "none", 0.8, (0.1, 0.3), (0.0, 0.0)),
        run_of("unet", "none", 0.6, (0.2, 0.2), (0.2, 0.2), seed=1),
        run_of("fpn", "none", 0.5, (0.0, 0.0), (0.1, 0.1)),
        run_of("unet", "augmented", 0.9, (0.1, 0.1), (0.0, 0.0)),
    ]
    settings = {"pixels": 32, "steps": 400, "images": 96}
    text = benchmark.to_table({"runs": runs, "settings": settings, "environment": benchmark.environment()})
    assert "| unet | 70.0 | 55.0 | 15.0 | 90.0 | 85.0 | 5.0 |" in text and "Seeds: 2." in text
    assert "| fpn | 50.0 | 45.0 | 5.0 |  |  |  |" in text  # not augmented yet
    assert "| jpeg | 13.3 | 10.0 |" in text and "| contrast | 10.0 | 0.0 |" in text


def test_runs_of_other_settings_are_refused(benchmark, tmp_path, capsys):
    words = ["--work", str(tmp_path), "--networks", "unet", "--variants", "none", "--steps", "50"]
    options = SimpleNamespace(images=96, steps=50, smallest=False)
    prepare_workdir(tmp_path / "unet-none-0", benchmark._config(options, "unet", "none", 0))
    (tmp_path / "unet-none-0" / "checkpoints" / "50").mkdir(parents=True)
    assert benchmark.main([*words, "--images", "200"]) == 1
    assert "holds a run with other settings (data.shapes_val: 96" in capsys.readouterr().err


@pytest.mark.slow  # it trains two runs; their parts are tested in tests/inference/test_corrupted.py
def test_it_trains_scores_and_goes_on(benchmark, tmp_path):
    words = ["--smallest", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "c")]
    assert benchmark.main(words) == 0
    record = json.loads((tmp_path / "c.json").read_text())
    assert [run["variant"] for run in record["runs"]] == ["none", "degraded"]
    command = "python benchmarks/corruptions.py --smallest --work DIR --out "
    assert len(record["runs"][0]["corruptions"]) == 12 and record["command"].startswith(command)
    assert record["command"] == f"{command}{tmp_path.name}/c"
    starts = json.loads((tmp_path / "work" / "unet-none-0" / "run.json").read_text())
    assert benchmark.main(words) == 0
    assert json.loads((tmp_path / "c.json").read_text())["runs"] == record["runs"]
    assert json.loads((tmp_path / "work" / "unet-none-0" / "run.json").read_text()) == starts
