"""Reads the arrays of a file that `torch.save` wrote, without torch and without running anything the file asks for.

Such a file holds a pickle, which may name any function of any package to be called while it is read. Here a pickle may
build dictionaries, lists, tuples, text, numbers and tensors; anything else is refused, and the error names it. Both
layouts of torch are read: the zip archive (since torch 1.6) and the sequence of pickles before it.
"""

import math
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np

from jaxseg.errors import WeightsError, printable
from jaxseg.pretrained.archives import damaged, opened, require_bounded

# Bytes at the start of the sequence of pickles: protocol 2, then the magic number of torch.
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# Storage class -> NumPy type; bfloat16, which NumPy lacks, is read as its 16 bits.
_KINDS = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_LONGEST = 2**24  # bytes of a pickle; it lists the tensors, whose numbers lie elsewhere
_WHOLE = 2**63  # above the numbers of torch, which have 64 bits
_AXES = 64  # as many as NumPy has
_ByteOrder: TypeAlias = Literal["<", ">"]


class Storage(NamedTuple):
    """A block of numbers in the file: its storage class, its name in the file, and how many numbers it holds."""

    kind: str
    key: str
    numel: int


class Tensor(NamedTuple):
    """A tensor that is not read yet: the place of its first number in a storage, its shape, its strides in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def is_zip_of_torch(file: BinaryIO) -> bool:
    """Returns whether the zip archive was written by torch."""
    with opened(file) as archive:
        return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())


def read_torch(path: Path, select: Callable[[Any], Mapping[str, Tensor]]) -> dict[str, np.ndarray]:
    """Returns {name: array} of the tensors that `select` takes from the content of the file; no others are read.

    Args:
        path: a file for which `is_zip_of_torch` holds, or that begins with LEGACY_MAGIC.
        select: returns the named tensors of the unpickled object, in which a `Tensor` stands for each tensor.

    Raises:
        WeightsError: if the file asks to run anything, is damaged, or holds numbers of a type that NumPy lacks.
    """
    try:
        with path.open("rb") as file:
            read = _read_zip if file.read(2) == b"PK" else _read_legacy
            file.seek(0)
            return read(file, select)
    except WeightsError as error:
        raise WeightsError(f"{path}: {str(error).removesuffix('.')}.") from error
    except OSError:
        raise
    except Exception as error:  # a forged pickle raises what it likes, and zipfile many classes
        raise damaged(path, "a file of torch", error) from error


def _read_zip(file: BinaryIO, select: Callable[[Any], Mapping[str, Tensor]]) -> dict[str, np.ndarray]:
    with opened(file) as archive:
        root = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")[: -len("data.pkl")]
        with archive.open(f"{root}data.pkl") as pickled:
            wanted = select(_Unpickler(pickled).load())
        big = root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") == b"big"
        order: _ByteOrder = ">" if big else "<"

        def numbers(storage: Storage) -> np.ndarray:
            return np.frombuffer(archive.read(f"{root}data/{storage.key}"), _dtype(storage, order))

        return _arrays(wanted, numbers, file)


def _read_legacy(file: BinaryIO, select: Callable[[Any], Mapping[str, Tensor]]) -> dict[str, np.ndarray]:
    # The magic number, the version, and properties of the machine that wrote the file.
    _, _, system = (_Unpickler(file).load() for _ in range(3))
    order: _ByteOrder = "<" if system["little_endian"] else ">"
    unpickler = _Unpickler(file)
    wanted = select(unpickler.load())
    places = {}
    for key in _Unpickler(file).load():  # each storage is its length and its numbers
        storage = unpickler.storages[key]
        length = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        if length != storage.numel:
            raise WeightsError(
                f"the storage {_short(key)} has {length} numbers, but the file announces {storage.numel}"
            )
        places[key] = file.tell()
        file.seek(length * _dtype(storage, order).itemsize, 1)

    def numbers(storage: Storage) -> np.ndarray:
        file.seek(places[storage.key])
        dtype = _dtype(storage, order)
        return np.frombuffer(file.read(storage.numel * dtype.itemsize), dtype)

    return _arrays(wanted, numbers, file)


def _dtype(storage: Storage, order: _ByteOrder) -> np.dtype:
    if storage.kind not in _KINDS:
        raise WeightsError(f"numbers of torch.{printable(storage.kind[:100])} cannot be read")
    return np.dtype(_KINDS[storage.kind]).newbyteorder(order)


def _arrays(
    wanted: Mapping[str, Tensor], numbers: Callable[[Storage], np.ndarray], file: BinaryIO
) -> dict[str, np.ndarray]:
    """Returns each tensor as an array; consecutive tensors of one storage read it once."""
    for name, tensor in wanted.items():
        if len(tensor.shape) > _AXES:
            raise WeightsError(f"the tensor {_short(name)} has more than {_AXES} axes; the file is damaged")
    require_bounded(sum(8 * max(0, math.prod(tensor.shape)) for tensor in wanted.values()), file)
    result: dict[str, np.ndarray] = {}
    last: tuple[Storage, np.ndarray] | None = None
    for name, tensor in wanted.items():
        if last is None or last[0] != tensor.storage:
            last = (tensor.storage, numbers(tensor.storage))
        result[name] = _view(name, tensor, last[1])
    return result


def _view(name: str, tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    """Returns a copy of a tensor as an array, after checking that all of it lies within its storage."""
    shape, strides, count = tensor.shape, tensor.strides, math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    fits = min((tensor.offset, *strides, *shape)) >= 0 and (count == 0 or last < len(numbers) >= count)
    if not fits:
        raise WeightsError(
            f"the tensor {_short(name)} of shape {shape} does not lie within its storage; the file is damaged"
        )
    if count == 0:
        array = np.zeros(shape, numbers.dtype)
    else:
        item = numbers.itemsize
        array = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, [s * item for s in strides])
    if tensor.storage.kind == "BFloat16Storage":
        return bfloat16(array)
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def bfloat16(bits: np.ndarray) -> np.ndarray:
    """u16, the bits of bfloat16 -> the same numbers in f32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _short(name: Any) -> str:
    """Returns the start of a name in the file, for a message."""
    return repr(printable(str(name)[:100]))


class _Call:
    """Stands for a function of torch in a pickle; has no attributes that a pickle could change."""

    __slots__ = ()


class _RebuildTensor(_Call):
    __slots__ = ()

    def __call__(self, storage: Any, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
        if not isinstance(storage, Storage):
            raise WeightsError("a tensor names no storage; the file is damaged")
        if not all(type(number) is int for number in (offset, *shape, *strides)):
            raise WeightsError("the place of a tensor is not given in whole numbers; the file is damaged")
        if not all(-_WHOLE <= number < _WHOLE for number in (offset, *shape, *strides)):  # a product would take long
            raise WeightsError("the place of a tensor is given in numbers of more than 64 bits; the file is damaged")
        return Tensor(storage, offset, tuple(shape), tuple(strides))


class _OrderedDict(_Call):
    __slots__ = ()

    def __call__(self, pairs: Any = ()) -> OrderedDict[Any, Any]:
        made: OrderedDict[Any, Any] = OrderedDict()
        for key, value in pairs:
            made[_key(key)] = value
        return made


class _RebuildParameter(_Call):
    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _OrderedDict(),
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
}


def _container(target: Any) -> Any:
    if not isinstance(target, dict):
        raise WeightsError("something other than a dictionary gets keys; the file is damaged")
    return target


def _key(key: Any) -> Any:
    """Returns the key of a dictionary; refuses tuples, which can take for ever to hash where they hold each other."""
    if not (key is None or type(key) in (str, int, float, bool, bytes)):
        raise WeightsError(f"a dictionary has a key of type {type(key).__name__}, where the name of a tensor belongs")
    return key


class _Bounded:
    """The part of a file that a pickle may take."""

    def __init__(self, file: Any):
        self._file, self._left = file, _LONGEST

    def read(self, count: int) -> bytes:
        return self._counted(self._file.read(min(count, self._left + 1)))

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._left + 1))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise WeightsError(f"the pickle that lists the tensors has more than {_LONGEST:,} bytes")
        return data


_IN_PYTHON: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


class _Unpickler(_IN_PYTHON):
    """Builds plain containers and tensors; `storages` maps keys to the storages that the pickle names.

    It derives from the unpickler in Python, whose memory is that of the pickle. The one in C gives a few bytes of a
    forged pickle any number of empty places to remember objects in.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(_IN_PYTHON.dispatch)

    def __init__(self, file: Any):
        super().__init__(_Bounded(file), encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _container(self.stack[-1])[_key(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        container = _container(self.stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            container[_key(key)] = value

    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    for _code in (
        *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),  # sets hash what they hold
        *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),  # take as much memory as the file says
    ):
        del dispatch[_code[0]]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return ("storage", name)  # text, which cannot be called or changed
        asked = printable(f"{module}.{name}"[:120])
        raise WeightsError(
            f"the file wants to run {asked}, which weights do not need, so it is refused. If you trust the "
            "file, open it where torch is installed and save the state_dict alone: "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pth')"
        )

    def persistent_load(self, pid: Any) -> Storage:
        _, (_, kind), key, _, numel, *view = pid
        if not (type(kind) is str and type(key) in (str, int) and type(numel) is int):
            raise WeightsError("a storage has no name or no number of entries; the file is damaged")
        if any(v is not None for v in view):
            raise WeightsError(
                "the file holds views of storages, as torch before 0.4 wrote them; save it again with a newer torch"
            )
        storage = Storage(sys.intern(kind), str(key), numel)
        self.storages[storage.key] = storage
        return storage
