"""The measurement of active learning: labels needed by hand, and a tiny run that goes on where it stopped."""

import json
import math
import re

import active_learning
import pytest
from helpers.tiny_training import ROOT


def test_labels_needed_lie_between_two_rounds_in_proportion():
    needed = active_learning.labels_needed
    assert needed([10, 20, 40], [0.5, 0.6, 0.8], 0.7) == pytest.approx(30)
    assert needed([10, 20, 40], [0.5, 0.4, 0.8], 0.5) == 10
    assert math.isnan(needed([10, 20], [0.5, 0.6], 0.7))


@pytest.mark.slow  # it trains runs; their parts are tested in tests/propose
def test_a_tiny_run_goes_on_where_it_stopped(tmp_path, capsys):
    words = ["--pool", "12", "--side", "16", "--labels", "2", "4", "--steps", "2", "--batch", "2", "--widths", "2", "4"]
    words += ["--seeds", "0", "1", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "found")]
    assert active_learning.main(words) == 0
    record = json.loads((tmp_path / "found.json").read_text())
    assert list(record["curves"]) == list(active_learning.CRITERIA)
    starts = {name: of_seeds["0"][0] for name, of_seeds in record["curves"].items()}
    assert len(set(starts.values())) == 1  # all criteria begin alike
    for name in active_learning.CRITERIA:
        first = json.loads((tmp_path / "work" / f"seed1-{name}-0.json").read_text())
        second = json.loads((tmp_path / "work" / f"seed1-{name}-1.json").read_text())
        assert second["labelled"] == first["labelled"] + first["chosen"] and len(set(second["labelled"])) == 4
    done = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").iterdir()}
    capsys.readouterr()
    assert active_learning.main(words) == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "work").iterdir()} == done
    assert "| badge |" in capsys.readouterr().out


def test_the_committed_table_is_that_of_the_page():
    """Each row of the results is a row of docs/propose.md, which leaves out the mIoU of the first round."""

    def cells(line):
        return [cell.strip() for cell in line.strip().strip("|").split("|")]

    results = (ROOT / "benchmarks" / "results" / "active_learning-nuclei.md").read_text()
    page = (ROOT / "docs" / "propose.md").read_text()
    table = page.partition("| order | labels needed |")[2].partition("\n\n")[0].splitlines()[2:]
    shown = {name.partition(" (")[0]: row for name, *row in map(cells, table)}
    measured = [cells(line) for line in results.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in measured] == list(active_learning.CRITERIA)
    assert shown == {f"`{row[0]}`": [*row[1:3], *row[4:]] for row in measured}
    whole = [re.findall(r"validation mIoU of ([\d.]+ ± [\d.]+) per cent", text) for text in (results, page)]
    assert len(whole[0]) == 1 and whole[0] == whole[1]
