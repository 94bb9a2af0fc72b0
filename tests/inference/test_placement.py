"""Whole images whose rows are split over devices give the prediction of one device."""

import numpy as np
import pytest
from helpers.marks import some_slow
from helpers.tiny_models import TINY
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg import predict
from jaxseg.errors import ConfigError
from jaxseg.inference.predictor import make_predictor
from jaxseg.run.load import load_run


def draw(h: int, w: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=some_slow(("cnn", "segformer"), {"segformer"}))
def run(request, tmp_path_factory):
    config = tiny_config(model__name=request.param, model__args=TINY[request.param], data__fit="crop")
    return load_run(make_run(tmp_path_factory.mktemp("run") / "run", config))


# Rows that the devices divide, and that they do not; with the views of an image that is extended below, too.
@pytest.mark.parametrize(("size", "average"), [((32, 24), ""), ((37, 29), "flips:hv")])
def test_the_probabilities_are_those_of_one_device(run, size, average):
    image = draw(*size)
    one, many = (make_predictor([run], average=average, space=space)(image, probabilities=True) for space in (1, 4))
    assert many.probabilities.shape == (*size, run.num_classes)
    np.testing.assert_allclose(many.probabilities, one.probabilities, atol=1e-5)
    np.testing.assert_array_equal(many.classes, one.classes)


def test_the_command_splits_rows(run, tmp_path, capsys):
    Image.fromarray(draw(21, 24)).save(tmp_path / "a.png")
    words = ["--workdir", str(run.workdir), str(tmp_path / "a.png"), "--no-overlay"]
    for space in ("1", "8"):
        assert predict.main([*words, "--out", str(tmp_path / space), "--space", space]) == 0
    one, many = (np.asarray(Image.open(tmp_path / space / "a.png")) for space in ("1", "8"))
    np.testing.assert_array_equal(one, many)
    assert predict.main([*words, "--out", str(tmp_path / "no"), "--space", "9"]) == 1
    assert "space=9 needs as many devices, and there are 8." in capsys.readouterr().err


def test_tiles_are_not_split_by_rows(run):
    with pytest.raises(ConfigError, match="space=2 splits whole images over 2 devices; give it without tiles"):
        make_predictor([run], tiles=(16, 16), space=2)
