"""A state as named arrays on the host: copies, descriptions with checksums, and comparison with a model's state."""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxseg.errors import some
from jaxseg.files import parse_json
from jaxseg.state import by_path
from jaxseg.types import PyTree


def named(tree: PyTree) -> dict[str, Any]:
    """Returns {path: leaf} in the order of the leaves, with paths such as "opt_state/0/mu/stem/kernel"."""
    paths = by_path(tree)
    if len(paths) != len(jax.tree.leaves(tree)) or not paths:
        raise ValueError("A state must have at least one array, and every array a path of its own.")
    return paths


def host_arrays(state: PyTree) -> dict[str, np.ndarray]:
    """Returns {path: copy on the host}; the copies share no memory with the state, as `np.asarray` does on CPUs."""
    leaves = named(state)
    for name, leaf in leaves.items():
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if not leaf.is_fully_replicated:
                raise ValueError(f"The array {name} is split over processes; gather it before saving.")
            leaves[name] = leaf.addressable_data(0)
    for leaf in leaves.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return {name: np.array(leaf, copy=True, order="C") for name, leaf in leaves.items()}


def shape_and_type(leaf: Any) -> tuple[tuple[int, ...], str]:
    """Returns shape and type of an array or `jax.ShapeDtypeStruct`."""
    shape = leaf.shape if hasattr(leaf, "shape") else np.shape(leaf)
    return tuple(shape), str(leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype)


def describe(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Returns shape, type and CRC-32 of each array; uses threads, since zlib releases the interpreter lock."""

    def one(array: np.ndarray) -> dict[str, Any]:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return {"shape": list(array.shape), "dtype": str(array.dtype), "crc32": zlib.crc32(data.data)}

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(arrays, pool.map(one, arrays.values())))


def require_described(tree: Any, described: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Raises ValueError if a tree of what Orbax says about arrays has one that is not as described."""
    for name, leaf in named(tree).items():
        if name not in described or shape_and_type(leaf) != described[name]:
            raise ValueError(f"the array {name} is not what the description says")


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the arrays as nested dictionaries, which any program can read with Orbax."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree


def flat(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns {path: array}, the inverse of `nested`."""
    return {name: np.asarray(leaf) for name, leaf in named(tree).items()}


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """Returns JSON values together with their digest."""
    return {"sha256": _digest(content), "content": content}


def unseal(sealed: dict[str, Any]) -> dict[str, Any]:
    """Returns the content, the inverse of `seal`; raises ValueError if it does not match the digest, or its form."""
    if _digest(sealed["content"]) != sealed["sha256"]:
        raise ValueError("its content does not match its digest")
    _require_form(sealed["content"])
    return sealed["content"]


def _require_form(content: Any) -> None:
    """Raises ValueError if the content is not what a checkpoint says about itself."""
    whole = isinstance(content, dict) and {"step", "metrics", "iterators", "arrays"} <= content.keys()
    if not whole or not isinstance(content["arrays"], dict) or not isinstance(content["iterators"], list):
        raise ValueError("it is not the description of a checkpoint")
    if not content["iterators"]:
        raise ValueError("it holds the data iterator of no process")
    metrics = content["metrics"] or {}
    if not isinstance(metrics, dict) or not all(isinstance(value, int | float) for value in metrics.values()):
        raise ValueError("its metrics are no numbers")
    for name, entry in content["arrays"].items():
        if not (isinstance(entry, dict) and entry.keys() == {"shape", "dtype", "crc32"}):
            raise ValueError(f"it does not describe the array {name[:100]!r}")
        shape = entry["shape"]
        if not (isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)):
            raise ValueError(f"the array {name[:100]!r} has the shape {str(shape)[:100]}")
    for text in content["iterators"]:
        decode(text)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def encode(iterator_state: Any) -> str:
    """Returns bytes or JSON values as text."""
    if isinstance(iterator_state, bytes):
        return "b" + base64.b64encode(iterator_state).decode()
    return "j" + json.dumps(iterator_state)


def decode(text: str) -> Any:
    """Returns bytes or JSON values, the inverse of `encode`; raises ValueError for other text."""
    if not isinstance(text, str) or text[:1] not in ("b", "j"):
        raise ValueError("it is neither bytes nor JSON")
    return base64.b64decode(text[1:]) if text[0] == "b" else parse_json(text[1:], finite=False)


def all_processes(text: str) -> list[str]:
    """Returns the texts of all processes, in the order of the processes; all of them must call this function."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.array([data.size], np.int32))).reshape(-1)
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: data.size] = data
    gathered = np.asarray(multihost_utils.process_allgather(padded)).reshape(lengths.size, -1)
    return [row[:length].tobytes().decode() for row, length in zip(gathered, lengths)]


def mismatch(path: Path, wanted: dict[str, Any], stored: dict[str, Any]) -> str:
    """Returns the message that lists the differences between a checkpoint's arrays and the configured model's."""
    both = [name for name in wanted if name in stored and wanted[name] != stored[name]]
    changed = [f"{n} is {_show(stored[n])} there and {_show(wanted[n])} here" for n in both]
    kinds = {
        "missing from it": [name for name in wanted if name not in stored],
        "unexpected in it": [name for name in stored if name not in wanted],
        "of another shape or type": changed,
    }
    parts = [f"{len(names)} {kind}: {some(names, 4)}" for kind, names in kinds.items() if names]
    return (
        f"The checkpoint {path} belongs to another model or optimiser than this configuration ({'; '.join(parts)}); "
        "use the configuration that wrote it, or another --workdir."
    )


def _show(array: tuple[tuple[int, ...], str]) -> str:
    shape, dtype = array
    return f"{dtype}[{','.join(map(str, shape))}]"
