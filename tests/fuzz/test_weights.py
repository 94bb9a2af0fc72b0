"""Files of weights that are damaged, lie about lengths, or were made to fill the memory or to run something."""

import io
import pickle
import random
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.fuzzing import attempt, read_all
from helpers.mutations import mutated

from jaxseg.errors import WeightsError
from jaxseg.pretrained import archives
from jaxseg.pretrained import torch_file as torch_file_reader
from jaxseg.pretrained.files import read

RNG = np.random.default_rng(0)
ARRAYS = {
    "stem.kernel": RNG.normal(size=(3, 3, 3, 4)).astype(np.float32),
    "stem.bias": np.zeros(4, np.float32),
    "steps": np.arange(10),
    "half": RNG.normal(size=5).astype(np.float16),
}


def npz(compressed: bool) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **ARRAYS)
    return file.getvalue()


def torch_pickle(keys: list[str], *, entries: int = 10**4, shape: tuple[int, ...] = (2, 3)) -> bytes:
    """The pickle of a state_dict whose tensors all lie in the storage "0", as torch writes it, by hand."""

    def text(word: str) -> bytes:
        return b"X" + len(word).to_bytes(4, "little") + word.encode()

    def tuple_of(*parts: bytes) -> bytes:
        return b"(" + b"".join(parts) + b"t"

    def number(value: int) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    storage = tuple_of(text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), number(entries)) + b"Q"
    strides = [1] * len(shape) if max(shape) > 2**60 else [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    place = number(0) + tuple_of(*map(number, shape)) + tuple_of(*map(number, strides))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + tuple_of(
        storage, place, b"\x89", b"ccollections\nOrderedDict\n)R"
    )
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + b"".join(text(key) + tensor + b"R" for key in keys) + b"u."


def zipped(members: dict[str, bytes], *, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def torch_file(pickled: bytes, storage: bytes = bytes(40_000), *, compressed: bool = False) -> bytes:
    return zipped({"x/data.pkl": pickled, "x/byteorder": b"little", "x/data/0": storage}, compressed=compressed)


def seeds() -> dict[str, bytes]:
    from safetensors.numpy import save

    small = torch_file(torch_pickle(["stem.weight", "stem.bias"], entries=6), bytes(24))
    return {"w.safetensors": save(ARRAYS), "w.npz": npz(False), "compressed.npz": npz(True), "w.pth": small}


def rezipped(archive: bytes, seed: int) -> bytes:
    """Damages one member of an archive, whose check sum is right again, so that the member is read."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    chosen = random.Random(seed).choice(list(members))
    if "x/data.pkl" in members and seed % 3:
        chosen = "x/data.pkl"
    return zipped({**members, chosen: mutated(members[chosen], seed)})


def cases(data: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    for seed in range(count):
        inside = data.startswith(b"PK") and seed % 2
        yield f"seed {seed}", rezipped(data, seed) if inside else mutated(data, seed)


@pytest.mark.parametrize("count", [40, pytest.param(2500, marks=pytest.mark.slow)])
def test_damaged_files_of_weights_end_in_a_sentence(tmp_path: Path, count: int) -> None:
    for name, data in seeds().items():
        tally = read_all(f"weights {name}", tmp_path / name, cases(data, count), read)
        print(tally.row())
        assert tally.counts["result"] and tally.counts["sentence"]


@pytest.mark.parametrize("count", [20, pytest.param(2500, marks=pytest.mark.slow)])
def test_damaged_files_of_torch_itself_end_in_a_sentence(tmp_path: Path, count: int) -> None:
    torch = pytest.importorskip("torch")
    state = OrderedDict((name, torch.tensor(array)) for name, array in ARRAYS.items())
    for zipped_form in (True, False):
        file = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 3}, file, _use_new_zipfile_serialization=zipped_form)
        name = "torch.pth" if zipped_form else "legacy.pth"
        print(read_all(f"weights {name}", tmp_path / name, cases(file.getvalue(), count), read).row())


def refused(path: Path, data: bytes, *, megabytes: float = 60) -> str:
    """The sentence about a file, read in bounded memory and time."""
    path.write_bytes(data)
    outcome = attempt(lambda: read(path), path.name, names=path.name, megabytes=megabytes)
    assert outcome.sentence
    return outcome.sentence


@pytest.mark.parametrize("free", [2**22, pytest.param(archives.FREE, marks=pytest.mark.slow)])
def test_archives_that_unpack_to_much_are_refused(tmp_path: Path, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE", free)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (free // 2,)})
    bomb = zipped({"a.npy": header.getvalue() + bytes(2 * free)}, compressed=True)
    assert len(bomb) < free // 400
    assert f"unpack to {2 * free + 128:,}" in refused(tmp_path / "bomb.npz", bomb)
    # A member that says that it is short gives no more than it says.
    lying = bomb.replace((2 * free + 128).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lying != bomb
    refused(tmp_path / "lying.npz", lying)
    # A header that announces an array of 4 TB, of which the file holds nothing.
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    assert "cannot be read as arrays" in refused(tmp_path / "huge.npz", zipped({"a.npy": huge.getvalue()}))
    stored = torch_file(torch_pickle(["a"]), bytes(2 * free), compressed=True)
    found = re.search(r"unpack to ([\d,]+),", refused(tmp_path / "bomb.pth", stored))
    assert found and 0 < int(found[1].replace(",", "")) - 2 * free < 1000  # and the pickle


def test_many_tensors_of_one_storage_are_counted(tmp_path: Path) -> None:
    entries = 10**6
    keys = [f"layer{i}" for i in range(400)]  # of 4 MB each
    content = torch_file(torch_pickle(keys, entries=entries, shape=(entries,)), bytes(4 * entries))
    assert "each once" in refused(tmp_path / "shared.pth", content)
    axes = torch_file(torch_pickle(["a"], shape=(1,) * 100))
    assert "has more than 64 axes" in refused(tmp_path / "axes.pth", axes)
    few = torch_file(torch_pickle(["a", "b"]))  # two names of one tensor, as tied weights have
    (tmp_path / "tied.pth").write_bytes(few)
    assert set(read(tmp_path / "tied.pth").arrays) == {"a", "b"}


def test_numbers_and_names_of_a_tensor_are_no_longer_than_those_of_torch(tmp_path: Path) -> None:
    """A product of numbers of 50 kB takes minutes, and a sentence with a name of 1 MB fills the screen."""
    shape = (1 << 400_000,) * 60
    assert "more than 64 bits" in refused(tmp_path / "x.pth", torch_file(torch_pickle(["a"], shape=shape)))
    for tensor in ((1,) * 100, (30_000,)):
        sentence = refused(tmp_path / "x.pth", torch_file(torch_pickle(["a" * 2**20], shape=tensor)))
        assert "a" * 100 in sentence and len(sentence) < 1000
    whole = torch_file(torch_pickle(["module." * 2**17]))  # whose prefixes would take minutes to take off
    sentence = refused(tmp_path / "x.pth", whole)
    assert "name has 917504 letters, more than 1,000" in sentence and len(sentence) < 1000


def nested(levels: int, opening: bytes, both: bytes) -> bytes:
    """A pickle of containers that each hold the one before twice."""
    pickled = b"\x80\x02" + opening + b"q\x00"
    for level in range(levels):
        pickled += both.replace(b"?", b"h" + bytes([level])) + b"q" + bytes([level + 1])
    return pickled


def test_pickles_that_grow_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(pickled: bytes) -> str:
        return refused(tmp_path / "x.pth", torch_file(pickled))

    dictionaries = nested(100, b"}", b"}(X\x01\0\0\0a?X\x01\0\0\0b?u")  # 2**100 paths
    assert "no dictionary of named tensors" in said(dictionaries + b".")
    # Hashing it takes as long, and its text would be as long.
    key = nested(100, b"(t", b"??\x86")  # which 100 stands for
    assert "a key of type tuple" in said(key + b"}h\x64K\x01s.")
    assert "a key of type tuple" in said(key + b"(h\x64K\x01d.")
    assert "a key of type tuple" in said(key + b"ccollections\nOrderedDict\n]h\x64K\x01\x86a\x85R.")
    assert "damaged" in said(key + b"\x8f(h\x64\x90.")  # a set
    # An unpickler in C would make room for four thousand million objects to remember.
    assert "it holds a NoneType" in said(b"\x80\x02Nr\xff\xff\xff\xff.")
    assert "damaged" in said(b"\x80\x02X\xff\xff\xff\x7f")  # a text of 2 GB, of which there is nothing
    assert "damaged" in said(b"\x80\x04\x96" + (2**40).to_bytes(8, "little"))  # a bytearray of 1 TB
    assert "damaged" in said(b"\x80\x05\x96" + (2**28).to_bytes(8, "little") + b".")  # and one that memory holds
    for code in (b"\x97", b"\x98"):  # buffers outside the file
        assert "damaged" in said(b"\x80\x05" + code + b".")
    monkeypatch.setattr(torch_file_reader, "_LONGEST", 2**16)
    assert "more than 65,536 bytes" in said(b"\x80\x02" + b"N0" * 2**16 + b"N.")
    circle = b"\x80\x02}q\x00X\x01\0\0\0ah\x00s."  # a dictionary that holds itself
    assert "no dictionary of named tensors" in said(circle)


class _Asks:
    def __init__(self, function, *arguments):
        self._asked = function, arguments

    def __reduce__(self):
        return self._asked


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_that_a_pickle_names_is_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "was-here"
    import os
    import subprocess

    for function, arguments in (
        (os.system, (f"touch {mark}",)),
        (subprocess.call, (["touch", str(mark)],)),
        (eval, (f"open({str(mark)!r}, 'w')",)),
        (getattr, (mark, "touch")),
        (open, (str(mark), "w")),
    ):
        pickled = pickle.dumps({"a": _Asks(function, *arguments)}, protocol)
        assert "wants to run" in refused(tmp_path / "x.pth", torch_file(pickled))
    assert not mark.exists()
    for asked in (b"cjaxseg.pretrained.files\nread\n", b"ctorch.storage\nUntypedStorage\n", b"cposix\nsystem\n"):
        call = b"\x80\x02" + asked + b"X\x04\0\0\0true\x85R."
        assert refused(tmp_path / "x.pth", torch_file(call))
    # Attributes and methods of what a pickle may build stay as they are.
    build = b"\x80\x02ccollections\nOrderedDict\n}X\x08\0\0\0__call__K\x01sb."
    assert refused(tmp_path / "x.pth", torch_file(build))


def test_arrays_that_hold_no_numbers_are_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.zeros(2), by=np.array("somebody"), when=np.array("2020-01-01", "datetime64[D]"))
    found = read(tmp_path / "w.npz")
    assert list(found.arrays) == ["a"] and "'by', 'when'" in found.notes[0]
    np.savez(tmp_path / "w.npz", by=np.array("somebody"))
    with pytest.raises(WeightsError, match="holds no arrays"):
        read(tmp_path / "w.npz")
