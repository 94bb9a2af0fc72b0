"""The benchmark of images without labels: what it writes, that a second call goes on from it, and what is committed."""

import importlib
import json

import pytest
from helpers.tiny_training import ROOT

from jaxseg.config import to_dict, update
from jaxseg.config.command import load_experiment


@pytest.fixture
def benchmark():
    return importlib.import_module("semi")


@pytest.mark.slow  # it trains runs; their parts are tested in tests/test_consistency_runs.py
def test_it_trains_from_the_first_weights_and_goes_on(benchmark, tmp_path, capsys):
    words = ["--smallest", "--methods", "fixmatch", "--work", str(tmp_path / "runs"), "--out", str(tmp_path / "s")]
    assert benchmark.main(words) == 0
    runs = json.loads((tmp_path / "s.json").read_text())["runs"]
    assert [(run["training"], run["seed"]) for run in runs] == [("first", 0), ("fixmatch", 0)]
    config = json.loads((tmp_path / "runs" / "fixmatch-0" / "config.json").read_text())
    assert config["model"]["weights"] == str(tmp_path / "runs" / "first-0") and config["semi"]["method"] == "fixmatch"
    names = [(tmp_path / "runs" / run / "labelled.txt").read_text() for run in ("first-0", "fixmatch-0")]
    assert names[0] == names[1] and len(names[0].splitlines()) == 2
    assert "| fixmatch | 1 |" in (tmp_path / "s.md").read_text()
    assert benchmark.main(words) == 0
    assert json.loads((tmp_path / "s.json").read_text())["runs"] == runs
    with pytest.raises(SystemExit):
        benchmark.main(["--methods", "fixmach"])
    assert "there is no method 'fixmach'. Did you mean 'fixmatch'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["semi-shapes", "semi-nuclei"])
def test_the_committed_tables_are_those_of_the_page(benchmark, name):
    """Each row of the results is a row of docs/semi.md."""
    results = ROOT / "benchmarks" / "results" / f"{name}.md"
    rows = [line for line in results.read_text().splitlines() if line.startswith("| ")]
    page = (ROOT / "docs" / "semi.md").read_text()
    assert len(rows) > 3 and all(row in page for row in rows)


def test_the_experiment_trains_what_the_benchmark_measures(benchmark):
    """The score in its docstring is that of seed 0."""
    options = benchmark.argparse.Namespace(
        dir=None, labelled="1/64", images=4096, first_steps=1000, steps=1200, work=benchmark.Path("w"), smallest=False
    )
    first, second = (load_experiment(str(ROOT / "experiments" / "semi.py")) for _ in range(2))
    update(first, semi__method="", data__labelled_rows=0, steps=1000, optimizer__learning_rate=1e-2)
    update(second, model__weights=str(benchmark.expanded("w") / "first-0"))
    for experiment, name in ((first, "first"), (second, "fixmatch")):
        ours, measured = to_dict(experiment), to_dict(benchmark._config(options, name, 0))
        for config in (ours, measured):  # only the last step is evaluated and saved in both
            assert config["eval"].pop("every") >= config["steps"] <= config["checkpoint"].pop("every")
            config.pop("log")
        if not ours["semi"]["method"]:
            ours.pop("semi"), measured.pop("semi")
        assert ours == measured
    scores = json.loads((ROOT / "benchmarks" / "results" / "semi-shapes.json").read_text())["runs"]
    found = {run["training"]: f"{run['mean_iou']:.3f}"[1:] for run in scores if run["seed"] == 0}
    text = (ROOT / "experiments" / "semi.py").read_text()
    assert all(found[name] in text for name in ("first", "labels", "fixmatch"))
