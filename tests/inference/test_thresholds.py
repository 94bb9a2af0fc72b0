"""Thresholds of a run: found on a split, kept with the run, and used by evaluation and prediction."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg import evaluate, predict
from jaxseg.data.rasters import stored_values
from jaxseg.errors import ConfigError
from jaxseg.inference import thresholds
from jaxseg.inference.networks import Scores
from jaxseg.inference.outputs import labels_picture
from jaxseg.inference.predictor import make_predictor
from jaxseg.run.load import load_run
from jaxseg.types import IGNORE


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(loss__terms="binary_cross_entropy", log__images=0)
    return make_run(tmp_path_factory.mktemp("runs") / "sigmoids", config)


def put(workdir: Path, **changes: object) -> dict:
    run = load_run(workdir)
    content = {"thresholds": dict.fromkeys(run.classes, 0.5), "logits": [0.0] * 6, "step": run.step} | changes
    (workdir / thresholds.FILE).write_text(json.dumps(content))
    return content


def test_evaluation_finds_and_scores_thresholds(workdir: Path, capsys: pytest.CaptureFixture) -> None:
    assert evaluate.main(["--workdir", str(workdir), "--fit-thresholds"]) == 0
    printed = capsys.readouterr().out
    assert "IoU at threshold" in printed and "found on 5 images of split val" in printed
    content = json.loads((workdir / thresholds.FILE).read_text())
    run = load_run(workdir)
    assert list(content["thresholds"]) == list(run.classes) and content["step"] == 10
    np.testing.assert_allclose(list(content["thresholds"].values()), 1 / (1 + np.exp(-np.array(content["logits"]))))
    again = thresholds.score(run, "val")
    np.testing.assert_allclose(again.values.after, thresholds.fit(run, "val").values.after)
    assert (np.nan_to_num(again.values.after) >= np.nan_to_num(again.values.before)).all() and not again.found
    assert evaluate.main(["--workdir", str(workdir), "--thresholds", "--split", "train"]) == 0
    assert "scored on 4 images of split train" in capsys.readouterr().out


def test_prediction_takes_the_class_farthest_above_its_threshold(workdir: Path, tmp_path: Path) -> None:
    run = load_run(workdir)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    plain = make_predictor([run])
    logits = np.asarray(plain.scores(image).values[0])
    cuts = np.sort(logits.reshape(-1, 6), axis=0)[-40] + 1e-4  # each class is there at 39 pixels
    put(workdir, logits=cuts.tolist())
    predictor = thresholds.with_thresholds(plain, [run])
    over = logits - cuts.astype(np.float32)
    expected = np.where(over.max(-1) > 0, over.argmax(-1), IGNORE)
    assert (expected == IGNORE).any() and len(np.unique(expected)) > 3
    np.testing.assert_array_equal(predictor(image).classes, expected)
    Image.fromarray(image).save(tmp_path / "a.png")
    for form, read in (("png", np.asarray), ("npz", None), ("color", np.asarray)):
        out = tmp_path / form
        call = ["--workdir", str(workdir), str(tmp_path / "a.png"), "--out", str(out), "--thresholds", "--format", form]
        assert predict.main(call) == 0
        if form == "color":
            found = np.asarray(Image.open(out / "a.png"))
            assert (found[expected == IGNORE] == (200, 200, 200)).all()
        else:
            found = np.asarray(Image.open(out / "a.png")) if read else np.load(out / "a.npz")["labels"]
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("are_logits", [True, False])
def test_thresholds_of_logits_hold_for_averaged_probabilities(workdir: Path, are_logits: bool) -> None:
    put(workdir, logits=[-2.0, 0, 0, 0, 0, 1.0])
    networks = thresholds.with_thresholds(make_predictor([load_run(workdir)]), [load_run(workdir)]).networks
    z = np.array([[[[-1.0, -1, -1, -1, -1, 1.5]], [[-3.0, -1, -1, -1, -1, 0.5]]]], np.float32)
    values = z if are_logits else 1 / (1 + np.exp(-z))
    np.testing.assert_array_equal(networks.classes(Scores(values, are_logits, ((2, 1),))), [[[0], [IGNORE]]])


def test_a_binary_network_has_one_threshold(tmp_path: Path) -> None:
    networks = make_predictor([load_run(make_run(tmp_path / "sigmoids", tiny_config()))]).networks
    one = np.array([[[[0.2], [0.4], [0.6]]]], np.float32)
    object.__setattr__(networks, "thresholds", (float(np.log(0.3 / 0.7)),))
    np.testing.assert_array_equal(networks.classes(Scores(one, False, ((1, 3),))), [[[0, 1, 1]]])


def test_files_hold_the_largest_number_for_no_class() -> None:
    assert stored_values((3, 7))[[0, 1, IGNORE]].tolist() == [3, 7, 255]
    assert stored_values((3, 700))[[0, 1, IGNORE]].tolist() == [3, 700, 65535]
    classes = np.array([[0, 1], [IGNORE, 1]], np.uint8)
    picture = labels_picture(classes, ((1, 2, 3), (4, 5, 6)), (3, 7))
    np.testing.assert_array_equal(picture, [[3, 7], [255, 7]])
    assert picture.convert("RGB").getpixel((0, 1)) == (200, 200, 200)
    assert len(labels_picture(classes[:1], ((1, 2, 3), (4, 5, 6)), (0, 1)).getpalette("RGB")) == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"thresholds": {"a": 0.5, "b": 0.5}, "logits": [0, 0]},
            r"thresholds for 2 classes \(a, b\), and the run has 6",
        ),
        ({"logits": [0.0] * 5}, "thresholds for 5 classes"),
        ({"logits": "none"}, "holds no thresholds"),
        ({"logits": [float("inf")] * 6}, "holds no thresholds"),
        ({"step": 7}, "made for the network after 7 steps, and this one has 10"),
    ],
)
def test_thresholds_that_are_not_those_of_the_run(workdir: Path, changes: dict, words: str) -> None:
    put(workdir, **changes)
    with pytest.raises(ConfigError, match=words):
        thresholds.read(load_run(workdir))


def test_what_has_no_thresholds(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (workdir / thresholds.FILE).unlink(missing_ok=True)
    assert evaluate.main(["--workdir", str(workdir), "--thresholds"]) == 1
    assert "--fit-thresholds finds them" in capsys.readouterr().err
    softmax = make_run(tmp_path / "softmax", tiny_config())
    assert evaluate.main(["--workdir", str(softmax), "--fit-thresholds"]) == 1
    assert "was trained with a softmax (loss.terms=cross_entropy)" in capsys.readouterr().err
    run = load_run(workdir)
    with pytest.raises(ConfigError, match="2 runs are averaged; give one --workdir"):
        thresholds.with_thresholds(make_predictor([run]), [run, run])
    for more in (["--temperature"], ["--crf"]):
        with pytest.raises(SystemExit):
            predict.main(["--workdir", str(workdir), "x.png", "--thresholds", *more])
        assert f"cannot be given with {more[0]}" in capsys.readouterr().err
