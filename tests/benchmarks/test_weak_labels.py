"""The benchmark of weak labels: what it writes, and that a second call goes on from it."""

import importlib
import json

import pytest


@pytest.fixture
def benchmark(monkeypatch):
    return importlib.import_module("weak_labels")


@pytest.mark.slow  # it trains runs; their parts are tested in tests/data/test_weak_labels.py
def test_it_trains_scores_and_goes_on(benchmark, tmp_path, capsys):
    words = ["--smallest", "--variants", "points, entropy;full", "--out", str(tmp_path / "w")]
    assert benchmark.main(words) == 0
    record = json.loads((tmp_path / "w.json").read_text())
    [run] = record["runs"]
    assert (run["variant"], run["seed"]) == ("points, entropy", 0) and 0 <= run["mean_iou"] <= 1
    labels = record["labels"]["points, entropy"]
    assert labels["right"] == 1 and 0 < labels["known"] < 0.5
    assert "| points, entropy |" in (tmp_path / "w.md").read_text()
    assert benchmark.main(words) == 0
    assert json.loads((tmp_path / "w.json").read_text())["runs"] == [run]
    with pytest.raises(SystemExit):
        benchmark.main(["--variants", "pionts"])
    assert "there is no variant 'pionts'. Did you mean 'points'?" in capsys.readouterr().err


def test_the_committed_table_is_that_of_the_page(benchmark):
    """Each row of the results is a row of docs/weak-labels.md."""
    results = benchmark.Path(benchmark.__file__).parent / "results" / "weak_labels.md"
    rows = [line for line in results.read_text().splitlines() if line.startswith("| ")]
    page = (results.parents[2] / "docs" / "weak-labels.md").read_text()
    assert len(rows) > 5 and all(row in page for row in rows)
