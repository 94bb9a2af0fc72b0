"""The benchmark of few bits: what it trains and writes, its times alone, and that the page shows what was measured."""

import argparse
import importlib
import json

import pytest

RESULTS = {"quantised-shapes": 10, "quantised-nuclei": 8, "quantised-lraspp": 7, "quantised-times": 7}
"""The committed results and the rows of their tables, with the head."""


@pytest.fixture
def benchmark():
    return importlib.import_module("quantised")


@pytest.mark.slow  # it trains runs; their parts are tested in tests/run/test_quantised.py
def test_it_quantises_trains_further_and_measures_times_alone(benchmark, tmp_path):
    words = ["--smallest", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "q")]
    assert benchmark.main(words) == 0
    record = json.loads((tmp_path / "q.json").read_text())
    assert [run["variant"] for run in record["runs"]] == [benchmark.FLOAT, *benchmark.BASELINES]
    assert record["command"] == f"python benchmarks/quantised.py --smallest --work DIR --out {tmp_path / 'q'}"
    by_variant = {run["variant"]: run for run in record["runs"]}
    assert all(0 <= run["mean_iou"] <= 1 for run in by_variant.values())
    assert by_variant["8 bits"]["bytes"] < by_variant["float32"]["bytes"]
    trained = json.loads((tmp_path / "work" / "unet-0" / "8-bits-trained-run" / "config.json").read_text())
    assert trained["quantise"]["activations"] == 8 and trained["model"]["weights"].endswith("unet-0/float32")
    assert benchmark.main([*words, "--time-only"]) == 0
    seconds = json.loads((tmp_path / "q.json").read_text())["seconds"]
    assert set(seconds) == {"U-Net", "one 3x3 convolution"} and all(seconds["U-Net"].values())


def test_the_table_compares_with_the_run_of_as_many_steps(benchmark):
    scores = {
        "float32": (0.5, 0.6),
        "8 bits": (0.49, 0.58),
        "float32, further": (0.7, 0.8),
        "8 bits, trained": (0.7, 0.9),
    }
    runs = [
        {
            "network": "unet",
            "seed": seed,
            "variant": variant,
            "mean_iou": score,
            "bytes": 1000 if variant[0] == "f" else 250,
        }
        for variant, found in scores.items()
        for seed, score in enumerate(found)
    ]
    record = {
        "runs": runs,
        "steps": 10,
        "data": "shapes",
        "command": "x",
        "environment": importlib.import_module("lib.timing").environment(),
    }
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in benchmark._table(record).splitlines()
        if line.startswith("| U")
    ]
    assert [row[1] for row in rows] == list(scores)
    assert [row[5] for row in rows] == ["", "float32", "", "float32, further"]
    assert [row[4].split()[0] if row[4] else "" for row in rows] == ["", "-1.50", "", "+5.00"]
    assert [row[6] for row in rows] == ["1 kB, 1.000", "0 kB, 0.250", "1 kB, 1.000", "0 kB, 0.250"]


def test_a_folder_is_trained_in_crops_and_scored_at_its_own_sizes(benchmark):
    options = argparse.Namespace(steps=20, data_dir="x", smallest=False)
    config = benchmark._config(options, "lraspp", 3)
    assert (config.model.name, config.seed, config.data.fit, config.eval.batch_size) == ("lraspp", 3, "crop", 1)


@pytest.mark.parametrize("name", RESULTS)
def test_the_committed_tables_are_those_of_the_page(benchmark, name):
    results = benchmark.Path(benchmark.__file__).parent / "results" / f"{name}.md"
    rows = [line for line in results.read_text().splitlines() if line.startswith("| ")]
    page = (results.parents[2] / "docs" / "quantised.md").read_text()
    assert len(rows) == RESULTS[name] and [row for row in rows if row not in page] == []
