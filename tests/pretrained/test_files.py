"""Files of weights in the formats that others write, read without torch; nothing in them is ever run."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from helpers import oracles

from jaxseg.errors import WeightsError
from jaxseg.pretrained import read

ROOT = Path(__file__).parents[2]


def tensors(torch):
    """A state_dict with each type that is read, views that share storage, strides and empty shapes."""
    base = torch.randn(6, 4)
    return OrderedDict(
        {
            "float": base,
            "transposed": base.t(),
            "tail": base[2:, 1:3],
            "scalar": torch.tensor(3.5),
            "half": torch.randn(3, dtype=torch.float16),
            "bfloat": torch.randn(5, 2).to(torch.bfloat16),
            "bfloat_row": torch.randn(5, 4).to(torch.bfloat16)[::2, 1],
            "double": torch.randn(2, dtype=torch.float64),
            "long": torch.arange(-3, 3),
            "bool": torch.tensor([True, False]),
            "byte": torch.arange(4, dtype=torch.uint8),
            "empty": torch.zeros(0, 3),
            "parameter": torch.nn.Parameter(torch.randn(2, 2)),
            "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        }
    )


def assert_same(torch, arrays, state):
    assert list(arrays) == list(state)
    for name, x in state.items():
        x = x.detach()
        expected = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x).numpy()
        assert arrays[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(arrays[name], expected, err_msg=name)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_torch_files_give_the_arrays_of_torch(tmp_path, new):
    torch = oracles.torch()
    state = tensors(torch)
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    file = read(tmp_path / "x.pth")
    assert_same(torch, file.arrays, state)
    assert file.notes == ()
    assert all(array.flags.writeable and array.flags.c_contiguous for array in file.arrays.values())


def test_a_module_with_its_metadata(tmp_path):
    torch = oracles.torch()
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "x.pt")
    assert_same(torch, read(tmp_path / "x.pt").arrays, module.state_dict())


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state", "mine"])
def test_checkpoints_are_unwrapped_and_say_so(tmp_path, wrapper, new):
    torch = oracles.torch()
    layer = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    state = {f"module.{name}": x for name, x in layer.state_dict().items()}
    checkpoint = {"epoch": 3, wrapper: state, "best": 0.5, "names": ["a", ("b", None)]}
    if wrapper != "mine":
        checkpoint["optimizer"] = optimizer.state_dict()
        checkpoint["ema"] = {"shadow": torch.zeros(3)}
    torch.save(checkpoint, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    file = read(tmp_path / "x.pth")
    assert_same(torch, file.arrays, layer.state_dict())
    assert file.notes == (f"took the weights under {wrapper!r}", "took the prefix 'module.' off every name")


def test_the_mean_of_networks_of_torch(tmp_path):
    torch = oracles.torch()
    layer = torch.nn.Linear(2, 3)
    torch.save(torch.optim.swa_utils.AveragedModel(layer).state_dict(), tmp_path / "x.pth")
    file = read(tmp_path / "x.pth")
    assert_same(torch, file.arrays, layer.state_dict())
    assert file.notes[0].startswith("left out 'n_averaged'")


def test_tensors_beside_the_weights_are_not_taken_for_them(tmp_path):
    torch = oracles.torch()
    torch.save({"loss": torch.tensor(0.5), "state_dict": {"a": torch.ones(2)}}, tmp_path / "x.pth")
    file = read(tmp_path / "x.pth")
    assert list(file.arrays) == ["a"] and file.notes == ("took the weights under 'state_dict'",)


def test_safetensors_and_npz(tmp_path):
    torch = oracles.torch()
    from safetensors.torch import save_file

    state = OrderedDict(sorted((k, v.detach().contiguous().clone()) for k, v in tensors(torch).items()))
    save_file(dict(state), tmp_path / "x.safetensors", metadata={"format": "pt"})
    arrays = read(tmp_path / "x.safetensors").arrays
    assert_same(torch, {name: arrays[name] for name in state}, state)
    assert len(arrays) == len(state)
    np.savez(tmp_path / "x.npz", **{"params/a/kernel": np.ones((2, 3), np.float16), "params/b": np.arange(3)})
    arrays = read(tmp_path / "x.npz").arrays
    assert arrays["params/a/kernel"].dtype == np.float32 and arrays["params/b"].tolist() == [0, 1, 2]


def test_the_content_counts_not_the_name(tmp_path):
    torch = oracles.torch()
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    (tmp_path / "x.npz").rename(tmp_path / "weights")
    for name in ("pytorch_model.bin", "weights"):
        assert read(tmp_path / name).arrays["a"].tolist() == [1, 1]


class Runs:
    """Pickles to a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def zipped(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return path


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), "system"),
        (eval, ("open({!r}, 'w')",), "eval"),
        (subprocess.Popen, (["touch", "{}"],), "Popen"),
        (getattr, ("", "join"), "getattr"),
    ],
)
def test_what_a_file_wants_to_run_is_named_and_not_run(tmp_path, function, arguments, name, new):
    torch = oracles.torch()
    mark = tmp_path / "ran"
    arguments = tuple(
        [part.format(str(mark)) for part in a] if isinstance(a, list) else a.format(str(mark)) for a in arguments
    )
    wicked = {"state_dict": {"a": torch.ones(2)}, "extra": Runs(function, *arguments)}
    torch.save(wicked, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(WeightsError, match=rf"wants to run \w+\.{name}, ") as raised:
        read(tmp_path / "x.pth")
    assert "\n" not in str(raised.value) and not mark.exists()


def test_other_objects_are_refused_by_name(tmp_path):
    torch = oracles.torch()
    torch.save({"state_dict": {"a": torch.ones(2)}, "args": Path("/x")}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"wants to run pathlib\..*save the state_dict alone"):
        read(tmp_path / "x.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match=r"wants to run torch\.nn\.modules\.linear\.Linear"):
        read(tmp_path / "module.pth")


def opcodes(*, offset=0, size=(2,), stride=(1,), kind="FloatStorage", numel=2, state=None):
    """The pickle of {"a": tensor}, with numbers of our choice; `state` is set on the function that makes the tensor."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            return ("storage", Named("torch", kind), "0", "cpu", numel) if obj == "the storage" else None

        def save(self, obj, *args, **kwargs):
            if isinstance(obj, Named):
                self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
            elif isinstance(obj, Built):
                self.save(Named("torch._utils", "_rebuild_tensor_v2"))
                if state is not None:
                    super().save((None, state))
                    self.write(pickle.BUILD)
                super().save(("the storage", offset, size, stride, False, None))
                self.write(pickle.REDUCE)
            else:
                super().save(obj, *args, **kwargs)

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"a": Built()})
    return buffer.getvalue()


class Named:
    def __init__(self, module, name):
        self.module, self.name = module, name


class Built:
    pass


def made_up(path, **changes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", opcodes(**changes))
        archive.writestr("x/data/0", np.array([1, 2], "<f4").tobytes())
    return path


def test_made_up_tensors_stay_within_their_storage(tmp_path):
    assert read(made_up(tmp_path / "x.pth")).arrays["a"].tolist() == [1, 2]
    for changes in (
        {"offset": 1},
        {"offset": -1},
        {"size": (3,)},
        {"stride": (2,)},
        {"stride": (-1,), "offset": 1},
        {"size": (10**9, 10**9), "stride": (0, 0)},
        {"size": (-2,)},
        {"size": (1, 2), "stride": (1,)},
        {"kind": "QInt8Storage"},
        {"kind": "UntypedStorage"},
        {"state": {"__call__": 1}},
    ):
        with pytest.raises(WeightsError, match=str(tmp_path)):
            read(made_up(tmp_path / "x.pth", **changes))


def test_big_endian_files(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", opcodes())
        archive.writestr("x/byteorder", "big")
        archive.writestr("x/data/0", np.array([1, 2], ">f4").tobytes())
    assert read(path).arrays["a"].tolist() == [1, 2]


@pytest.fixture
def said(tmp_path):
    """Returns what `read` says of a file of this name, with this content where given: one sentence that names it."""

    def said(name, content=None):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError) as raised:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value) and "\n" not in str(raised.value)
        return str(raised.value)

    return said


def test_files_that_are_no_weights_are_one_sentence(tmp_path, said):
    torch = oracles.torch()
    assert "no file of weights" in said("missing.pth")
    assert ".safetensors, .npz, or .pth" in said("x.h5", b"\x89HDF\r\n\x1a\n and so on")
    assert "git lfs pull" in said("x.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    assert "damaged, or not a file of safetensors as its ending says" in said(
        "x.safetensors", b"<html>not found</html>"
    )
    assert "damaged, or not arrays of NumPy as its ending says" in said("x.npz", b"<html>not found</html>")
    assert "damaged, or not a file of torch as its ending says" in said("x.pth", b"")
    assert "damaged" in said("y.safetensors", (1000).to_bytes(8, "little") + b"{")
    assert "damaged" in said("x.npz", b"PK\x03\x04 cut off")
    for new in (True, False):
        torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=new)
        content = (tmp_path / "whole.pth").read_bytes()
        for cut in (20, 200, len(content) // 2, len(content) - 5):
            assert "damaged" in said("cut.pth", content[:cut])
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    assert "holds a list, not a dictionary" in said("list.pth")
    torch.save({"epoch": 3, "one": {"a": torch.ones(1)}, "two": {"a": torch.ones(1)}}, tmp_path / "two.pth")
    assert "it holds several dictionaries of tensors, 'one', 'two'; save the one to load in a file" in said("two.pth")
    zipped(tmp_path / "deep.pth", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    said("deep.pth")


def in_zip(compressed=False, **members):
    """A zip archive of these members, as bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_headers(content, offset, value):
    """The archive with 16 bits of every header set to `value`: at `offset` after the signature of a local header."""
    content = bytearray(content)
    for signature, further in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):  # of a member, and of its entry in the list
        at = content.find(signature)
        while at >= 0:
            content[at + offset + further : at + offset + further + 2] = value.to_bytes(2, "little")
            at = content.find(signature, at + 1)
    return bytes(content)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


NPZ = {"a.npy": npy(np.arange(1000.0))}
PTH = {"x/data.pkl": opcodes(), "x/data/0": np.array([1, 2], "<f4").tobytes()}


@pytest.mark.parametrize(("members", "suffix"), [(NPZ, ".npz"), (PTH, ".pth")], ids=["npz", "pth"])
def test_zip_archives_that_cannot_be_read_say_why(said, members, suffix):
    whole = in_zip(**members)
    assert "is encrypted" in said(f"x{suffix}", with_headers(whole, 6, 1))
    assert "compression method" in said(f"x{suffix}", with_headers(whole, 8, 99))
    assert "damaged" in said(f"x{suffix}", whole[:-10])
    for compressed in (False, True):
        content = bytearray(in_zip(compressed, **members))
        at = content.index(next(iter(members)).encode()) + len(next(iter(members))) + 8
        content[at : at + 8] = bytes(8 * [0xFF])
        said(f"x{suffix}", bytes(content))


def test_zip_archives_with_odd_members(tmp_path, said):
    assert "holds no arrays" in said("x.npz", in_zip())
    assert "holds 'README.txt', which is not an array" in said("x.npz", in_zip(**NPZ, **{"README.txt": b"text"}))
    assert "cannot be read as arrays of NumPy" in said("x.npz", in_zip(**{"a.npy": b"\x93NUMPY\x01\x00\x02\x00{}"}))
    objects = said("x.npz", in_zip(**{"a.npy": npy(np.array([{}], object))}))
    assert "cannot be read as arrays of NumPy" in objects and "allow_pickle" in objects
    assert "no item named 'x/data/0'" in said("x.pth", in_zip(**{"x/data.pkl": opcodes()}))
    assert "does not lie within its storage" in said("x.pth", in_zip(**PTH | {"x/data/0": b"\0\0\0\0"}))
    assert "damaged" in said("x.pth", in_zip(**PTH | {"x/data/0": b"\0\0\0"}))
    outside = {f"../../{name}": content for name, content in PTH.items()}  # nothing is unpacked, so no name is a place
    (tmp_path / "x.pth").write_bytes(in_zip(**outside, **{"../../else": b"", "/x": b""}))
    before = sorted(tmp_path.parent.parent.iterdir())
    assert read(tmp_path / "x.pth").arrays["a"].tolist() == [1, 2]
    assert sorted(tmp_path.parent.parent.iterdir()) == before


def in_safetensors(header, data=b"\0" * 8):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def test_safetensors_with_a_broken_header(said):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    for header in (
        b"{",
        b"{not json}",
        b'{"a": 1}',
        b"{}" + b"\xff",
        {"a": {}},
        {"a": entry | {"dtype": "F33"}},
        {"a": entry | {"shape": [3]}},
        {"a": entry | {"shape": [-2]}},
        {"a": entry | {"data_offsets": [0, 80]}},
        {"a": entry | {"data_offsets": [8, 0]}},
        {"a": entry, "b": entry},
    ):
        assert "damaged" in said("x.safetensors", in_safetensors(header))
    assert "damaged" in said("x.safetensors", in_safetensors({"a": entry}, b"\0" * 7))
    assert "damaged" in said("x.safetensors", (2**63).to_bytes(8, "little") + b"{}")
    eighth = {"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}
    assert "'a' is of type F8_E4M3, which NumPy does not have" in said("x.safetensors", in_safetensors(eighth))


def test_torch_is_not_imported(tmp_path):
    torch = oracles.torch()
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pth")
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom jaxseg import pretrained\n"
        f"print(pretrained.read({str(tmp_path / 'x.pth')!r}).arrays['a'].tolist())"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[1.0, 1.0]"
