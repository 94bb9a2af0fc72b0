"""Weights in several files (shards), and the JSON file that lists which array lies in which of them.

transformers and huggingface_hub write `model.safetensors.index.json` beside `model-00001-of-00002.safetensors`, ...:
{"metadata": {...}, "weight_map": {name of an array: name of its file}}.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg.errors import WeightsError, counted, first_line, some
from jaxseg.files import read_json

SUFFIX = ".index.json"
_LONGEST = 2**24  # bytes of a list; that of a network of 10,000 arrays has less than 2 MB
_MOST = 1000  # files
_NAME = re.compile(r"\w[\w.-]{0,199}\.(?:safetensors|bin|pth|pt)", re.ASCII)  # no folder before it


def listed(path: Path) -> dict[str, list[str]]:
    """Returns {name of a file: names of the arrays in it}, as the list says.

    Raises:
        WeightsError: if the file is no such list, or names a file elsewhere, of another kind or too many of them.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError(f"it has more than {_LONGEST:,} bytes")
        content: Any = read_json(path, finite=False)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise WeightsError(f"{path} is no list of files of weights: {first_line(error)[:200]}.") from None
    found = content["weight_map"] if isinstance(content, dict) and "weight_map" in content else None
    if not isinstance(found, dict) or not found:
        raise WeightsError(f"{path} is no list of files of weights: it has no 'weight_map' with names of files.")
    files: dict[str, list[str]] = {}
    for name, file in found.items():
        if not isinstance(file, str) or not _NAME.fullmatch(file):
            raise WeightsError(
                f"{path} says that the array {name[:100]!r} is in {str(file)[:100]!r}, which is no file of weights "
                "beside it."
            )
        files.setdefault(file, []).append(name)
    if len(files) > _MOST:
        raise WeightsError(f"{path} names {counted(len(files), 'file')}, more than {_MOST:,}.")
    return files


def require_all(path: Path, files: Mapping[str, list[str]]) -> None:
    """Raises WeightsError if a file that the list `path` names is not beside it."""
    missing = [name for name in files if not (path.parent / name).is_file()]
    if missing:
        raise WeightsError(
            f"{path} says that the weights are in {counted(len(files), 'file')}, of which "
            f"{some(missing)} {'is' if len(missing) == 1 else 'are'} not beside it."
        )


def require_as_listed(path: Path, file: str, names: list[str], arrays: Mapping[str, Any]) -> None:
    """Raises WeightsError unless the arrays of one of the files are those that the list `path` says are in it."""
    wanted = set(names)
    for what, odd in (
        ("lacks", [n for n in names if n not in arrays]),
        ("has", [n for n in arrays if n not in wanted]),
    ):
        if odd:
            other = "which is in it" if what == "lacks" else "which is not"
            raise WeightsError(
                f"{path.parent / file} {what} {counted(len(odd), 'array')} {other} by the list {path.name}: "
                f"{some((n[:100] for n in odd), 5)}."
            )
