"""The benchmark of a search: its table from a record by hand, and the committed one on the page."""

import importlib
import json

from helpers.tiny_training import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def test_the_table_by_hand():
    benchmark = importlib.import_module("search")
    trials = [
        {"number": 0, "values": {"steps": 3}, "state": "complete", "mean_iou": 0.1, "step": 10},
        {"number": 1, "values": {"steps": 4}, "state": "complete", "mean_iou": 0.5, "step": 10},
        {"number": 2, "values": {"steps": 5}, "state": "pruned", "mean_iou": None, "step": 4},
    ]
    scores = {("start", 1): 0.1, ("start", 2): 0.2, ("best", 1): 0.4, ("best", 2): 0.6}
    record = {
        "search": {"trials": trials, "best": 1},
        "check": [{"variant": name, "seed": seed, "mean_iou": value} for (name, seed), value in scores.items()],
        "environment": importlib.import_module("lib.timing").environment(),
        "command": "x",
    }
    pages = [line for line in benchmark._table(record).splitlines() if "trial" in line]
    assert "3 trials" in pages[0] and "2 complete, 1 pruned, 0 diverged, 24 of 30 steps made." in pages[0]
    # Differences .3 and .4: mean .35, deviation .0707, t of one degree of freedom at 97.5 % 12.706.
    assert "| best: trial 1 | 50.00 | 1, 2 | 50.00 ± 14.14 | +35.00 [-28.53, +98.53] |" in "\n".join(pages)
    assert "| start: trial 0 | 10.00 | 1, 2 | 15.00 ± 7.07 |  |" in "\n".join(pages)


def test_the_committed_table_is_that_of_the_page_and_its_best_beats_the_start():
    record = json.loads((RESULTS / "search-shapes.json").read_text())
    rows = [line for line in (RESULTS / "search-shapes.md").read_text().splitlines() if line.startswith("| ")]
    page = (ROOT / "docs" / "search.md").read_text()
    assert len(rows) == 3 and all(row in page for row in rows)
    scores = {(run["variant"], run["seed"]): run["mean_iou"] for run in record["check"]}
    assert all(scores["best", seed] > scores["start", seed] for seed in (1, 2, 3))
    assert record["search"]["seed"] not in (1, 2, 3) and len(record["search"]["trials"]) <= 20
