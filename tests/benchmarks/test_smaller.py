"""The benchmark of smaller networks: what it writes, its times alone, and that the page shows what was measured."""

import importlib
import json

import numpy as np
import pytest


@pytest.fixture
def benchmark():
    return importlib.import_module("smaller")


@pytest.mark.slow
def test_it_trains_shrinks_and_prunes_and_measures_times_alone(benchmark, tmp_path):
    words = ["--smallest", "--out", str(tmp_path / "s")]
    assert benchmark.main(words) == 0
    record = json.loads((tmp_path / "s.json").read_text())
    assert len(record["runs"]) == 6 and all(0 <= run["mean_iou"] <= 1 for run in record["runs"])
    assert record["networks"]["0.5"]["parameters"] < record["networks"]["1"]["parameters"]
    assert benchmark.main([*words, "--time-only"]) == 0
    again = json.loads((tmp_path / "s.json").read_text())
    assert again["runs"] == record["runs"] and again["times"] != record["times"]


def test_the_network_of_a_variant_and_its_bytes(benchmark):
    assert [benchmark._share_of(v) for v in ("large, fine-tuned", "0.9 of the weights 0")] == ["1", "1"]
    assert [benchmark._share_of(v) for v in ("0.25, from scratch", "0.5 of the channels, l1")] == ["0.25", "0.5"]
    kernel = np.random.default_rng(0).normal(size=4000)
    dense, sparse = (benchmark.packed({"params": {"kernel": k}}) for k in (kernel, np.where(kernel < 1.3, 0, kernel)))
    assert 14000 < dense < 16100 and sparse < 0.2 * dense


def test_the_committed_table_is_that_of_the_page(benchmark):
    results = benchmark.Path(benchmark.__file__).parent / "results" / "smaller-shapes.md"
    rows = [line for line in results.read_text().splitlines() if line.startswith("| ")]
    page = (results.parents[2] / "docs" / "smaller.md").read_text()
    assert len(rows) > 5 and all(row in page for row in rows)
