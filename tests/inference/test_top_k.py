"""The likeliest classes of each pixel: sorted probabilities, whole and in tiles, and the files that hold them."""

from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg import predict
from jaxseg.errors import ArgumentError
from jaxseg.inference.predictor import make_predictor
from jaxseg.inference.readout import with_top_k
from jaxseg.run.load import load_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "one", tiny_config(data__fit="crop"))


IMAGE = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)


@pytest.mark.parametrize("given", [{}, {"tiles": "16x16"}, {"average": "flips"}])
def test_the_likeliest_classes_are_those_of_all_probabilities(workdir: Path, given: dict) -> None:
    plain = make_predictor([load_run(workdir)], **given)
    every = plain(IMAGE, probabilities=True)
    few = with_top_k(plain, 3)(IMAGE, probabilities=True)
    np.testing.assert_array_equal(few.classes, every.classes)
    assert (few.probabilities.dtype, few.indices.dtype) == (np.float16, np.uint8)
    order = np.argsort(-every.probabilities, axis=-1, kind="stable")[..., :3]
    np.testing.assert_array_equal(few.indices, order)
    np.testing.assert_allclose(
        few.probabilities, np.take_along_axis(every.probabilities, order, -1), rtol=1e-3, atol=1e-7
    )
    assert every.indices is None and with_top_k(plain, 3)(IMAGE).probabilities is None


def test_files_of_the_likeliest_classes(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    call = ["--workdir", str(workdir), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--top-k", "2"]
    assert predict.main(call) == 0
    expected = with_top_k(make_predictor([load_run(workdir)]), 2)(IMAGE, probabilities=True)
    with np.load(tmp_path / "out" / "a.npz") as found:
        assert set(found.files) == {"indices", "probabilities", "classes", "made_by"}
        np.testing.assert_array_equal(found["indices"], expected.indices)
        np.testing.assert_array_equal(found["probabilities"], expected.probabilities)
    assert predict.main([*call, "--skip-existing"]) == 0
    assert "1 image left out" in capsys.readouterr().out


def test_what_the_likeliest_classes_cannot_be(workdir: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    predictor = make_predictor([load_run(workdir)])
    for count in (0, 7):
        with pytest.raises(ArgumentError, match=f"from 1 to the number of classes, got {count}: the run has 6 classes"):
            with_top_k(predictor, count)
    for more in ("--probabilities", "--regions"):
        with pytest.raises(SystemExit):
            predict.main(["--workdir", str(workdir), "x.png", "--top-k", "2", more])
        assert f"cannot be given with {more}" in capsys.readouterr().err
