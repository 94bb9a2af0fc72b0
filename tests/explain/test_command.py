"""`jaxseg explain`: its files, what it says, and its answers to wrong use; and explaining from Python."""

import types

import numpy as np
import pytest
from helpers.tiny_models import tiny
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

import jaxseg
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.explain import explain, faithfulness
from jaxseg.explain.__main__ import main
from jaxseg.explain.explanation import require_segmenter
from jaxseg.explain.outputs import MARK
from jaxseg.explain.question import choose
from jaxseg.explain.view import averaging, view_of
from jaxseg.inference import load_run, make_segmenter
from jaxseg.pictures.marks import software


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {fit: make_run(root / fit, tiny_config(data__fit=fit)) for fit in ("resize", "crop")}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    blocks = np.random.default_rng(0).integers(0, 255, (5, 7, 3))
    file = tmp_path_factory.mktemp("images") / "a.b.png"
    Image.fromarray(np.kron(blocks, np.ones((4, 4, 1))).astype(np.uint8)).save(file)
    return file


def call(workdir, out, *words):
    return main(["--workdir", str(workdir), "--out", str(out), *map(str, words)])


def test_a_picture_and_the_raw_map_are_written(runs, image, tmp_path, capsys):
    assert call(runs["resize"], tmp_path, image, "--class", "disc", "--npz", "--faithfulness", "--sanity") == 0
    picture, arrays = tmp_path / "a.b-grad-cam-disc.png", tmp_path / "a.b-grad-cam-disc.npz"
    assert software(picture) == MARK and software(tmp_path / "a.b-grad-cam-disc-faithfulness.png") == MARK
    with np.load(arrays) as stored:
        assert stored["map"].shape == (20, 28) and stored["map"].dtype == np.float32 and stored["map"].min() >= 0
        assert str(stored["class_name"]) == "disc" and str(stored["layer"]) == "encoder/stage0"
    said = capsys.readouterr().out
    assert "class disc" in said and "deletion area" in said and "rank correlation" in said and "head" in said
    assert call(runs["resize"], tmp_path, image, "--class", "1", "--npz") == 0  # its own files are replaced


def test_no_file_of_someone_else_is_replaced(runs, image, tmp_path, capsys):
    (tmp_path / "a.b-saliency-disc.png").write_bytes(image.read_bytes())
    assert call(runs["resize"], tmp_path, image, "--class", "disc", "--method", "saliency") == 1
    assert "would replace a file that jaxseg explain did not write" in capsys.readouterr().err
    assert call(runs["resize"], image, image, "--class", "disc", "--method", "saliency") == 1
    assert "is a file; give a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--class", "dics"], "There is no class 'dics'. Did you mean 'disc'?"),
        (["--class", "9"], "There is no class 9: the classes of the run are 0 to 5 (background, disc, "),
        (["--pixel", "20,3"], "The pixel 20,3 lies outside the image, whose rows are 0 to 19 and columns 0 to 27"),
        (["--box", "4,4,2,9"], "The box 4,4,2,9 does not lie in the image of 20 rows and 28 columns"),
        (["--box", "0,0,2,2", "--pixel", "0,0"], "A pixel and a box are two targets"),
        (["--layer", "encoder/stage1"], "no layer 'encoder/stage1' that leads to its logits. Did you mean 'encoder/s"),
        (["--layer", "hidden", "--method", "saliency"], "layer belongs to the methods 'grad-cam' and 'attention'"),
        (["--method", "attention"], "has no attention over places; networks that have are attention_decoder, "),
        (["--samples", "0"], "samples must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_use_is_answered_in_a_sentence(runs, image, tmp_path, capsys, words, answer):
    assert call(runs["resize"], tmp_path / "out", image, *words) == 1
    assert answer in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "The following arguments are required: IMAGES"),
        (["x.png", "--pixel", "3"], "'3' must be 2 whole numbers, row,column"),
        (["--method", "receptive-field", "--class", "disc"], "it takes no --class, --box or --layer"),
        (["--method", "receptive-field", "--sanity"], "--method receptive-field explains none"),
    ],
)
def test_wrong_options_are_refused(runs, tmp_path, capsys, words, answer):
    with pytest.raises(SystemExit) as end:
        call(runs["resize"], tmp_path, *words)
    assert end.value.code == 2 and answer in capsys.readouterr().err


def test_an_image_that_is_not_there_fails_alone(runs, image, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    words = [image, tmp_path / "none.png", tmp_path / "broken.png", "--method", "saliency", "--pixel", "2,3"]
    assert call(runs["resize"], tmp_path / "out", *words) == 1
    said = capsys.readouterr()
    assert "There is no file" in said.err and "broken.png" in said.err
    (file,) = (tmp_path / "out").iterdir()
    assert file.name.startswith("a.b-saliency-") and file.name.endswith("-at-2-3.png")


def test_layers_are_listed(runs, capsys):
    assert main(["--workdir", str(runs["resize"]), "--layers"]) == 0
    said = capsys.readouterr().out
    assert "encoder/stage0" in said and "16 x 16 x 4" in said and "no attention" in said


def test_a_receptive_field_needs_no_image(runs, tmp_path, capsys):
    """cnn: 3x3, pooling, a 3x3 at stride 2, bilinear up-sampling from two of its rows: 3 + 1 + 4 + 2 = 10."""
    assert call(runs["resize"], tmp_path, "--method", "receptive-field", "--samples", "2") == 0
    assert "theoretical 10 x 10 pixels" in capsys.readouterr().out
    assert software(tmp_path / "receptive-field.png") == MARK


def test_a_network_that_generates_is_refused():
    run = types.SimpleNamespace(model=tiny("dcgan"), workdir="runs/x", config=tiny_config(model__name="cnn"))
    with pytest.raises(ConfigError, match="generates images and segments none"):
        require_segmenter(run)


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_the_view_of_an_image_is_that_of_prediction(runs, fit):
    run, rng = load_run(runs[fit]), np.random.default_rng(2)
    image = np.repeat(np.repeat(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8), 7, 0), 6, 1)[:23]
    view = view_of(run.parts, image)
    predicted = make_segmenter(run.parts)(run.variables, image).classes
    logits = np.asarray(run.model.apply(run.variables, view.input, train=False)[0])[0]
    assert np.mean(view.classes(logits) == predicted) > 0.998 and predicted.max() > 0
    # The target of the network's own logits has the sum that the logits of the image have.
    pixels = rng.random(view.size).astype(np.float32)
    expected = (pixels * view.to_image(logits[..., 2])).sum()
    assert (view.to_input(pixels) * logits[..., 2]).sum() == pytest.approx(expected, rel=1e-4)


def test_explanations_from_python(runs, image):
    run = jaxseg.load(runs["crop"])
    array = np.asarray(Image.open(image))
    found = explain(run, array, method="integrated-gradients", pixel=(3, 4), steps=8)
    predicted = run.predict(array).classes
    assert found.map.shape == (20, 28) and found.question.class_index == predicted[3, 4]
    assert found.numbers["sum"] == pytest.approx(found.map.sum(), rel=1e-3)
    assert found.picture().ndim == 3 and "integrated-gradients of" in repr(found)
    box = explain(run, Image.open(image), method="saliency", box=(0, 0, 5, 6))
    assert box.question.class_index == np.bincount(predicted[:5, :6].ravel()).argmax()
    assert not box.map[17:].any()  # beyond the receptive field of 10
    curves = faithfulness(run, box, steps=4)
    assert 0 <= curves.deletion_area <= 1 and curves.deletion.shape == (5,)
    with pytest.raises(ArgumentError, match="explains the prediction for an image"):
        explain(run, None)
    with pytest.raises(ArgumentError, match="Did you mean 'smoothgrad'"):
        explain(run, array, method="smooth-grad")


def test_without_a_place_the_pixels_are_those_of_the_class():
    classes, predicted = ("sky", "road", "car"), np.array([[0, 1], [1, 1]])
    most = choose("saliency", classes, predicted, None, None, None)
    assert most.class_name == "road" and most.words == "3 pixels predicted as it"
    np.testing.assert_array_equal(most.pixels, predicted == 1)
    none = choose("saliency", classes, predicted, "car", None, None)
    assert none.pixels.all() and none.words == "the whole image (no pixel is predicted as it)"


def test_a_binary_network_has_a_target_for_either_class(runs, image):
    view = view_of(load_run(runs["resize"]).parts, np.asarray(Image.open(image)))
    for word, sign in (("thing", 1), ("other", -1)):
        question = choose("saliency", ("other", "thing"), np.zeros(view.size, int), word, (3, 4), None)
        np.testing.assert_array_equal(question.target(view, 1)[..., 0], sign * question.on_input(view))


def test_averaging_covers_what_it_should():
    np.testing.assert_allclose(averaging(2, 3), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], rtol=1e-6)
    np.testing.assert_allclose(averaging(3, 2).sum(1), 1, rtol=1e-6)
