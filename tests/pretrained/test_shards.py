"""Weights in several files: read as one, and a list that lies about them ends in a sentence."""

import hashlib
import json

import jax
import numpy as np
import pytest
from helpers.fuzzing import read_all
from helpers.mutations import mutated
from helpers.tiny_weights import assert_equal, in_two_files, network

from jaxseg import pretrained
from jaxseg.errors import WeightsError
from jaxseg.pretrained.files import read

ARRAYS = {f"layer{i}.weight": np.full((2, i + 1), i + 0.5, np.float16) for i in range(5)}
LIST = "model.safetensors.index.json"
FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


@pytest.fixture
def folder(tmp_path):
    """A folder with five arrays in two files, and the list."""
    for name, content in in_two_files(ARRAYS).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_files_are_read_as_one(folder):
    found = read(folder / LIST)
    assert set(found.arrays) == set(ARRAYS)
    for name, x in found.arrays.items():
        assert x.dtype == np.float32  # of half the precision in the files
        np.testing.assert_array_equal(x, ARRAYS[name])
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in (FIRST, SECOND)]
    assert found.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_prefixes_and_half_precision_are_those_of_a_single_file(tmp_path):
    """As a LightningModule around a data-parallel network keeps it."""
    _, theirs = network()
    halves = jax.tree.map(lambda x: x.astype(np.float16), theirs)
    flat = pretrained.flatten({name: tree["encoder"] for name, tree in halves.items()})
    rules = [pretrained.Rule(name.replace("/", "."), name) for name in flat]
    renamed = {"model.module.encoder." + name.replace("/", "."): x for name, x in flat.items()}
    for name, content in in_two_files(renamed).items():
        (tmp_path / name).write_bytes(content)
    _, ours = network(seed=1)
    loaded = pretrained.load(ours, str(tmp_path), encoder="residual", rules=rules)
    assert "took the encoder under 'encoder.'" in loaded.notes
    expected = {n: {**ours[n], "encoder": tree["encoder"]} for n, tree in halves.items()}
    assert_equal(loaded.variables, expected)


def listing(folder, **changed):
    """Writes the list with other places of arrays; None removes one."""
    places = json.loads((folder / LIST).read_text())["weight_map"] | changed
    content = {"weight_map": {name: file for name, file in places.items() if file is not None}}
    (folder / LIST).write_text(json.dumps(content))
    return folder / LIST


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layer0.weight": SECOND}, rf"{SECOND} lacks 1 array which is in it by the list {LIST}: layer0\.weight\."),
        ({"layer0.weight": None}, rf"{FIRST} has 1 array which is not by the list {LIST}: layer0\.weight\."),
        ({"more": FIRST}, "lacks 1 array which is in it by the list .*: more"),
        ({"more": "model-00003.safetensors"}, r"in 3 files, of which model-00003\.safetensors is not beside it\."),
        ({"more": f"../{FIRST}"}, r"the array 'more' is in '\.\./model-.*', which is no file of weights beside it\."),
        ({"more": "/etc/passwd"}, r"'/etc/passwd', which is no file of weights beside it\."),
        ({"more": LIST}, r"which is no file of weights beside it\."),
        ({"more": 3}, r"'3', which is no file of weights beside it\."),
    ],
)
def test_a_list_that_lies_is_refused(folder, changed, message):
    with pytest.raises(WeightsError, match=message):
        read(listing(folder, **changed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no list of files of weights: "),
        (b"[" * 10**5, "is no list of files of weights: "),
        (b"\xff", "is no list of files of weights: it is no text in UTF-8"),
        (b"[]", "it has no 'weight_map' with names of files"),
        (b'{"weight_map": {}}', "it has no 'weight_map' with names of files"),
        (b" " * (2**24 + 1), "it has more than 16,777,216 bytes"),
    ],
)
def test_what_is_no_list_is_refused(folder, content, message):
    (folder / LIST).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read(folder / LIST)


def test_too_many_files_are_refused(folder):
    path = listing(folder, **{f"x{i}": f"x{i}.bin" for i in range(1001)})
    with pytest.raises(WeightsError, match="names 1003 files, more than 1,000"):
        read(path)


def test_a_damaged_file_among_them_is_named(folder):
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-1])
    with pytest.raises(WeightsError, match=f"{SECOND} is damaged"):
        read(folder / LIST)


@pytest.mark.parametrize("count", [60, pytest.param(2500, marks=pytest.mark.slow)])
def test_damaged_lists_end_in_a_sentence(folder, count):
    data = (folder / LIST).read_bytes()
    cases = ((f"seed {seed}", mutated(data, seed)) for seed in range(count))
    tally = read_all("list of files", folder / LIST, cases, read, names=str(folder))
    print(tally.row())
    assert tally.counts["sentence"]
