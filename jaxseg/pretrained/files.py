"""Reads a file of weights into named NumPy arrays: safetensors, NumPy's npz, torch's pth, pt and bin, or several files.

Nothing in the file is ever run, and torch is not needed. The weights are found inside the dictionaries that wrap them
(`{"state_dict": ..., "epoch": 3}`), and the prefix that data-parallel training adds to their names is removed.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg.arguments import expanded, located
from jaxseg.errors import WeightsError, counted, first_line, printable, some
from jaxseg.pretrained import shards
from jaxseg.pretrained.archives import damaged, opened
from jaxseg.pretrained.torch_file import LEGACY_MAGIC, Tensor, bfloat16, is_zip_of_torch, read_torch

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt")
_KINDS_OF_FILE = {
    ".safetensors": "a file of safetensors",
    ".npz": "arrays of NumPy",
    ".pth": "a file of torch",
    ".pt": "a file of torch",
}
# Names under which checkpoints keep the weights, in the order of the search.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "weights", "net", "network")
# The prefix that data-parallel training puts before each name.
_LONGEST_NAME = 1000  # letters of the name of an array; those of networks have fewer than 200
_PREFIX = "module."
_AVERAGED = "n_averaged"  # what torch.optim.swa_utils.AveragedModel keeps beside the weights
_COMPILED = "_orig_mod"  # the part of a name that torch.compile adds, at any depth
# Type in a safetensors file -> NumPy type; bfloat16, which NumPy lacks, is read as its 16 bits.
_SAFETENSORS = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "u2",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "?",
}


class WeightsFile(NamedTuple):
    """What a file holds.

    Attributes:
        arrays: {name: array}; 16-bit floats as f32.
        notes: what was unwrapped or left out while reading, a few words each.
        sha256: of the file; of weights in several files that of the lines which `sha256sum` prints for them.
    """

    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...]
    sha256: str


def read(path: str | Path) -> WeightsFile:
    """Reads a file of weights. Its content decides the format, not its name; a list of files ends in .index.json.

    Raises:
        WeightsError: if the file does not exist, has no known format, is damaged, or asks to run anything.
    """
    path = expanded(path)
    require_file(path)
    notes: list[str] = []
    try:
        arrays, sha256 = _shards(path, notes) if path.name.endswith(shards.SUFFIX) else _single_file(path, notes)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not arrays:
        raise WeightsError(f"{path} holds no arrays.")
    longest = max(arrays, key=len)
    if len(longest) > _LONGEST_NAME:
        raise WeightsError(
            f"{path} holds an array whose name has {counted(len(longest), 'letter')}, more than {_LONGEST_NAME:,}, "
            f"and begins with {longest[:100]!r}."
        )
    counters = [name for name in arrays if name.rpartition(".")[2] == _AVERAGED]
    if counters and len(counters) < len(arrays):
        arrays = {name: array for name, array in arrays.items() if name not in counters}
        notes.append(f"left out {_AVERAGED!r}, the number of networks that torch's AveragedModel is the mean of")
    inner = {".".join(part for part in name.split(".") if part != _COMPILED): x for name, x in arrays.items()}
    if len(inner) == len(arrays) and inner.keys() != arrays.keys():
        arrays = inner
        notes.append(f"took {_COMPILED!r} of torch.compile out of the names")
    while all(name.startswith(_PREFIX) for name in arrays):
        arrays = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
        notes.append(f"took the prefix {_PREFIX!r} off every name")
    return WeightsFile({name: _single(array) for name, array in arrays.items()}, tuple(notes), sha256)


def require_file(path: Path) -> None:
    """Raises WeightsError if there is no file."""
    if path.is_dir():
        raise WeightsError(
            f"The folder {located(path)} holds no file of weights under a name of the Hub; give the file."
        )
    if not path.is_file():
        raise WeightsError(f"There is no file of weights {located(path)}.")


def _single_file(path: Path, notes: list[str]) -> tuple[dict[str, np.ndarray], str]:
    """Returns the arrays of a file, and its SHA-256."""
    return _reader(path)(path, notes), file_sha256(path)


def _shards(path: Path, notes: list[str]) -> tuple[dict[str, np.ndarray], str]:
    """Returns the arrays of all files of a list, and the SHA-256 of what `sha256sum` prints for them in its order."""
    found = shards.listed(path)
    shards.require_all(path, found)
    arrays: dict[str, np.ndarray] = {}
    digests = hashlib.sha256()
    for name, names in found.items():
        inside: list[str] = []
        part, digest = _single_file(path.parent / name, inside)
        shards.require_as_listed(path, name, names, part)
        arrays |= part
        notes += [note for note in inside if note not in notes]
        digests.update(f"{digest}  {name}\n".encode())
    notes.append(f"read {counted(len(found), 'file')} that {path.name} lists")
    return arrays, digests.hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _reader(path: Path) -> Callable[[Path, list[str]], dict[str, np.ndarray]]:
    with path.open("rb") as file:
        start = file.read(len(LEGACY_MAGIC))
        if start.startswith(b"PK"):
            try:
                return _read_torch if is_zip_of_torch(file) else _read_npz
            except WeightsError as error:
                raise WeightsError(f"{path}: {error}.") from error
            except Exception as error:  # zipfile raises many classes for an archive that is cut off or forged
                raise damaged(path, "a zip archive of arrays", error) from error
    if start == LEGACY_MAGIC:
        return _read_torch
    if start[8:9] == b"{":
        return read_safetensors
    if start.startswith(b"version https:"):
        raise WeightsError(f"{path} is a git-lfs pointer, not the weights: fetch them with `git lfs pull`.")
    if path.suffix in _KINDS_OF_FILE:
        raise WeightsError(f"{path} is damaged, or not {_KINDS_OF_FILE[path.suffix]} as its ending says.")
    raise WeightsError(
        f"{path} is not a file of weights in a known format: .safetensors, .npz, or .pth, .pt and .bin of torch. "
        "Convert another format with its own library, for instance with safetensors.numpy.save_file."
    )


def read_safetensors(path: Path, notes: list[str]) -> dict[str, np.ndarray]:
    """Returns the arrays of a file of safetensors; `notes` stays as it is.

    Raises:
        WeightsError: if it is not one, or damaged.
    """
    import safetensors

    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise damaged(path, "a file of safetensors", error) from error
    arrays = {}
    for name, entry in entries:
        kind = entry["dtype"]
        if kind not in _SAFETENSORS:
            raise WeightsError(f"{path}: the array {name[:100]!r} is of type {kind}, which NumPy does not have.")
        try:
            array = np.frombuffer(entry["data"], np.dtype(_SAFETENSORS[kind]).newbyteorder("<")).reshape(entry["shape"])
        except ValueError as error:  # more axes than NumPy has, or longer ones
            raise damaged(path, f"of an array {name[:100]!r} that NumPy has", error) from error
        arrays[name] = bfloat16(array) if kind == "BF16" else array
    return arrays


def safetensors_of(arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> bytes:
    """Returns the content of a file of safetensors with these arrays, and texts about it in its header."""
    from safetensors.numpy import save

    return save({name: np.asarray(x, order="C") for name, x in arrays.items()}, dict(about))


def _read_npz(path: Path, notes: list[str]) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, opened(file), np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}.") from error
    except Exception as error:  # NumPy and zipfile raise many classes for a file that is cut off or forged
        raise WeightsError(
            f"{path} cannot be read as arrays of NumPy: {printable(first_line(error)[:200])}."
        ) from error
    others = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if others:
        raise WeightsError(f"{path} holds {others[0][:100]!r}, which is not an array of NumPy.")
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind in "biuf"}
    if len(numbers) < len(arrays):
        notes.append(f"left out {some((repr(n[:100]) for n in arrays if n not in numbers), 5)}, which hold no numbers")
    return numbers


def _read_torch(path: Path, notes: list[str]) -> dict[str, np.ndarray]:
    return read_torch(path, lambda tree: unwrap(tree, notes))


def unwrap(tree: Any, notes: list[str]) -> dict[str, Tensor]:
    """Returns the named tensors of a checkpoint, from the dictionary in it that holds the weights.

    Args:
        tree: the unpickled checkpoint.
        notes: receives notes of what was unwrapped and left out.

    Raises:
        WeightsError: if no dictionary of tensors is found.
    """
    if not isinstance(tree, Mapping):
        raise WeightsError(f"it holds a {type(tree).__name__}, not a dictionary of named tensors (a state_dict)")
    for name in _WRAPPERS:  # first, because other tensors, such as a loss, may lie beside the weights
        if name in tree and _holds_tensors(tree[name]):
            notes.append(f"took the weights under {name!r}")
            return unwrap(tree[name], notes)
    tensors = {str(name): x for name, x in tree.items() if isinstance(x, Tensor)}
    if tensors:
        others = [str(name)[:100] for name in tree if str(name) not in tensors]
        if others:
            notes.append(f"left out {some(map(repr, others), 5)}, which are not tensors")
        return tensors
    inside = [str(name) for name in tree if _holds_tensors(tree[name])]
    if len(inside) == 1:
        notes.append(f"took the weights under {inside[0][:100]!r}")
        return unwrap(tree[inside[0]], notes)
    held = some((repr(str(name)[:100]) for name in tree), 5)
    if inside:
        raise WeightsError(
            f"it holds several dictionaries of tensors, {some((repr(n[:100]) for n in inside), 5)}; save the one to "
            f"load in a file of its own, with torch.save(torch.load(FILE)[{inside[0][:100]!r}], NEW_FILE)"
        )
    raise WeightsError(f"no dictionary of named tensors (a state_dict) is in it; it holds {held}")


def _holds_tensors(node: Any, seen: set[int] | None = None) -> bool:
    """Whether a tensor lies in a dictionary at any depth; looks into each once, for they may hold each other."""
    seen = set() if seen is None else seen
    if not isinstance(node, Mapping) or id(node) in seen:
        return False
    seen.add(id(node))
    return any(isinstance(x, Tensor) or _holds_tensors(x, seen) for x in node.values())
