"""Tiles inside an exported program: what `predict` computes in tiles, for images of any size, in both formats."""

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.exported import onnx_difference, random_images, tiny_parts
from helpers.tiny_models import TINY
from helpers.tiny_run import make_run, tiny_config
from jax import export

from jaxseg.__main__ import main
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.export import export_run
from jaxseg.export.tiled import blend_tiles, make_tiles
from jaxseg.inference import load

TILES = (16, 24)


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """One run for each way in which images are fitted; tiles are seen at their own scale in both."""
    root = tmp_path_factory.mktemp("runs")
    return {fit: make_run(root / fit, tiny_config(data__fit=fit)) for fit in ("resize", "crop")}


def opened(path):
    with zipfile.ZipFile(path) as archive:
        program = export.deserialize(bytearray(archive.read("program")))
        return jax.jit(program.call), json.loads(archive.read("jaxseg.json"))


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_stablehlo_computes_what_predict_does(workdirs, tmp_path, fit, capsys):
    file = tmp_path / "run.stablehlo"
    words = ["export", "--workdir", str(workdirs[fit]), "--out", str(file), "--probabilities"]
    assert main([*words, "--tiles", "16x24", "--overlap", "0.25"]) == 0
    assert "in tiles of 16x24, every 12x18 pixels" in capsys.readouterr().out
    program, about = opened(file)
    assert (about["tiles"], about["steps"], about["resized_to"]) == ([16, 24], [12, 18], None)
    run = load(workdirs[fit])
    for size in ((1, 41, 60), (2, 16, 24)):
        images = random_images(*size)
        classes, probabilities = program(images)
        for image, found, shares in zip(images, classes, probabilities):
            expected = run.predict(image, probabilities=True, tiles=TILES, overlap=0.25)
            np.testing.assert_array_equal(found, expected.classes)
            np.testing.assert_allclose(shares, expected.probabilities, atol=1e-5)


def test_onnx_computes_what_predict_does(workdirs, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run = load(workdirs["crop"])
    written = export_run(run, tmp_path / "run.onnx", probabilities=True, tiles=TILES)
    session = onnxruntime.InferenceSession(written.path)
    for size in ((2, 33, 75), (1, 16, 24)):
        images = random_images(*size)
        for image, classes, shares in zip(images, *session.run(None, {"image": images})):
            expected = run.predict(image, probabilities=True, tiles=TILES)
            np.testing.assert_array_equal(classes, expected.classes)
            np.testing.assert_allclose(shares, expected.probabilities, atol=1e-5)


def test_an_image_smaller_than_a_tile_is_extended_to_one(workdirs, tmp_path):
    program, _ = opened(export_run(load(workdirs["crop"]), tmp_path / "run.stablehlo", tiles=TILES).path)
    image = random_images(1, 7, 30)
    whole = np.pad(image, ((0, 0), (0, 9), (0, 0), (0, 0)), mode="edge")
    np.testing.assert_array_equal(program(image)[0], program(whole)[0][:, :7])


def test_the_weights_of_tiles_add_to_1_at_each_pixel():
    tiles = make_tiles((8, 12), 0.5, 4)
    assert (tiles.size, tiles.step) == ((8, 12), (4, 4))
    for h, w in ((8, 12), (9, 31), (24, 24), (3, 50)):
        blend = jax.jit(lambda x: blend_tiles(x, lambda tile: jnp.ones((*tile.shape[:3], 2), jnp.float32), tiles))
        ones = blend(np.zeros((1, h, w, 3), np.uint8))
        assert ones.shape == (1, h, w, 2)
        np.testing.assert_allclose(ones, 1.0, atol=1e-6)


def test_a_network_that_depends_on_the_size_sees_tiles_of_one():
    pytest.importorskip("onnxruntime")
    parts = tiny_parts("attention_decoder", TINY["attention_decoder"], data__fit="crop")
    found = onnx_difference(parts, tiles=make_tiles((32, 32), 0.5, 16))
    assert found.probability <= 1e-4 and found.classes == 0 and found.varies > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TINY if name != "dcgan"])
def test_every_network(name):
    pytest.importorskip("onnxruntime")
    found = onnx_difference(tiny_parts(name, TINY[name]), tiles=make_tiles((32, 32), 0.5, 32))
    assert found.probability <= 1e-4 and found.classes == 0


def test_wrong_use_is_a_sentence(workdirs, tmp_path):
    run = load(workdirs["crop"])
    for error, arguments, words in (
        (ArgumentError, {"tiles": "auto"}, "tiles must be the height and width of a tile here, .* not auto"),
        (ArgumentError, {"tiles": "64"}, None),
        (ArgumentError, {"tiles": "64x"}, "tiles must be"),
        (ArgumentError, {"tiles": TILES, "overlap": 1.0}, "overlap must be at least 0 and below 1"),
        (ArgumentError, {"tiles": TILES, "size": (16, 16)}, "tiles and size exclude each other"),
    ):
        if words is None:  # one number is the side of a square
            assert export_run(run, tmp_path / "run.stablehlo", **arguments).about["tiles"] == [64, 64]
            (tmp_path / "run.stablehlo").unlink()
            continue
        with pytest.raises(error, match=words):
            export_run(run, tmp_path / "run.stablehlo", **arguments)
    with pytest.raises(ConfigError, match="a network inside a loop over tiles"):
        export_run(run, tmp_path / "run.onnx", tiles=TILES, dtype="int8")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArgumentError, match="smaller than the stride of the network, 8 pixels"):
        make_tiles((4, 16), 0.5, 8)
