"""The split that a trained run is scored on: of its own data, which may have moved, or of another folder's."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict, set_key
from jaxseg.data import make_source
from jaxseg.data.base import Source
from jaxseg.data.sources import split_of_data
from jaxseg.errors import ConfigError
from jaxseg.files import read_json, read_lines
from jaxseg.run.lists import content_digest, evenly, telling_digests
from jaxseg.run.load import Run
from jaxseg.run.workdir import DIGESTS_FILE, FILES_FILE, read_config

_LOOKED_AT = 1000  # training files, evenly spaced


def open_split(run: Run, split: str) -> Source:
    """Returns a split of the data, which has the classes of the run.

    Raises:
        DataError: if the data is missing or empty, has no such split, or its classes are not those of the run.
    """
    config = run.config.copy_and_resolve_references()
    set_key(config, "data.classes", run.classes)  # of masks alone, which have no names
    return make_source(config, split_of_data(run.config, split), named_by=f"the run in {run.workdir}")


def other_data(run: Run) -> str:
    """Returns the name of the folder that a run is scored on, if it is not that of its training; "" if it is."""
    return other_than((run.members[0] if run.members else run).workdir, run.config)


def other_than(workdir: Path, config: ConfigDict) -> str:
    """Returns the name of the folder of a configuration, if the run in `workdir` was not trained on it; "" if it was.

    A folder is that of the training, moved or copied, if more than half of the training files that `files.txt` of the
    workdir lists are in it, by name and size, and half of those in its `digests.txt` with the same content.
    A run of an earlier version has no digests: the files are compared with those in the folder of the training, where
    that is still there. Without `files.txt`, as of data of TFDS and published networks, a folder is taken to be.
    """
    directory = config.data.dir
    if config.data.source != "folder" or not (workdir / FILES_FILE).is_file():
        return ""
    here, former = expanded(directory), expanded(read_config(workdir).data.dir)
    # A relative path may be another folder today than at the training.
    if former.is_absolute() and former.resolve() == here.resolve():
        return ""
    if _holds(here, workdir, former if former.is_absolute() else None):
        return ""
    return re.sub(r"[^\w.-]+", "_", here.resolve().name) or "root"


def about_other(run: Run) -> dict[str, str]:
    """Returns what a file of scores says of other data than those of the training: {} where a run has its own."""
    name = other_data(run)
    return {"other_data": name, "other_data_path": _path(run)} if name else {}


def on_other(run: Run) -> str:
    """Returns the words after a split for other data than those of the training; "" where a run has its own."""
    return f" of {run.config.data.dir}, not the data of the training" if other_data(run) else ""


def require_own_name(file: Path, other: Mapping[str, str]) -> None:
    """Raises ConfigError if a file holds what was found on other data than `about_other` says, so that it stays.

    Folders of the same name have files of the same name, and so have all data where the name of the file does not say
    which.
    """
    if not file.is_file():
        return
    try:
        there = _path_in(read_json(file))
    except (OSError, ValueError, KeyError, TypeError):
        return  # `require_own_json` says what is wrong with it
    here = other["other_data_path"] if other else ""
    if there != here:
        same = bool(there and here) and Path(there).name == Path(here).name
        own = "the data of the training"
        raise ConfigError(
            f"{file} holds the scores on {there or own}, and {here or own} "
            + ("has the same name: move the file away, or give a link of another name to the folder." if same else "")
            + ("" if same else "would replace them: move the file away.")
        )


def _path(run: Run) -> str:
    return str(expanded(run.config.data.dir).resolve())


def _path_in(content: Mapping[str, Any]) -> str:
    """Returns the folder that a file says that it is of; "": the data of the training."""
    return str(content["other_data_path"]) if "other_data_path" in content else ""


def _holds(directory: Path, workdir: Path, former: Path | None) -> bool:
    """Returns whether more than half of the training files of a run are in a folder, as other_than compares them."""
    lines = [line.partition(" ") for line in _read(workdir / FILES_FILE)]
    # A file outside the folder of the training is nothing that this folder has.
    looked_at = evenly([(size, name) for size, _, name in lines if not Path(name).is_absolute()], _LOOKED_AT)
    found = [name for size, name in looked_at if _has_size(directory / name, size)]
    if 2 * len(found) <= len(looked_at):
        return False
    if (workdir / DIGESTS_FILE).is_file():
        wanted = {name: digest for digest, _, name in (x.partition(" ") for x in _read(workdir / DIGESTS_FILE))}
    else:
        wanted = {} if former is None else telling_digests(former, found)
    same = sum(content_digest(directory / name) == digest for name, digest in wanted.items())
    return 2 * same >= len(wanted)


def _read(file: Path) -> list[str]:
    try:
        return read_lines(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}.") from error


def _has_size(path: Path, size: str) -> bool:
    try:
        return str(path.stat().st_size) == size
    except (OSError, ValueError):
        return False
