"""Export to StableHLO: the file runs without jaxseg and computes what `predict` does, for images of any size."""

import dataclasses
import io
import json
import re
import runpy
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.exported import tiny_parts
from helpers.tiny_models import TINY
from helpers.tiny_run import make_run, tiny_config
from jax import export
from PIL import Image

import jaxseg
from jaxseg import models
from jaxseg.__main__ import main
from jaxseg.data.transforms import resize_image
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.export import export_run, image
from jaxseg.export.image import resize_image as resize_in_program
from jaxseg.export.program import make_program
from jaxseg.export.stablehlo import prepare
from jaxseg.export.writing import checksum
from jaxseg.inference import load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """One run for each way in which images are fitted."""
    root = tmp_path_factory.mktemp("runs")
    return {fit: make_run(root / fit, tiny_config(data__fit=fit, eval__multiple=4)) for fit in ("resize", "crop")}


def picture(h, w, c=3, seed=0):
    rng = np.random.default_rng(seed)
    return np.repeat(np.repeat(rng.integers(0, 256, (h // 5 + 1, w // 5 + 1, c), np.uint8), 5, 0), 5, 1)[:h, :w]


def opened(path):
    with zipfile.ZipFile(path) as archive:
        return export.deserialize(bytearray(archive.read("program"))), json.loads(archive.read("jaxseg.json"))


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_it_computes_what_predict_does(workdirs, tmp_path, fit, capsys):
    file = tmp_path / "run.stablehlo"
    words = ["export", "--workdir", str(workdirs[fit]), "--out", str(file), "--probabilities"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "cnn after 10 steps" in said and "probabilities f32[b,h,w,6]" in said
    assert ("at 16x16, to which the image is resized" in said) == (fit == "resize")
    program, _ = opened(file)
    assert program.platforms == ("cpu", "cuda", "tpu")
    run = load(workdirs[fit])
    images = np.stack([picture(37, 26, seed=0), picture(37, 26, seed=1)])
    classes, probabilities = jax.jit(program.call)(images)
    assert classes.dtype == np.uint8 and probabilities.dtype == np.float32
    for pixels, found, shares in zip(images, classes, probabilities):
        expected = run.predict(pixels, probabilities=True)
        assert len(np.unique(expected.classes)) > 1
        np.testing.assert_array_equal(found, expected.classes)
        np.testing.assert_allclose(shares, expected.probabilities, atol=1e-5)
    # Only the shapes of the result, for a size that it has not been compiled at.
    more = jax.eval_shape(program.call, jax.ShapeDtypeStruct((5, 3, 101, 3), np.uint8))
    assert [x.shape for x in more] == [(5, 3, 101), (5, 3, 101, 6)]


def test_the_file_says_what_it_is(workdirs, tmp_path):
    run = load(workdirs["crop"])
    written = export_run(run, tmp_path / "run.stablehlo")
    program, about = opened(written.path)
    assert about == written.about and len(program.out_avals) == 1
    assert about["classes"] == list(run.classes) and about["colors"] == [list(color) for color in run.colors]
    assert (about["model"], about["step"], about["version"]) == ("cnn", 10, jaxseg.__version__)
    assert (about["resized_to"], about["multiple"]) == (None, 4)
    assert about["parameters_sha256"] == checksum(run.variables)
    assert written.bytes == written.path.stat().st_size


def test_the_checksum_is_of_names_and_values():
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    sums = {checksum(tree) for tree in ({"a": kernel}, {"b": kernel}, {"a": kernel + 1}, {"a": kernel.T})}
    assert len(sums) == 4 and checksum({"a": kernel.T.copy().T}) == checksum({"a": kernel})


def test_the_script_of_the_page_needs_no_jaxseg(workdirs, tmp_path, monkeypatch, capsys):
    [script] = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "zipfile" in code]
    assert len(script.splitlines()) <= 24 and not re.search("^(import|from) jaxseg", script, re.MULTILINE)
    run = load(workdirs["resize"])
    export_run(run, tmp_path / "run.stablehlo")
    pixels = picture(37, 26)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    expected = run.predict(pixels).classes
    (tmp_path / "segment.py").write_text(script)
    paths = [str(tmp_path / name) for name in ("segment.py", "run.stablehlo", "image.png", "classes.png")]
    monkeypatch.setattr(sys, "argv", paths)
    for name in [name for name in sys.modules if name.split(".")[0] == "jaxseg"]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises an error
    runpy.run_path(paths[0], run_name="__main__")
    with Image.open(paths[-1]) as classes:
        np.testing.assert_array_equal(np.asarray(classes), expected)
    assert all(name in capsys.readouterr().out for name in run.classes[:1])


def test_the_resize_of_the_image_is_bit_for_bit_that_of_pillow():
    resized = jax.jit(resize_in_program, static_argnums=1)
    for channels, size, wanted in ((3, (37, 53), (16, 16)), (1, (1, 1), (4, 7)), (4, (13, 300), (32, 16))):
        pixels = np.random.default_rng(channels).integers(0, 256, (*size, channels), np.uint8)
        np.testing.assert_array_equal(resized(pixels[None], wanted)[0], resize_image(pixels, wanted))


def test_the_order_of_the_two_passes_is_that_of_the_installed_pillow(monkeypatch):
    resized = jax.jit(resize_in_program, static_argnums=1)
    for size, wanted in (((60, 41), (16, 20)), ((60, 41), (16, 19))):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        np.testing.assert_array_equal(resized(pixels[None], wanted)[0], resize_image(pixels, wanted))
    # Either order is at most one step of 255 away from the other.
    pixels = np.random.default_rng(0).integers(0, 256, (20, 17, 3), np.uint8)
    monkeypatch.setattr(image, "rows_may_come_first", lambda: False)
    columns_first = np.asarray(resize_in_program(pixels[None], (16, 32))[0]).astype(int)
    assert np.abs(columns_first - resize_image(pixels, (16, 32))).max() <= 1


def test_a_network_that_depends_on_the_size_needs_one():
    parts = tiny_parts("attention_decoder", TINY["attention_decoder"], data__fit="crop")
    shapes = jax.eval_shape(parts.model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    with pytest.raises(ConfigError, match=r"chooses its layers by the size .* give --size HxW"):
        prepare(make_program(parts, parts.model, variables), 3, {})
    file = io.BytesIO()
    prepare(make_program(parts, parts.model, variables, size=(16, 24)), 3, {})(file)
    program, _ = opened(file)
    assert [x.shape for x in jax.eval_shape(program.call, jax.ShapeDtypeStruct((1, 7, 9, 3), np.uint8))] == [(1, 7, 9)]


def test_wrong_use_is_a_sentence(workdirs, tmp_path):
    run = load(workdirs["resize"])
    other = tmp_path / "other.stablehlo"
    other.write_text("mine")
    for error, file, arguments, words in (
        (ConfigError, "run.bin", {}, "unknown suffix; the file of an export ends in .stablehlo"),
        (ConfigError, "run.onnx", {"format": "stablehlo"}, "a file of stablehlo ends in .stablehlo"),
        (ArgumentError, "run.stablehlo", {"format": "stabelhlo"}, "Did you mean 'stablehlo'?"),
        (ArgumentError, "run.stablehlo", {"size": (0, 4)}, "size must be"),
        (ConfigError, "run.stablehlo", {"size": (4, 4)}, "resizes images to data.size .16x16. .* leave size out"),
        (ConfigError, "other.stablehlo", {}, "exists and is no file of an export"),
        (ConfigError, "other.stablehlo/run.stablehlo", {}, "cannot be written"),
    ):
        with pytest.raises(error, match=words):
            export_run(run, tmp_path / file, **arguments)
    assert other.read_text() == "mine" and list(tmp_path.iterdir()) == [other]


def test_a_full_disk_leaves_the_former_file(workdirs, tmp_path, monkeypatch):
    run, file = load(workdirs["resize"]), tmp_path / "run.stablehlo"
    export_run(run, file)
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match=r"run.stablehlo cannot be written: No space left on device"):
        export_run(run, file, probabilities=True)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_a_network_that_makes_images_is_refused(workdirs, tmp_path):
    run = load(workdirs["resize"])
    parts = dataclasses.replace(run.parts, model=models.build("dcgan", num_classes=6, **TINY["dcgan"]))
    with pytest.raises(ConfigError, match="makes images from noise"):
        export_run(dataclasses.replace(run, parts=parts), tmp_path / "run.stablehlo")
