"""Scores on corrupted images: against predictions of these images, the file, the table, a baseline, wrong options."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config

from jaxseg import metrics
from jaxseg.data import make_source, notes
from jaxseg.data.corruptions import Corrupted, corrupt_stored
from jaxseg.errors import ArgumentError, ConfigError, DataError
from jaxseg.evaluate import main
from jaxseg.inference import corrupted, evaluate, load_run, make_segmenter
from jaxseg.inference.corrupted import score_corrupted
from jaxseg.inference.corruption_files import Baseline, baseline_file, read_baseline
from jaxseg.inference.predictor import make_predictor
from jaxseg.run.workdir import prepare_workdir

NAMES = ("contrast", "occlusion")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "shapes", tiny_config())


@pytest.fixture(scope="module")
def run(workdir):
    return load_run(workdir)


@pytest.fixture(scope="module")
def evaluation(run):
    return evaluate(run, "val")


@pytest.fixture(scope="module")
def scores(evaluation):
    return score_corrupted(evaluation, ["occlusion", "contrast"], [5, 1])


def test_scores_are_those_of_the_predictions_of_corrupted_images(run, evaluation, scores):
    source, segment = make_source(run.config, "val"), make_segmenter(run.parts)
    k, examples = len(run.classes), [source[i] for i in range(len(source))]
    assert tuple(scores.corruptions) == NAMES and scores.strengths == (1, 5)
    for name in NAMES:
        for place, strength in enumerate((1, 5)):
            matrix = np.zeros((k, k), np.int64)
            for example in examples:
                image = corrupt_stored(example["image"], name, strength)
                found = segment(run.variables, image).classes
                np.add.at(matrix, (example["label"].ravel(), found.ravel()), 1)
            expected = metrics.scores(matrix)
            assert scores.corruptions[name].mean_iou[place] == pytest.approx(expected.mean_iou, abs=1e-12)
            assert scores.corruptions[name].pixel_accuracy[place] == pytest.approx(expected.pixel_accuracy, abs=1e-12)
    drops = [[evaluation.mean_iou - x for x in scores.corruptions[name].mean_iou] for name in NAMES]
    assert list(scores.drops.values()) == [tuple(each) for each in drops]
    assert scores.mean_drop == pytest.approx(np.mean(drops)) and np.ptp(drops) > 1e-3


def test_strength_0_scores_as_an_evaluation_does(run, evaluation):
    confusion = corrupted._scorer(run, None)
    source = make_source(run.config, "val")
    for name in NAMES:
        np.testing.assert_array_equal(confusion(Corrupted(source, name, 0), lambda images: None), evaluation.confusion)


def test_the_command_writes_a_table_and_a_file(workdir, scores, capsys):
    words = ["--workdir", str(workdir), "--corruptions", "contrast", "occlusion", "--strengths", "1", "5"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    file = workdir / "corruptions-val.json"
    report = json.loads(file.read_text())
    assert f"corruptions: {file}" in printed and "| corruption | strength 1 | strength 5 |" in printed
    assert report["strengths"] == [1, 5] and report["seed"] == 0 and report["images"] == 5
    assert report["clean"]["mean_iou"] == scores.clean and report["mean_drop"] == scores.mean_drop
    for name in NAMES:
        row = report["corruptions"][name]
        assert row["mean_iou"] == list(scores.corruptions[name].mean_iou) and row["drop"] == list(scores.drops[name])
        numbers = [*row["mean_iou"], np.mean(row["mean_iou"]), np.mean(row["drop"])]
        assert f"| {name:<10} | " in printed
        line = next(line for line in printed.splitlines() if line.startswith(f"| {name}"))
        assert [cell.strip() for cell in line.split("|")[2:-1]] == [f"{100 * x:.2f}" for x in numbers]
    assert f"{100 * scores.mean_drop:.2f} points on average" in printed

    # Related to itself, each error is 1.
    assert main([*words, "--baseline", str(workdir)]) == 0
    report = json.loads(file.read_text())
    assert [row["relative_error"] for row in report["corruptions"].values()] == [1, 1]
    assert report["mean_relative_error"] == 1 and "CE: 100 - mIoU, in per cent of that of" in capsys.readouterr().out
    with pytest.raises(ConfigError) as error:
        read_baseline("runs/b", file, ["jpeg"], [1, 3], 3, ["--split", "val", "--tiles", "16"])
    assert str(error.value) == (
        f"{file} has the corruptions contrast, occlusion at the strengths 1, 5 with seed 0, and the scores here have "
        "others; score the baseline with these too: jaxseg evaluate --workdir runs/b --split val --tiles 16 "
        "--corruptions contrast jpeg occlusion --strengths 1 3 5 --seed 3"
    )

    # Fewer, or others, are refused before anything is scored: none is lost. More replace them.
    before = file.read_text()
    short = ["--workdir", str(workdir), "--corruptions"]
    for fewer in (["contrast"], ["contrast", "occlusion", "--strengths", "1"], ["jpeg", "--strengths", "1", "5"]):
        assert main([*short, *fewer]) == 1
        said = capsys.readouterr()
        assert "with seed 0, would not hold all of that: score at least the same, or move the file" in said.err
        assert said.out == "" and file.read_text() == before
    for other, words_of_it in (("--seed=3", "best one with seed 3"), ("--which=last", "last one with seed 0")):
        assert main([*words, other]) == 1
        assert f"the scores here, of the {words_of_it}, would not hold" in capsys.readouterr().err
    assert main([*short, "contrast", "jpeg", "occlusion", "--strengths", "1", "5"]) == 0
    rows = json.loads(file.read_text())["corruptions"]
    assert list(rows) == ["contrast", "jpeg", "occlusion"]
    assert rows["contrast"]["mean_iou"] == json.loads(before)["corruptions"]["contrast"]["mean_iou"]
    capsys.readouterr()


def test_errors_are_related_to_those_of_the_baseline(evaluation, scores):
    support = tuple(int(x) for x in evaluation.scores.support)
    other = Baseline("runs/b", support, {"contrast": (0.5, 0.5), "occlusion": (0.75, 0.25)})
    related = corrupted.CorruptedScores(evaluation, (1, 5), scores.corruptions, 0, other)
    sums = {name: 2 - sum(scores.corruptions[name].mean_iou) for name in NAMES}  # both baselines have 1
    assert related.relative_errors == pytest.approx(sums)
    assert related.mean_relative_error == pytest.approx(np.mean([*sums.values()]))
    with pytest.raises(DataError, match=r"runs/b was scored on other images or masks"):
        score_corrupted(evaluation, ["contrast"], baseline=other._replace(support=(1, *support[1:])))


def test_images_in_tiles_are_corrupted_whole(workdir):
    run = load_run(workdir)
    run = dataclasses.replace(run, parts=dataclasses.replace(run.parts, config=tiny_config(data__size=(32, 32))))
    predictor = make_predictor([run], tiles="16", overlap=0.0)
    scores = score_corrupted(evaluate(run, "val", predictor=predictor), "occlusion", [5])
    source, k = make_source(run.config, "val"), len(run.classes)
    whole, by_tile = np.zeros((2, k, k), np.int64)
    for i in range(len(source)):
        image, label = source[i]["image"], source[i]["label"]
        assert image.shape[:2] == (32, 32)
        np.add.at(whole, (label.ravel(), predictor(corrupt_stored(image, "occlusion", 5)).classes.ravel()), 1)
        for y, x in ((0, 0), (0, 16), (16, 0), (16, 16)):
            image = image.copy()
            image[y : y + 16, x : x + 16] = corrupt_stored(image[y : y + 16, x : x + 16].copy(), "occlusion", 5)
        np.add.at(by_tile, (label.ravel(), predictor(image).classes.ravel()), 1)
    assert scores.corruptions["occlusion"].mean_iou == (pytest.approx(metrics.scores(whole).mean_iou, abs=1e-12),)
    assert abs(metrics.scores(by_tile).mean_iou - metrics.scores(whole).mean_iou) > 1e-3


def test_a_baseline_has_its_scores_on_its_own_or_other_data(run, tmp_path):
    config = tiny_config(data__source="folder", data__dir=str(tmp_path / "b"))
    workdir = prepare_workdir(tmp_path / "runs", config)
    (workdir / "files.txt").write_text("12 a.png\n")
    here = dataclasses.replace(run, parts=dataclasses.replace(run.parts, config=config))
    assert baseline_file(workdir, here, "test").name == "corruptions-test.json"
    config = tiny_config(data__source="folder", data__dir=str(tmp_path / "a"))
    here = dataclasses.replace(run, parts=dataclasses.replace(run.parts, config=config))
    assert baseline_file(workdir, here, "test").name == "corruptions-test-on-a.json"


def test_no_corruption_is_refused(evaluation):
    with pytest.raises(ArgumentError, match=r"A corruption is all or one of gaussian_noise, .* got none"):
        score_corrupted(evaluation, [])
    assert corrupted.chosen("jpeg", 3) == ("jpeg",)


def test_images_of_16_bits_are_refused_before_anything_is_scored(workdir, capsys, monkeypatch):
    monkeypatch.setattr(corrupted, "open_split", lambda run, split: Deep(make_source(run.config, split)))
    assert main(["--workdir", str(workdir), "--split", "train", "--corruptions", "jpeg"]) == 1
    said = capsys.readouterr()
    assert "defined for images of 8 bits, and shapes-train-000000 is read as uint16." in said.err and said.out == ""


@dataclasses.dataclass(frozen=True)
class Deep:
    """A split whose images have 16 bits."""

    source: Any

    def __getitem__(self, index):
        return {"image": self.source[index]["image"].astype(np.uint16)}

    def name(self, index):
        return self.source.name(index)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--corruptions", "jpg"],
            "There is no corruption 'jpg'. Did you mean 'jpeg'? There are gaussian_noise, shot_",
        ),
        (
            ["--corruptions", "fog"],
            "There is no corruption 'fog'. There are gaussian_noise, shot_noise, impulse_noise,",
        ),
        (["--corruptions", "jpeg", "--strengths", "6"], "A strength is 1, 2, 3, 4 or 5, got 6."),
        (
            ["--corruptions", "jpeg", "--baseline", "gone"],
            "The baseline has no gone/corruptions-test.json; score it on",
        ),
    ],
)
def test_wrong_corruptions_are_one_sentence_before_anything_is_scored(workdir, capsys, words, sentence):
    assert main(["--workdir", str(workdir), "--split", "test", *words]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {sentence}") and said.err.count("\n") == 1 and said.out == ""


def test_options_of_corruptions_alone_and_files_of_others(workdir, capsys):
    with pytest.raises(SystemExit):
        main(["--workdir", str(workdir), "--strengths", "1"])
    assert "error: --strengths is for --corruptions, which is not given." in capsys.readouterr().err
    file = workdir / "corruptions-test.json"
    file.write_text("[]")
    assert main(["--workdir", str(workdir), "--split", "test", "--corruptions", "jpeg"]) == 1
    assert "would replace a file that jaxseg did not write" in capsys.readouterr().err and file.read_text() == "[]"
    file.write_text(json.dumps({"split": "test", "clean": 1, "strengths": [1], "corruptions": {"jpeg": 3}}))
    with pytest.raises(ConfigError, match=r"corruptions-test\.json is not a file of scores that jaxseg wrote"):
        read_baseline(workdir, file, ["jpeg"], [1])
    file.unlink()


def test_all_leaves_out_what_grey_images_do_not_have():
    with notes.collected() as said:
        names = corrupted.chosen(["all"], 1)
    assert "saturate" not in names and len(names) == 11
    assert said == ["Images with 1 channel have no saturate, which is left out."]
    with pytest.raises(ArgumentError, match=r"The corruption saturate changes colours"):
        corrupted.chosen(["jpeg", "saturate"], 1)
