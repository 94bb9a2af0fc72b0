"""The split that a trained run is scored on: of its own data, which may have moved, or of another folder's."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxseg.arguments import expanded
from jaxseg.config import set_key
from jaxseg.data import make_source
from jaxseg.data.base import Source
from jaxseg.data.sources import split_of_data
from jaxseg.errors import ConfigError
from jaxseg.files import read_json, read_lines
from jaxseg.run.load import Run
from jaxseg.run.workdir import FILES_FILE, read_config

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
    """Returns the name of the folder that a run is scored on, if it is not that of its training; "" if it is.

    A folder is that of the training, moved or copied, if more than half of the training files that `files.txt` of the
    workdir lists are in it, by name and size. Without such a list, as of data of TFDS and published networks, it is
    taken to be.
    """
    own = (run.members[0] if run.members else run).workdir
    directory = run.config.data.dir
    if run.config.data.source != "folder" or not (own / FILES_FILE).is_file():
        return ""
    if read_config(own).data.dir == directory or _holds(expanded(directory), _training_files(own)):
        return ""
    return re.sub(r"[^\w.-]+", "_", expanded(directory).resolve().name) or "root"


def require_own_name(file: Path, run: Run, name: str) -> None:
    """Raises ConfigError if the file of the scores on other data holds those on a third folder of the same name."""
    if not name or not file.is_file():
        return
    try:
        there = read_json(file)["config"]["data"]["dir"]
        same = expanded(there).resolve() == expanded(run.config.data.dir).resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return  # `require_own_json` says what is wrong with it
    if not same:
        raise ConfigError(
            f"{file} holds the scores on {there}, and {run.config.data.dir} has the same name: move the file away, or "
            "give a link of another name to the folder."
        )


def _training_files(workdir: Path) -> list[str]:
    """Returns "SIZE NAME" of some of the training files of a run."""
    try:
        lines = read_lines(workdir / FILES_FILE)
    except OSError as error:
        raise ConfigError(f"{workdir / FILES_FILE} cannot be read: {error.strerror or error}.") from error
    places = np.linspace(0, len(lines) - 1, min(_LOOKED_AT, len(lines))).round().astype(int)
    return [lines[place] for place in places]


def _holds(directory: Path, files: Sequence[str]) -> bool:
    """Returns whether more than half of some files, each "SIZE NAME", are in a folder."""
    found = 0
    for line in files:
        size, _, name = line.partition(" ")
        try:
            found += str((directory / name).stat().st_size) == size
        except (OSError, ValueError):
            continue
    return 2 * found > len(files)
