"""The README is short, its commands and code run as they stand, and what it names is there."""

import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.fake_hub import fake_hub
from helpers.tiny_run import TINY, make_folder, make_run, tiny_config
from PIL import Image

import jaxseg
from jaxseg import pretrained
from jaxseg.models import encoders

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CREATE, LOAD, TRAIN = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

# What stands in for `experiments/resunet.py`, with a network and sizes that a test can afford.
SMALL_EXPERIMENT = f"""
from jaxseg.config import default_config, update

def get_config(arg=None):
    assert arg == "folder"
    config = default_config()
    update(config, data__source=arg, data__size=(16, 16), model__name="cnn", model__args={TINY!r})
    update(config, steps=2, batch_size=8, eval__batch_size=8, log__images=1, log__tensorboard=False)
    return config
"""


def test_the_readme_is_short_and_shows_a_picture():
    assert len(README.splitlines()) <= 150
    [picture] = re.findall(r"!\[.+?\]\((.+?)\)", README)
    with Image.open(ROOT / picture) as image:
        assert image.width > 400


def test_each_of_the_two_commands_is_one_line():
    commands = re.findall(r"^    (pip install .+)$", README, re.MULTILINE)
    first, tests = (shlex.split(command, comments=True) for command in commands)
    assert first == shlex.split("pip install -e . && python -m jaxseg.train --config experiments/resunet.py")
    assert tests == shlex.split("pip install -e .[test] && pytest -n 2 --dist worksteal")
    assert re.search(r"^pytest -n 2 --dist worksteal\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_the_snippet_that_makes_a_network_runs_as_written(monkeypatch, tmp_path):
    """Published weights come from a Hub on this machine, under the names of jaxseg, for a small ResNet of that name."""
    from safetensors.numpy import save

    monkeypatch.chdir(tmp_path)
    small = {"depths": (1, 1, 1, 1), "widths": (8, 16, 16, 32, 32)}
    monkeypatch.setitem(encoders.CLASSES, "resnet50", ("resnet", "ResNet", small))
    encoder = encoders.build("resnet50")
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32))
    arrays = {name: np.full(x.shape, 0.01, np.float32) for name, x in pretrained.flatten(shapes).items()}
    with fake_hub(monkeypatch, tmp_path / "cache") as hub:
        repository = pretrained.find("imagenet", encoder="resnet50").place.repository
        hub.files[repository, "main", "model.safetensors"] = save(arrays)
        names = run(CREATE)
    logits, model = names["logits"], names["model"]
    assert logits.shape == (1, 120, 160, 3) and logits.dtype == np.float32
    inner = pretrained.flatten({"params": model.variables["params"]["encoder"]})
    assert inner and all(np.all(np.asarray(x) == np.float32(0.01)) for x in inner.values())


def test_the_snippet_that_loads_a_run_runs_as_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "mine", tiny_config())
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save("street.jpg")
    names = run("import jaxseg\n" + LOAD)
    assert names["result"].classes.shape == (20, 30) and names["result"].classes.dtype == np.uint8
    assert "mean IoU" in str(names["scores"])
    pixels = np.asarray(Image.open("street.jpg"))
    for image in (pixels, Image.fromarray(pixels)):
        np.testing.assert_array_equal(names["run"].predict(image).classes, names["result"].classes)


def test_the_snippet_that_trains_runs_as_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "resunet.py").write_text(SMALL_EXPERIMENT)
    for split in ("train", "val"):
        make_folder(tmp_path / "MY_FOLDER", [(16, 16)] * 8, split=split)
    run("import jaxseg\n" + TRAIN)
    assert jaxseg.load("runs/mine").step == 2


def run(code: str) -> dict[str, object]:
    """Runs code of the README and returns its names."""
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_the_folder_of_the_readme_is_checked_and_trained_by_its_commands():
    commands = [line.split("  ")[0].split() for line in re.findall(r"^    jaxseg (.+)$", README, re.MULTILINE)]
    names = [name for name, *_ in commands]
    assert names == ["plan", "check", "train", "evaluate", "report", "predict", "export"]
    assert commands[0][1:] == ["MY_FOLDER"] and commands[1][1:] == ["plan.py"]
    assert all("runs/mine" in words for words in commands[2:])


@pytest.mark.parametrize("name", ["list_models", "list_encoders"])
def test_the_lists_are_there(name):
    assert f"jaxseg.{name}()" in README and len(getattr(jaxseg, name)()) > 20
