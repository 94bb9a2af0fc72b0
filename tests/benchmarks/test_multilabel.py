"""The benchmark of pixels that may have several classes: its scores, and the folder of edges that it makes."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("multilabel", ROOT / "benchmarks" / "multilabel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "benchmarks"))


def test_edges_overlap_what_they_bound(benchmark, tmp_path):
    objects = np.zeros((16, 16), np.uint16)
    objects[4:8, 4:8], objects[8:12, 4:8] = 1, 300  # two that touch
    for split in ("train", "val"):
        for kind, array in (("instances", objects), ("images", np.zeros((16, 16, 3), np.uint8))):
            (tmp_path / split / kind).mkdir(parents=True)
            Image.fromarray(array).save(tmp_path / split / kind / "a.png")
    out = tmp_path / "out"
    call = ["--write-edges", str(out), "--data-dir", str(tmp_path), "--size", "16"]
    assert benchmark.main(call) == 0
    nucleus, edge = (np.asarray(Image.open(out / "val" / "masks" / n / "a.png")) == 255 for n in ("nucleus", "edge"))
    np.testing.assert_array_equal(nucleus, objects > 0)
    inner = np.zeros((16, 16), bool)
    inner[5:7, 5:7] = inner[9:11, 5:7] = True
    around = np.zeros((16, 16), bool)
    around[3:13, 3:9] = True
    np.testing.assert_array_equal(edge, around & ~inner)


@pytest.mark.slow
def test_a_run_is_scored_in_three_ways(benchmark, tmp_path, capsys):
    config = tiny_config(data__multilabel="bits", loss__terms="binary_cross_entropy", log__images=0)
    workdir = make_run(tmp_path / "sets", config)
    assert benchmark.main(["--workdir", str(workdir), "--out", str(tmp_path / "table")]) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["scored"] for row in rows] == ["at a half", "with thresholds", "flips averaged"]
    assert (tmp_path / "table.md").read_text() == capsys.readouterr().out
    single = make_run(tmp_path / "single", tiny_config(log__images=0))
    assert benchmark.main(["--workdir", str(single)]) == 1
    assert "has one class a pixel" in capsys.readouterr().err
