"""Published networks of strangers: damaged and forged files end in a result or one sentence, and run nothing."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.fuzzing import Tally, attempt
from helpers.mutations import mutated, mutated_text
from helpers.tiny_run import make_run, tiny_config

from jaxseg.errors import CheckpointError
from jaxseg.publish import publish_run
from jaxseg.run.load import load_run
from jaxseg.run.published import sha256_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("published")
    publish_run(load_run(make_run(made / "run", tiny_config())), made / "net", licence="mit")
    return made / "net"


@pytest.mark.parametrize("count", [40, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_published_networks_end_in_a_sentence(folder: Path, tmp_path: Path, count: int) -> None:
    """Every other file of weights is sealed with its own SHA-256, as whoever forges one does."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    files = ("model.safetensors", "config.json", "model.safetensors", "data.json", "published.json")
    sealed, tally = json.loads((folder / "published.json").read_text()), Tally("published networks")
    for seed in range(count):
        name = files[seed % len(files)]
        good = (folder / name).read_bytes()
        bad = (mutated if name == "model.safetensors" else mutated_text)(good, seed)
        (copy / name).write_bytes(bad)
        if name == "model.safetensors" and seed % 2:
            (copy / "published.json").write_text(json.dumps({**sealed, "sha256": sha256_of(bad)}))
        tally.add(attempt(lambda: load_run(copy), f"{name}, seed {seed}"))
        for each in {name, "published.json"}:
            shutil.copyfile(folder / each, copy / each)
    print(tally.row())
    assert tally.counts["result"] and tally.counts["sentence"]


@pytest.mark.parametrize("kind", ["pickle", "npz"])
def test_weights_are_safetensors_alone(folder: Path, tmp_path: Path, kind: str) -> None:
    """A file of another format is none, whatever its name says and though `model.weights` reads such files."""
    import pickle

    import numpy as np

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    with (copy / "model.safetensors").open("wb") as file:
        if kind == "npz":
            np.savez(file, **{"params/x": np.zeros(3)})
        else:
            pickle.dump({"params/x": print}, file)
    record = json.loads((folder / "published.json").read_text())
    sealed = sha256_of((copy / "model.safetensors").read_bytes())
    (copy / "published.json").write_text(json.dumps({**record, "sha256": sealed}))
    with pytest.raises(CheckpointError, match="not a file of safetensors"):
        load_run(copy)


def test_a_header_cannot_ask_for_more_than_the_file_has(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    header = json.dumps({"params/x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    record = json.loads((folder / "published.json").read_text())
    for bad in (len(header).to_bytes(8, "little") + header, (2**62).to_bytes(8, "little") + b"{" * 100):
        (copy / "model.safetensors").write_bytes(bad)
        (copy / "published.json").write_text(json.dumps({**record, "sha256": sha256_of(bad)}))
        outcome = attempt(lambda: load_run(copy), "a header that lies", names="model.safetensors", megabytes=50)
        assert "is damaged, or not a file of safetensors" in outcome.sentence
