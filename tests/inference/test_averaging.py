"""Averaging: over views of an image and over runs, and how the average is scored."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config

from jaxseg import metrics
from jaxseg.data import make_source
from jaxseg.data.transforms import resize_image
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.evaluate import main as evaluate_main
from jaxseg.inference import load
from jaxseg.inference.predictor import make_predictor
from jaxseg.inference.score_images import logits_of
from jaxseg.inference.views import ONE_VIEW, Views, parse_views
from jaxseg.losses import probabilities
from jaxseg.nn import resize


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one architecture, and one of images at their own size."""
    root = tmp_path_factory.mktemp("runs")
    made = {name: make_run(root / name, tiny_config(), {step: 0.5}) for name, step in (("a", 10), ("b", 20))}
    made["crop"] = make_run(root / "crop", tiny_config(data__fit="crop"))
    return {name: load(workdir) for name, workdir in made.items()}


def picture(h, w, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (h // 4 + 1, w // 4 + 1, 3), np.uint8)
    return np.repeat(np.repeat(coarse, 4, 0), 4, 1)[:h, :w]


def seen(run, image, size):
    """The probabilities of the network for one view at the size of the image, by the model alone."""
    logits, _ = run.model.apply(run.variables, run.parts.prepare(np.ascontiguousarray(image)[None]), train=False)
    return np.asarray(jax.nn.softmax(resize(logits, size, method="bilinear")))[0]


def test_texts_name_views():
    assert parse_views("") == ONE_VIEW and len(ONE_VIEW) == 1
    assert parse_views("flips") == Views(flips=((False, False), (False, True)))
    assert parse_views("scales:.5-1, flips:hv") == Views(
        (0.5, 1.0), ((False, False), (False, True), (True, False), (True, True))
    )
    assert len(parse_views("scales:.5-1,flips:hv")) == 8
    assert str(parse_views("scales:.5-1,flips:v")) == "flips:v,scales:0.5-1"
    for text, words in (
        ("flip", "'flip' is no way to view an image.*Did you mean 'flips'"),
        ("flips:x", "flips:x must be one of flips:h"),
        ("scales:", "scales must be factors above 0"),
        ("scales:0-1", "scales must be factors above 0"),
        ("scales:1-1", "must differ"),
        ("flips,flips:v", "flips is given twice"),
    ):
        with pytest.raises(ArgumentError, match=words):
            parse_views(text)


@pytest.mark.parametrize("fit", ["a", "crop"])
def test_the_average_is_the_mean_of_the_probabilities_of_the_views(runs, fit):
    run, image = runs[fit], picture(20, 24)
    expected = []
    for scale in (1.0, 1.5):
        size = (round(16 * scale),) * 2 if fit == "a" else (round(20 * scale), round(24 * scale))
        view = resize_image(image, size)
        expected.append(seen(run, view, (20, 24)))
        expected.append(seen(run, view[:, ::-1], (20, 24))[:, ::-1])
    result = run.predict(image, probabilities=True, average="flips,scales:1-1.5")
    np.testing.assert_allclose(result.probabilities, np.mean(expected, axis=0), atol=2e-5)
    np.testing.assert_array_equal(result.classes, result.probabilities.argmax(-1))


def test_views_are_averaged_within_tiles(runs):
    image = picture(16, 24)
    result = make_predictor([runs["crop"]], tiles=(16, 24), average="flips:v")(image, True)
    expected = [seen(runs["crop"], image, (16, 24)), seen(runs["crop"], image[::-1], (16, 24))[::-1]]
    np.testing.assert_allclose(result.probabilities, np.mean(expected, axis=0), atol=2e-5)


def test_several_runs_share_one_program_and_are_averaged(runs):
    image = picture(20, 24)
    predictor = make_predictor([runs["a"], runs["b"]])
    result = predictor(image, True)
    small = resize_image(image, (16, 16))
    expected = [seen(runs[name], small, (20, 24)) for name in ("a", "b")]
    np.testing.assert_allclose(result.probabilities, np.mean(expected, axis=0), atol=2e-5)
    assert sum(isinstance(key[1], tuple) and len(key) == 4 for key in predictor.networks._programs) == 1
    mixed = make_predictor([runs["a"], runs["crop"]])(image, True)
    expected[1] = seen(runs["crop"], image, (20, 24))
    np.testing.assert_allclose(mixed.probabilities, np.mean(expected, axis=0), atol=2e-5)


def test_runs_of_other_classes_are_refused(runs):
    for classes, words in ((("x", *runs["b"].classes[1:]), "such as"), (runs["b"].classes[::-1], "in another order")):
        other = dataclasses.replace(runs["b"], classes=classes)
        with pytest.raises(ConfigError, match=rf"same classes: .*b has 6 classes and .*a 6, {words}"):
            make_predictor([runs["a"], other])
    other = dataclasses.replace(runs["b"], parts=dataclasses.replace(runs["b"].parts, num_classes=1))
    with pytest.raises(ConfigError, match="same number of outputs; got 6 and 1"):
        make_predictor([runs["a"], other])


@pytest.mark.parametrize("one_vs_rest", [False, True])
def test_mean_probabilities_are_scored_as_logits_of_the_same_probabilities(one_vs_rest):
    logits = np.random.default_rng(0).normal(size=(1, 4, 5, 3)).astype(np.float32)
    shares = probabilities(logits, one_vs_rest)
    np.testing.assert_allclose(probabilities(logits_of(shares, one_vs_rest), one_vs_rest), shares, atol=1e-6)


def test_an_image_at_a_time_scores_as_batches_do(runs):
    run = runs["a"]
    plain, single = run.evaluate("val"), run.evaluate("val", tiles="auto")
    np.testing.assert_array_equal(single.confusion, plain.confusion)
    assert single.loss == pytest.approx(plain.loss, rel=1e-5) and single.images == plain.images
    assert single.calibration.error == pytest.approx(plain.calibration.error, abs=1e-6)


def test_the_average_is_scored_beside_one_view(runs, capsys):
    a, b = runs["a"], runs["b"]
    arguments = ["--workdir", str(a.workdir), str(b.workdir), "--average", "flips", "--boundary", "1"]
    assert evaluate_main(arguments) == 0
    said = capsys.readouterr().out
    source, predictor = make_source(a.config, "val"), make_predictor([a, b], average="flips")
    confusion = np.zeros((len(a.classes),) * 2, np.int64)
    for i in range(len(source)):
        example = source[i]
        confusion += np.asarray(
            metrics.confusion_matrix(predictor(example["image"]).classes, example["label"], len(a.classes))
        )
    value = 100 * metrics.scores(confusion).mean_iou
    assert f"mIoU {value:.2f} %" in said and "in 2 views (flips:h), by 2 networks" in said
    for run in (a, b):
        assert f"{run.workdir} alone, in one view: mIoU {100 * run.evaluate('val').mean_iou:.2f} %" in said
    assert (a.workdir / "evaluate-val-average-runs.json").is_file()
