"""The page of a search: what stands on it, and that it works in a browser."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import chromium, opened

from jaxseg.config import to_dict
from jaxseg.report.__main__ import main as report
from jaxseg.sweep.search.page import search_page
from jaxseg.sweep.search.plan import load_study, write_study

SEARCH = """
from jaxseg.config import default_config, update
from jaxseg.sweep import Choice, LogUniform, Search


def get_config(arg=None):
    config = default_config()
    update(config, steps=4, eval__every=2)
    return config


def search():
    spaces = {"optimizer__learning_rate": LogUniform(1e-4, 1e-1), "loss__terms": Choice(("cross_entropy", "dice"))}
    return Search(spaces, trials=6, sampler="random", pruner="median")
"""
NASTY = "<b>Error</b>: <script>alert(1)</script>"
RATE, TERMS = "optimizer.learning_rate", "loss.terms"
# number -> (values, state, (step, score) of the evaluations)
TRIALS: dict[int, tuple[dict[str, Any], str, list[tuple[int, float]]]] = {
    0: ({}, "complete", [(2, 0.2), (4, 0.3)]),
    1: ({RATE: 0.01, TERMS: "dice"}, "complete", [(2, 0.4), (4, 0.6)]),
    2: ({RATE: 0.0002, TERMS: "dice"}, "pruned", [(2, 0.1)]),
    3: ({RATE: 0.09, TERMS: "cross_entropy"}, "diverged", []),
    4: ({RATE: 0.02, TERMS: "cross_entropy"}, "complete", [(2, 0.35), (4, 0.5)]),
    5: ({RATE: 0.003, TERMS: "dice"}, "failed", []),
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    (root / "rate.py").write_text(SEARCH)
    folder = root / "found"
    study = load_study(str(root / "rate.py"), (), None, "val")
    write_study(study, folder)
    for number, (values, state, curve) in TRIALS.items():
        trial = folder / f"trial-{number:04d}"
        trial.mkdir()
        (trial / "trial.json").write_text(json.dumps({"values": values}))
        lines = [{"step": step, "split": "val", "mean_iou": score} for step, score in curve]
        (trial / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if state == "complete":
            config = to_dict(study.config(values))
            (trial / "config.json").write_text(json.dumps(config))
            scores = {"split": "val", "which": "last", "step": 4, "config": config, "mean_iou": curve[-1][1]}
            (trial / "sweep-val.json").write_text(json.dumps(scores))
        elif state == "pruned":
            (trial / "pruned.json").write_text(json.dumps({"step": 2, "score": 0.1, "needed": 0.2}))
        else:
            error = "jaxseg.errors.NotFiniteError: diverged" if state == "diverged" else NASTY
            (trial / "failure.json").write_text(json.dumps({"error": error}))
    return folder


@pytest.fixture(scope="module")
def page(workdir: Path) -> Path:
    assert report([str(workdir)]) == 0
    return workdir / "report.html"


def rows(text: str, section: str) -> list[list[str]]:
    """Returns the texts of the cells of the first table of a section."""
    part = text.partition(f'<section id="{section}"')[2].partition("</table>")[0]
    found = re.findall(r"<tr>(.*?)</tr>", part)[1:]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in found]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells]


def charts(text: str) -> dict[str, dict[str, Any]]:
    """Returns {title: what a chart says}."""
    found = re.findall(r'data-chart="([^"]*)"><figcaption>(.*?)</figcaption>', text)
    return {html.unescape(title): json.loads(html.unescape(said)) for said, title in found}


def test_the_trials_stand_by_score_with_what_became_of_them(page: Path) -> None:
    text = page.read_text()
    assert rows(text, "trials") == [
        ["1 (best)", "complete", "60.00", "60.00", "4", "dice", "0.01"],
        ["4", "complete", "50.00", "50.00", "4", "cross_entropy", "0.02"],
        ["0 (start)", "complete", "30.00", "30.00", "4", "cross_entropy", "0.001"],
        ["2", "pruned", "–", "10.00", "2", "dice", "0.0002"],
        ["3", "diverged", "–", "–", "0", "cross_entropy", "0.09"],
        ["5", "failed", "–", "–", "0", "dice", "0.003"],
    ]
    assert rows(text, "best") == [[TERMS, "cross_entropy", "dice", "changed"], [RATE, "0.001", "0.01", "changed"]]
    assert "+30.00 points" in text and "trial 1: 60.00 %" in text
    assert NASTY not in text and html.escape(NASTY) in text
    assert "http://" not in text and "https://" not in text and "stopped at step 2 with mIoU 10.00 %" in text


def test_the_charts_have_the_best_so_far_and_each_key(page: Path) -> None:
    found = charts(page.read_text())
    assert list(found) == ["Scores of the trials", "Evaluations", f"Scores over {TERMS}", f"Scores over {RATE}"]
    history = {each["name"]: (each["x"], each["y"]) for each in found["Scores of the trials"]["series"]}
    best = [f"{score}.00 %" for score in (30, 60, 60, 60, 60, 60)]
    assert history == {
        "best so far": ([str(n) for n in range(6)], best),
        "complete": (["0", "1", "4"], ["30.00 %", "60.00 %", "50.00 %"]),
        "pruned": (["2"], ["10.00 %"]),
        "diverged": (["3"], ["0.00 %"]),
    }
    over = {each["name"]: dict(zip(each["labels"], each["x"])) for each in found[f"Scores over {RATE}"]["series"]}
    assert over["complete"]["trial 1, complete"] == "0.01" and over["the start"] == {"trial 0, complete": "0.001"}
    choices = {each["name"]: each["x"] for each in found[f"Scores over {TERMS}"]["series"]}
    assert choices == {"complete": ["0", "1", "0"], "pruned": ["1"], "diverged": ["0"], "the start": ["0"]}
    assert "0: cross_entropy, 1: dice." in page.read_text()


def test_a_search_that_has_begun_has_a_page(workdir: Path, tmp_path: Path) -> None:
    (tmp_path / "search.json").write_bytes((workdir / "search.json").read_bytes())
    assert "No trial is complete yet." in search_page(tmp_path, "jaxseg report", "again")


def test_the_page_of_a_search_in_a_browser(page: Path) -> None:
    with chromium() as browser:
        shown, heard, _ = opened(browser, page)
        heads = shown.locator("#trials tbody tr th")
        assert heads.first.inner_text() == "1 (best)"
        by_state = shown.locator("#trials thead button").nth(1)
        by_state.focus()
        shown.keyboard.press("Enter")
        assert shown.locator("#trials tbody tr td:nth-child(2)").all_inner_texts() == [
            *["complete"] * 3, "diverged", "failed", "pruned",
        ]  # fmt: skip
        chart = shown.locator("#scores figure").first
        chart.locator("svg[tabindex]").focus()
        shown.keyboard.press("Home")
        assert "30.00 %" in chart.locator("output").inner_text()
        chart.get_by_role("button", name="pruned").click()
        assert not chart.locator('g[data-series="2"]').is_visible()
        phone, more, _ = opened(
            browser, page, viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True
        )
        assert phone.evaluate("document.documentElement.scrollWidth") == 390
        assert phone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 26)"
        assert heard == more == []
