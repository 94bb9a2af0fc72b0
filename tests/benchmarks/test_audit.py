"""The benchmark of audits: the errors that it plants, the measures of a ranking, and the whole in a few steps."""

import importlib
import json

import numpy as np
import pytest
from helpers.tiny_training import ROOT
from PIL import Image

from jaxseg.data.folder import FolderSource
from jaxseg.data.shapes import ShapesSource
from jaxseg.types import IGNORE


@pytest.fixture(scope="module")
def planting():
    return importlib.import_module("lib.planting")


@pytest.fixture
def label():
    label = np.zeros((40, 50), np.uint8)
    label[5:15, 8:20], label[22:34, 25:40] = 2, 1
    label[:3, :] = IGNORE
    return label


def test_each_kind_of_error_is_what_its_name_says(planting, label):
    donor = np.zeros((40, 50), np.uint8)
    donor[3:9, 4:10] = 3
    for seed in range(5):
        found = {kind: planting.plant(label, kind, np.random.default_rng(seed), donor, 4) for kind in planting.KINDS}
        for error in found.values():
            np.testing.assert_array_equal(error.changed, error.label != label)
            assert error.changed.sum() >= planting.LEAST and (error.label[label == IGNORE] == IGNORE).all()
        missing, swapped, extra = (found[f"{what}"] for what in ("missing object", "swapped class", "extra object"))
        assert missing.changed.sum() in (120, 180) and (missing.label[missing.changed] == 0).all()
        assert swapped.changed.sum() in (120, 180) and 0 not in swapped.label[swapped.changed]
        assert (label[extra.changed] == 0).all() and (extra.label[extra.changed] == 3).all()
        assert 0.8 * 36 <= extra.changed.sum() <= 36
        shifted = found["shifted mask"].label
        rows, columns = np.nonzero(shifted == 1)
        moved = np.array([rows.mean() - 27.5, columns.mean() - 32])
        assert 0.05 * 40 <= np.linalg.norm(moved) <= 0.13 * 40


def test_a_mask_that_allows_no_error_is_left(planting):
    empty = np.zeros((20, 20), np.uint8)
    rng = np.random.default_rng(0)
    assert all(planting.plant(empty, kind, rng, empty, 3) is None for kind in planting.KINDS)
    binary = empty.copy()
    binary[4:10, 4:10] = 1
    assert planting.plant(binary, "swapped class", rng, binary, 2) is None


def test_a_share_is_planted_written_and_recorded(planting, tmp_path):
    train, val = ShapesSource("train", 40, (32, 32)), ShapesSource("val", 2, (32, 32))
    planted = planting.plant_share(train, 0.2, seed=3)
    again = planting.plant_share(train, 0.2, seed=3)
    assert len(planted) == 8 and {i: p.kind for i, p in planted.items()} == {i: p.kind for i, p in again.items()}
    kinds = [p.kind for p in planted.values()]
    assert all(kinds.count(kind) == 2 for kind in planting.KINDS)
    record = planting.write_folder(train, val, planted, tmp_path)
    assert record == json.loads((tmp_path / "planted.json").read_text())
    assert set(record) == {train.name(i) for i in planted}
    source = FolderSource(tmp_path, "train")
    assert source.info.classes == train.info.classes and len(FolderSource(tmp_path, "val")) == 2
    for i in range(40):
        expected = planted[i].label if i in planted else train[i]["label"]
        np.testing.assert_array_equal(source[i]["label"], expected)
        np.testing.assert_array_equal(source[i]["image"], train[i]["image"])


def test_the_measures_are_those_counted_by_hand():
    audit = importlib.import_module("audit")
    kinds = ["", "a", "b", "", "a", ""]
    found = audit.measures(np.array([0.1, 0.9, 0.2, 0.5, 0.4, 0.2]), kinds)  # the order is a, -, a, b and - equal, -
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["auroc"] == pytest.approx((3 + 2 + 1.5) / 9)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found["found"] == {"a": 1.0, "b": 0.0}


def test_windows_are_cut_from_the_centre(tmp_path):
    window = importlib.import_module("lib.window")
    source = ShapesSource("train", 3, (20, 31))
    cut = window.Windows.of(source, (16, 16))
    np.testing.assert_array_equal(cut[1]["image"], source[1]["image"][2:18, 7:23])
    np.testing.assert_array_equal(cut[1]["label"], source[1]["label"][2:18, 7:23])
    assert len(window.Windows.of(source, (24, 24))) == 0 and len(cut.first(2)) == 2 and cut.label_size(0) == (16, 16)


@pytest.mark.slow
def test_the_whole_in_a_few_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    audit = importlib.import_module("audit")
    small = {"data.size": "16,16", "steps": "3", "eval.every": "3", "checkpoint.every": "3", "model.args.widths": "4,8"}
    more = {"schedule.warmup": "1", "log.images": "0", "log.tensorboard": "False", "data.val_split": "val"}
    words = ["--images", "40", "--side", "16", "--folds", "2", "--work", str(tmp_path), "--out", str(tmp_path / "a")]
    assert audit.main([*words, *(f"--config.{key}={value}" for key, value in (small | more).items())]) == 0
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["planted"] == 2 and set(record["seeds"]["0"]["scores"]) >= set(audit.SCORES)
    text = (tmp_path / "a.md").read_text()
    assert "| plain loss |" in text and str(tmp_path) not in text
    assert Image.open(tmp_path / "seed0" / "data" / "train" / "masks" / "shapes-train-000000.png").size == (16, 16)
