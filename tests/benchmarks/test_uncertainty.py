"""The benchmark of uncertainty, with a network that was never trained."""

import importlib
import json

from helpers.tiny_run import TINY, make_run, tiny_config


def test_maps_and_temperature_are_in_the_record(tmp_path):
    uncertainty = importlib.import_module("uncertainty")
    config = tiny_config(model__args={**TINY, "dropout": 0.5}, data__shapes_val=2)
    workdir = make_run(tmp_path / "tiny", config)
    words = ["--workdir", str(workdir), "--draws", "2", "--picture", "1", "--out", str(tmp_path / "u")]
    assert uncertainty.main(words) == 0
    record = json.loads((tmp_path / "u.json").read_text())
    assert set(record["scores"]) == {"as it is", "2 draws"} and record["temperature"]["temperature"] > 0
    assert set(record["scores"]["2 draws"]["scores"]) > set(record["scores"]["as it is"]["scores"])
    text = (tmp_path / "u.md").read_text()
    assert "| 2 draws | mutual information |" in text and "| predicted class |" in text
    assert str(tmp_path) not in text and (tmp_path / "u.png").is_file()
