"""The benchmarks of plans, at their smallest: a data set as a folder, a plan beside a preset, and scores by groups."""

import importlib
import json

import pytest
from PIL import Image

from jaxseg import __main__ as cli

EXPERIMENT = """
from jaxseg.config import default_config, update

def get_config(arg=None):
    config = default_config()
    update(config, data__shapes_train=12, data__shapes_val=8, data__size=(24, 32), batch_size=8, eval__batch_size=8)
    update(config, model__args={"widths": (4, 8)})
    return config
"""


@pytest.mark.slow  # trains twice; the parts are tested in tests/plan
def test_from_a_data_set_to_the_comparison(tmp_path):
    experiment, folder, plan = tmp_path / "preset.py", tmp_path / "folder", tmp_path / "plan.py"
    experiment.write_text(EXPERIMENT)
    words = [str(experiment), "--out", str(folder), "--size", "16x16"]
    assert importlib.import_module("as_folder").main(words) == 0
    assert importlib.import_module("as_folder").main(words) == 1  # it is there
    with Image.open(folder / "val" / "masks" / "00007.png") as mask:
        assert mask.size == (16, 16) and mask.mode == "L"
    small = ["--config.model.args.widths=(4,8)", "--config.batch_size=8", "--config.eval.batch_size=8"]
    assert cli.main(["plan", str(folder), "--out", str(plan), *small]) == 0
    words = ["--preset", str(experiment), "--plan", str(plan), "--work", str(tmp_path / "work"), "--smallest"]
    assert importlib.import_module("plan").main([*words, "--out", str(tmp_path / "p"), "--config.seed=3"]) == 0
    record = json.loads((tmp_path / "p.json").read_text())
    preset, planned = record["rows"]
    assert preset["config"]["seed"] == 3 and preset["steps"] == 2 and planned["size"] == "16x16"
    assert planned["config"]["data"]["dir"] == "" and len(planned["iou"]) == 6
    words = [
        "--workdir",
        str(tmp_path / "work" / "plan"),
        "--class",
        "disc",
        "--smallest",
        "--out",
        str(tmp_path / "g"),
    ]
    assert importlib.import_module("plan_groups").main(words) == 0
    rows = json.loads((tmp_path / "g.json").read_text())["rows"]
    assert rows[0][:3] == ["", "all", 2] and {row[0] for row in rows} == {"", "size", "stain"}
