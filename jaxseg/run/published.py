"""A published network: a folder, or a repository of the Hugging Face Hub, that is used like the workdir of a run.

It has the config.json and data.json of a workdir, `published.json` in place of run.json, and `model.safetensors` in
place of checkpoints. Strangers may have made it: nothing in it is run, and no file is read beyond the size that such a
file can have.
"""

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxseg.arguments import expanded
from jaxseg.build import Parts
from jaxseg.errors import CheckpointError, ConfigError, WeightsError, first_line, printable
from jaxseg.files import read_json, write_atomically
from jaxseg.pretrained import files, flatten, hub, merge, sources
from jaxseg.pretrained.family import Published
from jaxseg.run.quantised import shapes_of_network
from jaxseg.run.workdir import CONFIG_FILE, INFO_FILE
from jaxseg.state import TrainState

RECORD_FILE = "published.json"
WEIGHTS_FILE = "model.safetensors"
FITTED_FILES = ("temperature.json", "thresholds.json")  # what was fitted on a split, and may lie beside
FORMAT = 1
HUB = "hf://"
MOST_JSON = 2**24
"""Bytes of a JSON file of a published network; 65,535 classes with names and colours take a tenth of it."""
MOST_HEADER = 2**24
"""Bytes that a file of weights may have beside the numbers of the network: the names and shapes of its arrays."""
_CACHE = "~/.cache/jaxseg/published"


class Place(NamedTuple):
    """Where a trained network is.

    Attributes:
        folder: the workdir, or a folder with the published files but for the weights.
        repository: of the Hub, at one commit, from which the weights are still to be fetched; None for a folder.
    """

    folder: Path
    repository: Published | None = None


class Record(NamedTuple):
    """What published.json says about the weights.

    Attributes:
        step: the optimiser steps before them.
        which: the checkpoint that they were, "best" or "last".
        sha256: of their file.
        content: everything in the file.
    """

    step: int
    which: Literal["best", "last"]
    sha256: str
    content: Mapping[str, Any]


def is_on_hub(source: str | Path) -> bool:
    """Returns whether a workdir is given as a repository, hf://OWNER/NAME[@REVISION]."""
    return isinstance(source, str) and source.startswith(HUB)


def is_published(folder: Path) -> bool:
    """Returns whether a folder holds a published network, even a damaged one."""
    return (folder / RECORD_FILE).is_file()


def locate(workdir: str | Path) -> Place:
    """Returns where a workdir is; of a repository its JSON files are fetched, to a folder of jaxseg's own cache.

    Reports that a command writes into the workdir lie there too.

    Raises:
        ConfigError: if the repository cannot be reached, or holds no published network of jaxseg.
    """
    if not is_on_hub(workdir):
        folder = expanded(workdir)
        if is_published(folder):
            _require_small(folder)
        return Place(folder)
    try:
        return _fetch(str(workdir))
    except WeightsError as error:
        raise ConfigError(
            f"{workdir} holds no network that this machine can read: {first_line(error)}. A copy of the repository's "
            f"folder, with {CONFIG_FILE}, {INFO_FILE}, {RECORD_FILE} and {WEIGHTS_FILE}, can be given in its place."
        ) from error
    except OSError as error:
        raise ConfigError(f"{workdir} cannot be kept in {_CACHE}: {error.strerror or error}.") from error


def _fetch(source: str) -> Place:
    named = sources.repository(source)
    if named.files != sources.HUB_FILES:
        raise WeightsError(
            "a network is a whole repository, hf://OWNER/NAME, with @REVISION after NAME; leave /FILE out"
        )
    found = hub.fetch(dataclasses.replace(named, files=(RECORD_FILE,)), most=MOST_JSON)
    commit = hub.commit(found)
    # One commit for all files, whatever is uploaded meanwhile.
    pinned = named if commit is None else dataclasses.replace(named, revision=commit)
    revision = re.sub(r"[^\w.-]", "-", pinned.revision or "main")
    folder = expanded(_CACHE) / named.repository.replace("/", "--") / revision
    fetched = {RECORD_FILE: found}
    listed = read_record(found.parent).content["files"]
    for name in (CONFIG_FILE, INFO_FILE, *(name for name in FITTED_FILES if name in listed)):
        fetched[name] = hub.fetch(dataclasses.replace(pinned, files=(name,)), most=MOST_JSON)
    for name, file in fetched.items():
        # What was fitted here replaces what was published.
        if name not in FITTED_FILES or not (folder / name).exists():
            content = file.read_bytes()
            write_atomically(folder / name, lambda out, content=content: out.write(content))
    return Place(folder, pinned)


def _require_small(folder: Path) -> None:
    """Raises ConfigError for a JSON file that no published network has, before it is read."""
    for name in (RECORD_FILE, CONFIG_FILE, INFO_FILE, *FITTED_FILES):
        with contextlib.suppress(OSError):  # a missing file has its own message later
            if (folder / name).stat().st_size > MOST_JSON:
                raise ConfigError(f"{folder / name} is larger than {MOST_JSON:,} bytes, as no such file of jaxseg is.")


def read_record(folder: Path) -> Record:
    """Returns the record in `published.json`.

    Raises:
        ConfigError: if it cannot be read, or another program or a newer version wrote it.
    """
    file = folder / RECORD_FILE
    try:
        content = read_json(file)
        if not isinstance(content, dict) or content["program"] != "jaxseg":
            raise ValueError("another program wrote it")
        if content["format"] != FORMAT:
            raise ValueError(f"it has the form {printable(str(content['format'])[:20])}, this jaxseg reads {FORMAT}")
        step, which, sha256 = content["step"], content["which"], content["sha256"]
        if type(step) is not int or not 0 <= step < 2**31 or which not in ("best", "last"):
            raise ValueError("its step or its checkpoint is not one of a run")
        if not isinstance(sha256, str) or re.fullmatch("[0-9a-f]{64}", sha256) is None:
            raise ValueError("it has no SHA-256 of the weights")
        if not isinstance(content["files"], list):
            raise ValueError("it has no list of files")
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)[:200]
        raise ConfigError(f"{file} is not the record of a published network: {why}.") from error
    return Record(step, which, sha256, content)


def restore(place: Place, parts: Parts, which: str) -> tuple[TrainState, Literal["best", "last"]]:
    """Returns the state of a published network, without one of the optimiser, and which checkpoint it was.

    Args:
        place: from `locate`.
        parts: the parts that its configuration gives.
        which: the checkpoint that is asked for; "best" takes any, since one alone is published.

    Raises:
        ConfigError: if the record cannot be read.
        CheckpointError: if the weights are missing, damaged, or those of another network, or "last" was asked for and
            another was published.
    """
    record = read_record(place.folder)
    if which == "last" and record.which != "last":
        raise CheckpointError(
            f"{place.folder} has the best checkpoint of its run alone, which={which} was asked for; leave it out."
        )
    wanted = flatten(shapes_of_network(parts))
    most = MOST_HEADER + sum(leaf.size * leaf.dtype.itemsize for leaf in wanted.values())
    file = place.folder / WEIGHTS_FILE
    try:
        if place.repository is not None:
            fetched = hub.fetch(dataclasses.replace(place.repository, files=(WEIGHTS_FILE,)), most=most)
            _link(file, fetched)
            file = fetched
        params, stats = _read(file, wanted, most, record.sha256)
    except WeightsError as error:
        raise CheckpointError(str(error)) from error
    return TrainState(jnp.int32(record.step), params, stats, (), None), record.which


def _link(file: Path, fetched: Path) -> None:
    """Makes the folder whole by a link to the weights in the Hub's cache, where the file system has links."""
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)
        file.symlink_to(fetched.resolve())


def _read(file: Path, wanted: Mapping[str, Any], most: int, sha256: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the parameters and the statistics in the file, whose arrays are those of the network."""
    try:
        size = file.stat().st_size
        if size > most:
            raise WeightsError(f"{file} has {size:,} bytes, more than the {most:,} that the network can take.")
        found = files.file_sha256(file)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}.") from error
    if found != sha256:
        raise WeightsError(f"{file} is damaged, or of another network: its SHA-256 is not that in {RECORD_FILE}.")
    arrays = files.read_safetensors(file, [])
    try:
        merged = flatten(merge({"params": {}, "batch_stats": {}} | _nested(wanted), arrays))
    except ValueError as error:
        raise WeightsError(f"{file}: {error}") from error
    other = [name for name, array in arrays.items() if array.dtype != wanted[name].dtype]
    if other:
        raise WeightsError(
            f"{file}: the array {other[0]!r} is of type {arrays[other[0]].dtype}, not that of the network."
        )
    state = _nested({name: np.asarray(x) for name, x in merged.items()})
    return state["params"] if "params" in state else {}, state["batch_stats"] if "batch_stats" in state else {}


def _nested(named: Mapping[str, Any]) -> dict[str, Any]:
    from flax import traverse_util

    return traverse_util.unflatten_dict(dict(named), sep="/")


def sha256_of(content: bytes) -> str:
    """Returns the SHA-256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
