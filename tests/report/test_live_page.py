"""`log.report`: the page that a training writes while it goes on."""

import json
import re

import pytest
from helpers.tiny_run import short_config

from jaxseg.errors import ConfigError
from jaxseg.pages.frame import is_page
from jaxseg.report import live_page
from jaxseg.run.report import LOG_FILE, read_log
from jaxseg.run.workdir import write_config
from jaxseg.train import train


def test_a_training_writes_its_page_after_each_evaluation(tmp_path, monkeypatch):
    seen, write = [], live_page.write_live_page

    def look(workdir, *arguments):
        write(workdir, *arguments)
        seen.append((workdir / "report.html").read_text())

    monkeypatch.setattr(live_page, "write_live_page", look)
    train(short_config(log__report=True), tmp_path / "run", "")
    scored = [line for line in read_log(tmp_path / "run" / LOG_FILE) if line["split"] == "val"]
    assert len(seen) == len(scored) == 2 and is_page(tmp_path / "run" / "report.html", "jaxseg report")
    for page, line in zip(seen, scored):
        assert f"{line['step']} of 4" in page and f"{100 * line['mean_iou']:.2f} %" in page
        assert all(f">{100 * value:.2f}</td>" in page for value in line["iou"] if value is not None)


def test_a_mean_iou_of_zero_is_a_number_and_an_unknown_one_is_not(tmp_path):
    lines = [{"step": s, "split": "val", "loss": 1.0, "mean_iou": v, "iou": [v]} for s, v in ((2, None), (4, 0.0))]
    for log, last, best in ((lines, "step 4", "step 4"), (lines[::-1], "step 2", "step 4")):
        (tmp_path / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in log))
        live_page.write_live_page(tmp_path, short_config(), ["a"], [(0, 0, 0)])
        page = re.sub(r"<[^>]*>", "", (tmp_path / "report.html").read_text())
        assert f"mean IoU at {last}{'0.00' if last == 'step 4' else 'nan'} %" in page
        assert f"best, at {best}0.00 %" in page


def test_a_page_of_someone_else_is_refused_before_the_training(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ConfigError, match=r"report\.html would replace a file that jaxseg did not write"):
        write_config(tmp_path, short_config(log__report=True))
    write_config(tmp_path, short_config())
    assert (tmp_path / "report.html").read_text() == "mine"
