"""Refining probabilities by a dense CRF, what it refuses, and the search for its settings on a split."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.parity import FAST_COMPILE
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg import crf as command
from jaxseg import evaluate, metrics, predict
from jaxseg.build import build_parts
from jaxseg.config import update
from jaxseg.data import make_source
from jaxseg.errors import ArgumentError, ConfigError, OutOfMemoryError
from jaxseg.inference import crf as inference
from jaxseg.inference import load, refine
from jaxseg.inference.crf_search import CRFSearch, Trial, grid_settings, parse_grid, search_crf
from jaxseg.inference.predictor import Predictor, make_predictor
from jaxseg.nn import CRF, dense_crf
from jaxseg.nn.ops.dense_crf import pixel_features
from jaxseg.nn.ops.permutohedral import count_vertices
from jaxseg.run.load import load_run
from jaxseg.run.weights import plan_weights

EXACT = "smooth_xy=1.5,appearance_xy=4,appearance_rgb=30,iterations=2,method=exact"


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, compiler_options=FAST_COMPILE)


def drawn(h: int, w: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """An image u8[h,w,3] and probabilities f32[h,w,k]."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (h, w, 3), np.uint8)
    return image, np.asarray(jax.nn.softmax(rng.normal(size=(h, w, k)).astype(np.float32)))


def test_probabilities_are_refined() -> None:
    """Of bytes, 16-bit numbers and floats alike; from probabilities or logits; one image or a batch."""
    image, shares = drawn(9, 8, 3)
    settings = CRF.parse(EXACT)
    plain = functools.partial(dense_crf, iterations=2, method="exact", **settings.numbers)
    wanted = jax.nn.softmax(compiled(plain)(jnp.log(shares)[None], jnp.asarray(image, jnp.float32)[None]))
    for form in (image, image.astype(np.uint16) * 257, image.astype(np.float32) / 255):
        np.testing.assert_allclose(refine(form, shares, EXACT), wanted[0], rtol=1e-4, atol=1e-6)
    found = refine(image[None], np.log(shares)[None], settings, logits=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_binary_network_is_one_of_two_classes() -> None:
    image, shares = drawn(9, 8, 2)
    both, one = refine(image, shares, EXACT), refine(image, shares[..., 1:], EXACT)
    np.testing.assert_allclose(one, both[..., 1:], rtol=1e-4, atol=1e-6)


def test_the_lattice_has_rows_for_all_vertices_and_the_memory_is_foreseen() -> None:
    """Noise needs more vertices than pixels."""
    image, shares = drawn(48, 40, 4)
    colors, settings = inference.colors(image[None]), CRF.parse("appearance_rgb=3,iterations=2")
    rows = inference.capacity_for(settings, colors)
    features = pixel_features(jnp.asarray(colors), settings.appearance_xy, settings.appearance_rgb)
    vertices = int(compiled(count_vertices)(features.reshape(1, -1, 5))[0])
    assert 48 * 40 < vertices <= rows <= 1.4 * vertices
    program = inference.refiner(settings, colors, 4)
    memory = program.lower(jnp.log(shares)[None], colors, inference.numbers(settings)).compile().memory_analysis()
    needed = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    assert 0.7 < inference.memory_of(colors.shape, 4, settings, rows) / needed < 1.5


def test_too_much_memory_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "free_memory", lambda: 5.25e9)
    zeros = np.zeros(1, np.uint8)
    with pytest.raises(OutOfMemoryError) as error:
        refine(np.broadcast_to(zeros, (500, 500, 3)), np.broadcast_to(zeros, (500, 500, 1000)))
    assert str(error.value) == (
        "A dense CRF of 1000 classes over an image of 500x500 pixels would take about 9.6 GB of memory, and 5.2 GB "
        "are free; refine smaller images, or cut them up (--tiles does not: the CRF sees the image in one piece)."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": np.zeros((4, 5, 2))}, r"of one size, got \(4, 4, 3\) and \(4, 5, 2\)"),
        ({"crf": "deeplab"}, r"There is no preset 'deeplab' of a CRF"),
        ({"image": np.zeros((4, 4, 3), np.int64)}, "bytes, 16-bit numbers or floats in .0, 1., got int64"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    usual = {"image": np.zeros((4, 4, 3), np.uint8), "scores": np.full((4, 4, 2), 0.5, np.float32)}
    with pytest.raises(ArgumentError, match=message):
        refine(**(usual | arguments))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("crf") / "run", tiny_config(data__fit="crop"))


def test_memory_is_asked_for_before_the_network_runs(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(drawn(40, 30, 2)[0]).save(tmp_path / "i.png")
    monkeypatch.setattr(inference, "free_memory", lambda: 1e5)
    for name in ("launch", "scores"):
        monkeypatch.setattr(Predictor, name, lambda *arguments: pytest.fail("the network runs"))
    words = ["--workdir", str(workdir), str(tmp_path / "i.png"), "--out", str(tmp_path / "out"), "--crf"]
    assert predict.main([*words, "--tiles", "16x16", "--overlap", "0"]) == 1
    assert "A dense CRF of 6 classes over an image of 40x30 pixels would take" in capsys.readouterr().err
    with pytest.raises(OutOfMemoryError, match="over an image of 40x30 pixels"):
        inference.with_crf(make_predictor([load_run(workdir)]), CRF())(drawn(40, 30, 2)[0])


def test_predictions_are_refined(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes and probabilities of the command; and the scores that an evaluation reads."""
    run = load_run(workdir)
    image = make_source(run.config, "val")[0]["image"]
    Image.fromarray(image).save(tmp_path / "i.png")
    words = ["--workdir", str(workdir), str(tmp_path / "i.png"), "--out", str(tmp_path / "out"), "--probabilities"]
    assert predict.main([*words, "--crf", EXACT]) == 0
    predictor = make_predictor([run])
    wanted = refine(image, np.asarray(predictor(image, probabilities=True).probabilities), EXACT)
    with np.load(tmp_path / "out" / "i.npz") as arrays:
        np.testing.assert_allclose(arrays["probabilities"], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "i.png")), wanted.argmax(-1))
    scores = inference.refined_scores(predictor.scores, CRF.parse(EXACT), one_vs_rest=False)(image)
    np.testing.assert_allclose(scores.values[0], wanted, rtol=1e-4, atol=1e-6)
    assert not scores.are_logits and scores.sizes == (image.shape[:2],)
    assert evaluate.main(["--workdir", str(workdir), "--crf", EXACT]) == 0
    report, confusion = json.loads((workdir / "evaluate-val-crf.json").read_text()), np.zeros((6, 6), np.int64)
    for example in make_source(run.config, "val"):
        shares = np.asarray(predictor(example["image"], probabilities=True).probabilities)
        classes = refine(example["image"], shares, EXACT).argmax(-1)
        confusion += np.asarray(metrics.confusion_matrix(classes[None], example["label"][None], 6))
    assert report["confusion"] == confusion.tolist() and report["crf"] == str(CRF.parse(EXACT))
    assert len(report["alone"]) == 1
    capsys.readouterr()
    assert predict.main([*words, "--crf", "deeplab"]) == 1
    assert "There is no preset 'deeplab' of a CRF" in capsys.readouterr().err


def test_a_refined_predictor_segments_as_it_scores(workdir: Path) -> None:
    """Objects are found in what it segments, pixels counted in what it scores."""
    plain = make_predictor([load_run(workdir)])
    predictor = inference.with_crf(plain, CRF())
    image = np.random.default_rng(0).integers(0, 255, (14, 17, 3), np.uint8)
    shares = np.asarray(predictor.scores(image).values)[0]
    for found in (predictor(image, probabilities=True), predictor.launch([image], True)()[0]):
        np.testing.assert_array_equal(found.classes, shares.argmax(-1))
        np.testing.assert_allclose(found.probabilities, shares, atol=1e-6)
    assert np.abs(shares - plain(image, probabilities=True).probabilities).max() > 1e-3


def test_a_run_predicts_and_is_scored_with_a_crf(workdir: Path) -> None:
    run = load(workdir)
    image = np.random.default_rng(0).integers(0, 255, (14, 17, 3), np.uint8)
    wanted = refine(image, run.predict(image, probabilities=True).probabilities, EXACT)
    for crf in (EXACT, CRF.parse(EXACT)):
        found = run.predict(image, probabilities=True, crf=crf)
        np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found.classes, wanted.argmax(-1))
    assert "refined by a dense CRF" in str(run.evaluate("val", crf=EXACT))
    with pytest.raises(ArgumentError, match="There is no preset 'deeplab' of a CRF"):
        run.predict(image, crf="deeplab")


def test_the_search_sees_images_as_the_run_is_scored(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In tiles where eval.tiles says so; and a file of someone else is in the way before anything is computed."""
    run = load_run(workdir, overrides={"eval.tiles": "8x8"})
    found = search_crf(run, "val", {"appearance_weight": [3.0]}, start=EXACT)
    expected = load(workdir).evaluate("val", tiles=8)
    np.testing.assert_array_equal(found.trials[0].confusion, expected.confusion)
    assert not np.array_equal(expected.confusion, load(workdir).evaluate("val").confusion)
    (workdir / "crf-test.json").write_text("[1]")
    assert command.main(["--workdir", str(workdir), "--split", "test", "--images", "1"]) == 1
    assert "crf-test.json would replace a file that jaxseg did not write" in capsys.readouterr().err
    assert (workdir / "crf-test.json").read_text() == "[1]"


def test_the_settings_with_the_best_score_are_found(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the same scores, image by image; the table is printed, and kept in the workdir."""
    grid = "appearance_weight=0-3"
    start = f"{EXACT},smooth_weight=1"
    assert command.main(["--workdir", str(workdir), "--grid", grid, "--start", start, "--images", "2"]) == 0
    printed = capsys.readouterr().out
    kept = json.loads((workdir / "crf-val.json").read_text())
    run = load_run(workdir)
    segment, source = make_predictor([run]), make_source(run.config, "val")
    wanted = {}
    for text in (None, f"{start},appearance_weight=0", f"{start},appearance_weight=3"):
        confusion = np.zeros((6, 6), np.int64)
        for index in (0, 2):  # evenly spaced of five
            shares = segment(source[index]["image"], probabilities=True).probabilities
            classes = (shares if text is None else refine(source[index]["image"], shares, text)).argmax(-1)
            confusion += np.asarray(metrics.confusion_matrix(classes[None], source[index]["label"][None], 6))
        wanted[None if text is None else str(CRF.parse(text))] = metrics.scores(confusion).mean_iou
    assert {row["crf"]: row["mean_iou"] for row in kept["trials"]} == pytest.approx(wanted)
    alone = wanted.pop(None)
    best = max(wanted, key=lambda text: wanted[text])
    assert kept["best"] == (best if wanted[best] > alone else None)
    assert kept["images"] == 2 and "| no CRF" in printed and f"{100 * alone:.2f}" in printed


def test_a_search_in_which_no_crf_helps_says_so() -> None:
    trials = (Trial(None, 0.5, 0.9, np.zeros((2, 2))), Trial(CRF(), 0.4, 0.9, np.zeros((2, 2))))
    found = CRFSearch("val", 3, trials)
    assert found.best is None and "No CRF scores higher than the network alone." in str(found)
    assert CRFSearch("val", 3, (trials[0], Trial(CRF(), 0.6, 0.9, np.zeros((2, 2))))).best == CRF()


def test_a_grid_is_every_combination() -> None:
    grid = parse_grid("appearance_xy=30-50, iterations=2-5")
    assert [(crf.appearance_xy, crf.iterations) for crf in grid_settings(CRF(), grid)] == [
        (30, 2),
        (30, 5),
        (50, 2),
        (50, 5),
    ]
    with pytest.raises(ArgumentError, match=r"got 'appearance_xy'"):
        parse_grid("appearance_xy")
    with pytest.raises(ArgumentError, match=r"smoth_xy is no number of a CRF. Did you mean 'smooth_xy'"):
        grid_settings(CRF(), {"smoth_xy": (1.0,)})


def test_a_run_without_a_crf_starts_one_with_it(workdir: Path) -> None:
    """As docs/crf.md has it: the network's parameters come from the run, and those of the CRF keep their start."""
    config = tiny_config(model__crf="crf-as-rnn", model__weights=str(workdir))
    with pytest.raises(ConfigError, match="crf"):
        plan_weights(build_parts(config, 6))
    update(config, model__weights_skip=("crf",))
    planned = plan_weights(build_parts(config, 6))
    assert planned is not None
    run, params = load_run(workdir), planned.variables["params"]
    assert isinstance(params["crf"]["compatibility"], jax.ShapeDtypeStruct)  # drawn when the training starts
    trained = {name: value for name, value in params.items() if name != "crf"}
    jax.tree.map(np.testing.assert_array_equal, trained, dict(run.variables["params"]))


def test_a_run_with_a_crf_inside_predicts(tmp_path: Path) -> None:
    """Its batch norms are folded as those of any network; the CRF sees colours."""
    run = load_run(make_run(tmp_path / "run", tiny_config(data__fit="crop", model__crf=EXACT)))
    assert "crf" in run.variables["params"]
    predictor = make_predictor([run])
    assert predictor.networks.members[0].model.pairs
    image = make_source(run.config, "val")[0]["image"]
    logits, _ = jax.jit(functools.partial(run.model.apply, train=False), compiler_options=FAST_COMPILE)(
        run.variables, run.parts.prepare(image[None])
    )
    found = predictor(image, probabilities=True).probabilities
    np.testing.assert_allclose(found, jax.nn.softmax(logits)[0], rtol=1e-3, atol=1e-5)
