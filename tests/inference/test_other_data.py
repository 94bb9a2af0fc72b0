"""Scores on the data of another folder: beside those of the run's own, which may have moved."""

import json
import shutil

import numpy as np
import pytest
from helpers.tiny_run import make_folder, make_run, tiny_config

from jaxseg import metrics
from jaxseg.data import make_source
from jaxseg.errors import ConfigError, DataError
from jaxseg.evaluate import main
from jaxseg.inference import crf_search, evaluate, load_run, split_objects, temperature, thresholds
from jaxseg.inference.evaluation import report_name
from jaxseg.inference.objects import ObjectTotal
from jaxseg.inference.other_data import about_other, other_data, other_than
from jaxseg.inference.predictor import make_predictor
from jaxseg.publish.record import scores_of
from jaxseg.run.lists import files_of, record_digests, record_files
from jaxseg.run.workdir import prepare_workdir

SIZES = [(16, 16)] * 3


@pytest.fixture
def workdir(tmp_path):
    data = make_folder(make_folder(tmp_path / "own", SIZES), [(16, 16)] * 4, split="train")
    config = tiny_config(data__source="folder", data__dir=str(data), data__classes=("ground", "car", "tree"))
    workdir = make_run(tmp_path / "run", config)
    files = files_of(make_source(config, "train"))
    record_files(workdir, files, "stop")
    record_digests(workdir, data, files)
    return workdir


def test_scores_on_another_folder_lie_beside_those_of_the_own(workdir, tmp_path, capsys):
    assert main(["--workdir", str(workdir)]) == 0
    own = (workdir / "evaluate-val.json").read_bytes()
    other = make_folder(tmp_path / "site b", [(16, 16)] * 2, split="test")
    word = f"--config.data.dir={other}"
    assert main(["--workdir", str(workdir), "--split", "test", word]) == 0
    report = json.loads((workdir / "evaluate-test-on-site_b.json").read_text())
    assert report["images"] == 2 and report["other_data"] == "site_b" and report["config"]["data"]["dir"] == str(other)
    assert f"split test of {other}, not the data of the training:" in capsys.readouterr().out
    assert (workdir / "confusion-test-on-site_b.png").is_file() and not (workdir / "evaluate-test.json").exists()
    assert (workdir / "evaluate-val.json").read_bytes() == own
    run = load_run(workdir, overrides={"data.dir": str(other)})
    predictor = make_predictor([run], tiles="16", average="flips")
    assert report_name(run, "test", predictor) == "test-on-site_b-tiles-average"  # of objects and corruptions too

    # A third folder of the same name does not replace them.
    third = make_folder(tmp_path / "more" / "site b", [(16, 16)], split="test")
    assert main(["--workdir", str(workdir), "--split", "test", f"--config.data.dir={third}"]) == 1
    assert f"holds the scores on {other}, and {third} has the same name: move" in capsys.readouterr().err

    # The card of a published network says of which data they are.
    scores = scores_of(load_run(workdir))
    assert [("other" in each and each["other"], each["split"]) for each in scores] == [
        (["data.dir"], "test"),
        (False, "val"),
    ]


def test_data_that_moved_are_the_own(workdir, tmp_path):
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(load_run(workdir).config.data.dir, moved)
    run = load_run(workdir, overrides={"data.dir": str(moved)})
    assert other_data(run) == ""
    for path in sorted((moved / "train" / "images").iterdir())[:2]:  # half of the images, a quarter of the files
        path.write_bytes(path.read_bytes() + b" ")
    assert other_data(run) == ""
    for path in (moved / "train" / "masks").iterdir():
        path.write_bytes(path.read_bytes() + b" ")
    assert other_data(run) == "renamed"
    assert other_data(load_run(workdir)) == ""
    (workdir / "files.txt").unlink()
    assert other_data(run) == ""


@pytest.mark.parametrize("kept", ["digests", "folder", "neither"])
def test_files_of_equal_sizes_are_told_apart_by_their_content(tmp_path, monkeypatch, kept):
    rng = np.random.default_rng(0)

    def fill(name, size=700):  # as uncompressed TIFF and BMP of images of the same size
        for i in range(20):
            file = tmp_path / name / "train" / "images" / f"{i}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(rng.bytes(2**20 if i == 0 else size))
            (tmp_path / name / "train" / f"blank{i}").write_bytes(bytes(size))  # masks may be equal
        return tmp_path / name

    own, other = fill("own"), fill("other")
    outside = tmp_path / "outside.bmp"
    outside.write_bytes(bytes(9))
    names = [str(path.relative_to(own)) for path in sorted(own.rglob("*")) if path.is_file()]
    files = [f"{(own / name).stat().st_size} {name}" for name in names] + [f"9 {outside}"] * 50
    config = tiny_config(data__source="folder", data__dir=str(own))
    workdir = prepare_workdir(tmp_path / "run", config)
    (workdir / "files.txt").write_text("".join(f"{line}\n" for line in files))
    if kept == "digests":
        record_digests(workdir, own, files)
        lines = (workdir / "digests.txt").read_text().splitlines()
        assert 8 <= len(lines) <= 16 and not any("outside" in line for line in lines)
    moved = tmp_path / "moved"
    shutil.copytree(own, moved)

    def name_of(directory):
        return other_than(workdir, tiny_config(data__source="folder", data__dir=str(directory)))

    if kept != "folder":
        own.rename(tmp_path / "gone")
    assert name_of(own) == name_of(moved) == ""
    assert name_of(other) == ("" if kept == "neither" else "other")
    assert name_of(tmp_path / "empty") == "empty"  # what lies outside is in no folder
    (tmp_path / "here").symlink_to(other)
    monkeypatch.chdir(tmp_path)
    prepare_workdir(tmp_path / "run", tiny_config(data__source="folder", data__dir="here"))
    if kept == "digests":  # "here" was another folder at the training
        assert name_of("here") == "other" and name_of("moved") == ""


def test_what_was_found_on_other_data_replaces_nothing(workdir, tmp_path):
    other, third = (make_folder(tmp_path / name / "b", [(16, 16)] * 2) for name in ("x", "y"))
    run, here, there = (load_run(workdir, overrides={"data.dir": str(x)} if x else {}) for x in ("", other, third))
    assert [crf_search.file_of(x, "val").name for x in (run, here)] == ["crf-val.json", "crf-val-on-b.json"]
    found = crf_search.CRFSearch("val", 1, (crf_search.Trial(None, 0.5, 0.5, np.eye(2)),))
    assert json.loads(crf_search.write_table(here, found).read_text())["other_data_path"] == str(other)
    objects = split_objects.SplitObjects(ObjectTotal().scores(), "val-on-b", None, about_other(here))
    file = objects.write(workdir)
    refused = [
        lambda: crf_search.require_own(there, "val"),
        lambda: split_objects.require_own(file, about_other(there)),
    ]
    for refuse in refused:
        with pytest.raises(ConfigError, match=rf"holds the scores on {other}, and {third} has the same name: move the"):
            refuse()
    # A temperature and thresholds have one file for all data.
    for fitted, content in ((temperature, {"temperature": 2.0}), (thresholds, {"thresholds": {}})):
        (workdir / fitted.FILE).write_text(json.dumps({**content, "step": 10, "split": "val"}))
        fitted.require_own(run)
        with pytest.raises(ConfigError, match=rf"the scores on the data of the training, and {other} would replace"):
            fitted.require_own(here)
    fitted = metrics.Temperature(2.0, 1.0, 0.5, False)
    scaling = temperature.Scaling(here, "val", 2, fitted, 0.1, 0.1, np.ones(3), np.ones(3))
    assert f"of split val of {other}, not the data of the training;" in str(scaling)
    assert scaling.to_dict()["other_data"] == "b"


def name_classes(folder, *names):
    rows = [{"index": i, "name": name, "colour": [i, 0, 0]} for i, name in enumerate(names)]
    (folder / "classes.json").write_text(json.dumps({"classes": rows}))


def test_classes_are_compared_by_name_and_order(workdir, tmp_path):
    other = make_folder(tmp_path / "other", [(16, 16)])

    def score():
        return evaluate(load_run(workdir, overrides={"data.dir": str(other)}), "val")

    assert score().images == 1  # masks alone have the classes of the run
    name_classes(other, "ground", "car", "tree")
    assert score().images == 1
    for names in (("ground", "tree", "car"), ("ground", "car", "bush"), ("ground", "car", "tree", "sky")):
        name_classes(other, *names)
        with pytest.raises(DataError) as error:
            score()
        assert str(error.value) == (
            f"The folder data in {str(other)!r} has {len(names)} classes ({', '.join(names)}), but the run in "
            f"{workdir} was trained on 3 classes (ground, car, tree): names and order must be the same, and "
            "classes.json in a folder gives them."
        )
