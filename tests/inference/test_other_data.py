"""Scores on the data of another folder: beside those of the run's own, which may have moved."""

import json
import shutil

import pytest
from helpers.tiny_run import make_folder, make_run, tiny_config

from jaxseg.data import make_source
from jaxseg.errors import DataError
from jaxseg.evaluate import main
from jaxseg.inference import evaluate, load_run
from jaxseg.inference.evaluation import report_name
from jaxseg.inference.other_data import other_data
from jaxseg.inference.predictor import make_predictor
from jaxseg.publish.record import scores_of
from jaxseg.run.lists import files_of, record_files

SIZES = [(16, 16)] * 3


@pytest.fixture
def workdir(tmp_path):
    data = make_folder(make_folder(tmp_path / "own", SIZES), [(16, 16)] * 4, split="train")
    config = tiny_config(data__source="folder", data__dir=str(data), data__classes=("ground", "car", "tree"))
    workdir = make_run(tmp_path / "run", config)
    record_files(workdir, files_of(make_source(config, "train")), "stop")
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
