"""Cross-validation: every image is scored once by a run that never saw it, and nothing is done twice."""

import csv
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.figures import blank_figures
from helpers.tiny_run import make_folder, make_run, tiny_config
from PIL import Image

import jaxseg
from jaxseg import __main__ as program
from jaxseg import evaluate as evaluate_command
from jaxseg import metrics, predict
from jaxseg.audit.judges import make_judges
from jaxseg.config import default_config, update
from jaxseg.data import make_source, notes
from jaxseg.data.folds import HELD_OUT, NO_FOLD
from jaxseg.errors import ConfigError, DataError
from jaxseg.export import export_run
from jaxseg.folds import plan
from jaxseg.folds.__main__ import main
from jaxseg.folds.page import folds_page
from jaxseg.folds.summary import Summary, write_summary
from jaxseg.inference import evaluate, load_run, make_segmenter
from jaxseg.inference.options import with_folds
from jaxseg.inference.out_of_fold import OutOfFold, joined, map_files
from jaxseg.inference.predictor import make_predictor
from jaxseg.metrics import ImageCounts
from jaxseg.sweep import pool, worker
from jaxseg.sweep.plan import PlannedRun
from jaxseg.sweep.records import read_failure
from jaxseg.train import main as train_main

VALUES = {
    "model.args.widths": "(4,)",
    "model.args.hidden": 8,
    "model.args.hidden_kernel": 3,
    "model.args.dropout": 0.0,
    "data.size": "(16,16)",
    "data.shapes_train": 18,
    "data.shapes_val": 8,
    "steps": 3,
    "schedule.warmup": 0,
    "batch_size": 8,
    "eval.every": 3,
    "eval.batch_size": 8,
    "checkpoint.every": 1,
    "log.images": 0,
    "log.tensorboard": False,
}

NONE = np.zeros(1, np.int64)
COUNTS = ImageCounts(NONE, NONE, np.ones((3, 1), np.int64), 1, 2, np.ones(1, np.int64))
"""One image with one pixel of the first of two classes."""


def arguments(workdir: Path, *words: str, **changes: Any) -> list[str]:
    values = VALUES | {key.replace("__", "."): value for key, value in changes.items()}
    keys = [f"--config.{key}={value}" for key, value in values.items()]
    return ["--config", "experiments/cnn.py", "--workdir", str(workdir), *words, *keys]


class Here:
    """Stands for a process that has ended: the run was made in this one."""

    def __init__(self, status: int):
        self.returncode = status

    def poll(self) -> int:
        return self.returncode


@pytest.fixture(scope="module")
def here():
    """Makes the runs in this process; yields the names of those that were started, to clear."""
    started: list[str] = []

    def start(run: Any, split: str, *_: Any) -> Here:
        started.append(run.variant)
        with blank_figures():
            return Here(worker.run(run.workdir, split))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_start", start)
        patch.setattr(pool, "_PAUSE", 0.0)
        yield started


@pytest.fixture(scope="module")
def run(here, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("cross") / "run"
    assert main(arguments(workdir, "--folds", "3")) == 0
    assert here == ["fold-1", "fold-2", "fold-3"]
    here.clear()
    return workdir


def test_each_image_is_scored_once_by_the_run_that_never_saw_it(run):
    rows = list(csv.DictReader((run / "oof" / "scores.csv").open()))
    assert sorted(row["name"] for row in rows) == [f"shapes-train-{i:06d}" for i in range(18)]
    by_fold, pooled = [], np.zeros((6, 6), np.int64)
    for fold in (1, 2, 3):
        trained = load_run(run / f"fold-{fold}", "last")
        train, left = (make_source(trained.config, split) for split in ("train", HELD_OUT))
        own = [left.name(i) for i in range(len(left))]
        assert own == [row["name"] for row in rows if row["fold"] == str(fold)] and len(own) == 6
        assert not set(own) & {train.name(i) for i in range(len(train))}
        segment, total = make_segmenter(trained.parts), np.zeros((6, 6), np.int64)
        for i, name in enumerate(own):
            example = left[i]
            wanted = segment(trained.variables, example["image"]).classes
            np.testing.assert_array_equal(np.asarray(Image.open(run / "oof" / f"{name}.png")), wanted)
            matrix = np.bincount(example["label"].ravel().astype(int) * 6 + wanted.ravel(), minlength=36).reshape(6, 6)
            total += matrix
            row = next(row for row in rows if row["name"] == name)
            scores = metrics.scores(matrix)
            assert float(row["mean_iou"]) == pytest.approx(scores.mean_iou, abs=1e-6)
            for name, iou in zip(trained.classes, scores.iou):
                assert row[name] == ("" if np.isnan(iou) else f"{iou:.6f}")
        by_fold.append(metrics.scores(total).mean_iou)
        pooled += total
        assert evaluate(trained, HELD_OUT).mean_iou == pytest.approx(by_fold[-1])
    summary = json.loads((run / "scores.json").read_text())
    assert [fold["mean_iou"] for fold in summary["folds"]] == pytest.approx(by_fold)
    over = summary["over_folds"]["mean_iou"]
    assert over["mean"] == pytest.approx(np.mean(by_fold)) and over["sd"] == pytest.approx(np.std(by_fold, ddof=1))
    assert summary["out_of_fold"]["mean_iou"] == pytest.approx(metrics.scores(pooled).mean_iou)
    assert summary["intervals"]["units"] == 18
    table = (run / "table.md").read_text()
    assert f" {100 * over['mean']:.2f} ± {100 * over['sd']:.2f} |" in table
    assert "jaxseg train --config" in table


def test_the_same_command_repeats_nothing_and_goes_on_where_it_stopped(run, here, tmp_path, capsys):
    again = shutil.copytree(run, tmp_path / "run")
    before = (again / "scores.json").read_text()
    assert main(arguments(again, "--folds", "3")) == 0
    assert here == [] and json.loads((again / "scores.json").read_text())["folds"] == json.loads(before)["folds"]
    # Killed after the first fold, in the second, whose last checkpoint stays.
    shutil.rmtree(again / "fold-3")
    shutil.rmtree(again / "oof")
    shutil.rmtree(again / "fold-2" / "oof")
    (again / "fold-2" / "sweep-fold.json").unlink()
    shutil.rmtree(again / "fold-2" / "checkpoints" / "3")
    capsys.readouterr()
    assert main(arguments(again, "--folds", "3", "--fold", "2")) == 0
    assert here == ["fold-2"] and "2 of 3 folds have scores; there is no summary before those of fold-3." in (
        capsys.readouterr().out
    )
    assert not (again / "oof").exists()
    here.clear()
    assert main(arguments(again, "--folds", "3", "--shard", "3/3")) == 0
    assert here == ["fold-3"]
    here.clear()
    after, first = json.loads((again / "scores.json").read_text()), json.loads(before)
    assert {**after, "command": ""} == {**first, "command": ""}  # bit for bit
    assert (again / "oof" / "scores.csv").read_text() == (run / "oof" / "scores.csv").read_text()


def test_changed_folds_and_other_folders_are_refused(run, tmp_path, capsys):
    def refused(*words: str, workdir: Path = run, **changes: Any) -> str:
        kept = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
        assert main(arguments(workdir, *words, **changes)) == 1
        assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == kept
        return capsys.readouterr().err

    assert f"{run} holds 3 folds, and --folds asks for 4" in refused("--folds", "4")
    assert "--fold 4 is not in 1 to 3" in refused("--folds", "3", "--fold", "4")
    assert "--fold trains one fold, and --shard a part" in refused("--folds", "3", "--fold", "1", "--shard", "1/2")
    said = refused("--folds", "3", seed=1)
    assert "holds folds of another configuration" in said and "seed: 0 -> 1" in said
    assert "leave out data.fold." in refused("--folds", "3", data__fold="1/2")
    assert "holds a run, and folds need a folder of their own" in refused("--folds", "3", workdir=run / "fold-1")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "19 folds need at least as many images with labels" in refused("--folds", "19", workdir=empty)
    assert "matches no group in the name" in refused("--folds", "3", workdir=empty, data__group="patient")
    lines = (run / "folds.csv").read_text()
    other = shutil.copytree(run, tmp_path / "other")
    (other / "folds.csv").write_text(lines.replace("shapes-train-000004,shapes-train-000004", "gone,gone"))
    assert "1 image came (shapes-train-000004), 1 image went (gone)" in refused("--folds", "3", workdir=other)
    with pytest.raises(SystemExit):
        main(arguments(empty, "--folds", "1"))
    assert "must be a whole number of at least 2, got '1'" in capsys.readouterr().err
    assert train_main(arguments(empty, "--folds", "3")) == 1
    assert "--folds trains several runs: give jaxseg train, or python -m jaxseg.folds." in capsys.readouterr().err
    assert train_main(arguments(empty, "--fold", "3")) == 1
    assert "give --folds N too" in capsys.readouterr().err
    assert list(empty.iterdir()) == []


def test_the_program_has_folds_under_train(monkeypatch):
    called: list[Any] = []
    monkeypatch.setattr("jaxseg.folds.__main__.main", lambda *given: called.append(given) or 0)
    assert program.main(["train", "--config", "x.py", "--folds=3"]) == 0
    assert called == [(["--config", "x.py", "--folds=3"], "jaxseg train")]


def test_the_folder_of_the_folds_is_their_ensemble(run, tmp_path, capsys):
    picture = tmp_path / "a.png"
    image = make_source(load_run(run / "fold-1").config, "val")[0]["image"]
    Image.fromarray(image).save(picture)
    assert predict.main(["--workdir", str(run), str(picture), "--out", str(tmp_path / "preds"), "--no-overlay"]) == 0
    assert "and 2 other runs" in capsys.readouterr().out
    runs = [load_run(run / f"fold-{fold}") for fold in (1, 2, 3)]
    wanted = make_predictor(runs)(image, False).classes
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "preds" / "a.png")), wanted)
    copied = shutil.copytree(run, tmp_path / "run")
    files = {path for path in copied.rglob("*") if path.is_file()}
    assert evaluate_command.main(["--workdir", str(copied)]) == 0
    assert "fold-3 alone, in one view" in capsys.readouterr().out
    written = [copied / "evaluate-val-runs.json", copied / "confusion-val-runs.png"]  # and nothing in a fold
    assert sorted({path for path in copied.rglob("*") if path.is_file()} - files) == sorted(written)
    scores = json.loads(written[0].read_text())
    assert (copied / scores["config_source"][0]).is_file() and scores["runs"] == 3
    whole = jaxseg.load(copied)
    np.testing.assert_array_equal(whole.predict(image).classes, wanted)
    assert whole.evaluate().mean_iou == pytest.approx(scores["mean_iou"], abs=1e-12)
    assert repr(whole).startswith("the average of 3 networks cnn (best checkpoints in")
    for refused, what in (
        (lambda: whole.evaluate("fold"), "would score all its runs on the images of one fold"),
        (lambda: export_run(whole, tmp_path / "a.onnx"), "An export takes one network, .* is the average of 3 runs"),
    ):
        with pytest.raises(ConfigError, match=what):
            refused()
    shutil.rmtree(copied / "fold-2" / "checkpoints")
    with pytest.raises(ConfigError, match="has 3 folds, of which fold-2 has no checkpoint yet"):
        with_folds([str(copied)])
    judges = make_judges(runs, make_predictor(runs), "train")  # an audit knows them, too
    rows = csv.DictReader((run / "folds.csv").open())
    assert all(judges.of(row["name"]) == (int(row["fold"]) - 1,) for row in rows)


def test_the_page_of_the_folds_has_what_the_files_say(run, tmp_path, capsys):
    copied = shutil.copytree(run, tmp_path / "run")
    assert program.main(["report", str(copied), "--split", "test"]) == 1
    assert "leave out --split" in capsys.readouterr().err
    for fold in (1, 2, 3):
        shutil.rmtree(copied / f"fold-{fold}" / "checkpoints")  # no network is read
    assert program.main(["report", str(copied)]) == 0
    page = (copied / "report.html").read_text()
    scores = json.loads((run / "scores.json").read_text())
    for name, of_class in scores["over_folds"]["iou"].items():
        row = next(row for row in page.split("<tr>") if f">{name}<" in row or f"{name}</" in row)
        values = [of_class["mean"], of_class["sd"], scores["out_of_fold"]["iou"][name]]
        values += [fold["iou"][scores["classes"].index(name)] for fold in scores["folds"]]
        assert all(value is None or f"{100 * value:.2f}" in row for value in values), row
    lowest = min(csv.DictReader((run / "oof" / "scores.csv").open()), key=lambda row: float(row["mean_iou"]))
    assert lowest["name"] in page and "by the run without fold" in page and "data:image/png" in page
    assert "mIoU of the fold" in page and f"{100 * scores['out_of_fold']['mean_iou']:.2f} %" in page
    (copied / "fold-2" / "sweep-fold.json").unlink()
    assert program.main(["report", str(copied), "--out", str(tmp_path / "part.html")]) == 0
    part = (tmp_path / "part.html").read_text()
    assert "2 of 3 folds, 12 images" in part and "fold-2 has no scores yet" in part
    for fold in (1, 3):
        (copied / f"fold-{fold}" / "sweep-fold.json").unlink()
    assert program.main(["report", str(copied)]) == 1
    assert "No fold in" in capsys.readouterr().err and (copied / "report.html").read_text() == page


def test_a_page_without_the_data_says_so(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    plan_file = copied / "folds.json"
    content = json.loads(plan_file.read_text())
    content["config"]["data"] |= {"source": "folder", "dir": str(tmp_path / "moved")}
    plan_file.write_text(json.dumps(content))
    page = folds_page(copied, "jaxseg report", "again")
    assert "There are no pictures, since the images cannot be read" in page and "data:image" not in page
    assert "Every image, the worst first" in page


def test_names_that_become_one_file_in_two_folds_have_a_map_each(run, tmp_path):
    """ "s 1" and "s_1" are both s_1.png in the folder of their own fold."""
    parts = [OutOfFold((name,), ("s_1.png",), (name,), (fold,), COUNTS) for fold, name in ((1, "s_1"), (2, "s 1"))]
    runs = [
        PlannedRun(f"fold-{fold}", 0, tmp_path / f"fold-{fold}", load_run(run / "fold-1").config) for fold in (1, 2)
    ]
    for planned in runs:
        (planned.workdir / "oof").mkdir(parents=True)
        (planned.workdir / "oof" / "s_1.png").write_text(planned.variant)
    summary = Summary(("a", "b"), np.zeros((2, 3)), joined(parts), False)
    write_summary(summary, runs, tmp_path, "again")
    maps = {path.name: path.read_text() for path in (tmp_path / "oof").glob("*.png")}
    assert maps == {"s_1.png": "fold-1", "s_1-1.png": "fold-2"}


def test_commands_of_one_run_say_that_a_folder_holds_folds(run, tmp_path, capsys):
    for command in (
        ["compare", str(run), str(run / "fold-1")],
        ["publish", str(run), str(tmp_path / "x"), "--licence", "mit"],
    ):
        assert program.main(command) == 1
        said = capsys.readouterr().err
        assert "is a folder of folds" in said and repr(str(run / "fold-1")) in said and "Did you mean" not in said
    assert not list(tmp_path.iterdir())


def test_a_fold_is_not_scored_by_runs_that_saw_it(run, capsys):
    """The images that fold 1 leaves out were trained on by the others."""
    assert evaluate_command.main(["--workdir", str(run), "--split", "fold"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(f"{run / name}" in said for name in ("fold-1", "table.md", "scores.json"))
    several = [str(run / "fold-1"), str(run / "fold-2")]
    assert evaluate_command.main(["--workdir", *several, "--split", "fold"]) == 1
    assert "takes one run, got 2 runs" in capsys.readouterr().err
    assert not list(run.rglob("evaluate-fold-average*"))


def test_files_of_class_maps_are_distinct_and_stay_inside():
    names = ["a", "b/c", "../d", "A", "e f?", ""]
    assert map_files(names) == ["a.png", "b/c.png", "d.png", "A-3.png", "e_f_.png", "image.png"]
    assert map_files(["a-2", "a", "A"]) == ["a-2.png", "a.png", "A-2-2.png"]


def test_a_split_of_the_data_named_fold_is_scored_where_no_fold_is_left_out(tmp_path):
    data = make_folder(tmp_path / "data", [(16, 16)], split="fold")
    make_folder(tmp_path / "data", [(16, 16), (16, 16)], split="train")
    (data / "classes.txt").write_text("a\nb\nc\n")
    config = tiny_config(data__source="folder", data__dir=str(data), steps=10, data__val_split="fold")
    workdir = make_run(tmp_path / "run", config, {10: None})
    assert worker.run(workdir, "fold") == worker.FINISHED, read_failure(workdir)
    scores = json.loads((workdir / "sweep-fold.json").read_text())
    assert scores["images"] == 1 and not (workdir / "oof").exists()


class Slow:
    """A source whose first example takes too long to read."""

    def __init__(self, source: Any):
        self._source, self.info, self.name = source, source.info, source.name

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        time.sleep(1.0 if index == 0 else 0.0)
        return self._source[index]


@pytest.mark.parametrize("fault", ["damaged", "slow"])
def test_an_image_that_cannot_be_read_is_in_no_fold(tmp_path, monkeypatch, fault):
    for name in "abcdefg":
        for kind, values in (("images", np.zeros((8, 8, 3))), ("masks", np.arange(64).reshape(8, 8) % 2)):
            file = tmp_path / kind / f"{name}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(file)
    config = default_config()
    update(config, data__source="folder", data__dir=str(tmp_path), data__val_fraction=0.3)
    source = make_source(config, "train")
    first, count = source.name(0), len(source)
    if fault == "slow":
        monkeypatch.setattr(plan, "make_source", lambda *_: Slow(source))
        config.data.timeout = 0.1
    else:
        picture = (tmp_path / "images" / f"{first}.png").read_bytes()
        (tmp_path / "images" / f"{first}.png").write_bytes(picture[:30])
    with pytest.raises(DataError, match=f"{first}.*(not read within|cannot be read)"):
        plan.divide(config, 2, tmp_path / "run")
    config.data.on_error = "skip"
    with notes.collected() as said:
        division = plan.divide(config, 2, tmp_path / "run")
    assert first in said[-1] and "the counts of the classes leave it out" in said[-1]
    assert division.numbers[0] == NO_FOLD and sorted({*division.numbers[1:]}) == [1, 2] and count > 2
    assert "1 image without labels in the training of every fold" in division.about
