"""The lists in the directory of a run, one entry a line, of what it was trained on; a resumed run compares them."""

import hashlib
import statistics
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from jaxseg.data.folder import FolderSource
from jaxseg.data.multilabel import MultilabelSource
from jaxseg.data.notes import note
from jaxseg.data.weak.source import AnnotatedSource
from jaxseg.errors import ConfigError, counted
from jaxseg.files import one_line, read_lines, write_lines
from jaxseg.run.workdir import (
    DIGESTS_FILE,
    FILES_FILE,
    LABELLED_FILE,
    PROPOSALS_FILE,
    digest_of,
    holds_checkpoint,
    require_own_labelled,
)

Item = TypeVar("Item")
DIGESTS = 16
"""Of so many training files a run keeps digests."""
_BLOCKS, _BLOCK = 8, 2**16  # of a larger file: the parts that are read, and the bytes of each


def files_of(source: Any) -> list[str]:
    """Returns "SIZE NAME" for each image, and for its mask or the files of annotations, of a folder; else [].

    The folder may be a part of the source, or a part of it the source.
    The names are relative to the folder, so that it may move. The times are left out: a copy has others.
    """
    while not isinstance(source, FolderSource | MultilabelSource | AnnotatedSource):
        inner = [name for name in ("source", "whole", "full") if hasattr(source, name)]
        if not inner:
            return []
        source = getattr(source, inner[0])
    directory = source.directory
    named = {(p.relative_to(directory) if p.is_relative_to(directory) else p): s for p, s in source.stamps.items()}
    return [f"{each.size} {name.as_posix()}" for name, each in sorted(named.items())]


def record_labelled(path: str | Path, names: Sequence[str]) -> None:
    """Writes the names of the images that keep their labels to `labelled.txt`, which `data.labelled` can name.

    Raises:
        ConfigError: if the run has checkpoints and its file names other images, the file is not one that a run wrote
            there, by its digest in `data.json`, and would be replaced by another, or cannot be read or written.
    """

    def sentence(before: int, changed: str) -> str:
        return (
            f"The run in {path} was trained with the labels of the {counted(before, 'image')} in its {LABELLED_FILE}, "
            f"but now {counted(len(names), 'image')} would keep theirs, and {changed!r} is in one of the two alone; "
            "give the same data and data.labelled to resume it, or another --workdir."
        )

    file = Path(path) / LABELLED_FILE
    lines = "".join(f"{one_line(name)}\n" for name in names).encode(errors="surrogateescape")
    if file.exists() and not holds_checkpoint(path) and digest_of(file) != hashlib.sha256(lines).hexdigest():
        require_own_labelled(Path(path))
    _record_lines(Path(path), LABELLED_FILE, names, sentence)


def record_proposals(path: str | Path, proposals: Sequence[str]) -> None:
    """Writes a line, "DIGEST NAME", for each proposal that joined the training split, to `proposals.txt`.

    Raises:
        ConfigError: if the run has checkpoints and others or other masks joined then, or the file cannot be read or
            written.
    """

    def sentence(before: int, changed: str) -> str:
        return (
            f"The run in {path} was trained with the {counted(before, 'proposal')} in its {PROPOSALS_FILE}, but now "
            f"{len(proposals)} would join, and {changed.partition(' ')[2]!r} is in one of the two alone or has another "
            "mask; give the same data.proposals and decisions to resume it, or another --workdir."
        )

    _record_lines(Path(path), PROPOSALS_FILE, proposals, sentence)


def record_files(path: str | Path, files: Sequence[str], on_error: str) -> None:
    """Writes a line, "SIZE NAME", for each file of the training split to `files.txt`.

    Raises:
        ConfigError: if the run has checkpoints and its file has others, or it cannot be read or written. Where there
            are as many files as then and `on_error` is "skip", others are noted, and the file stays.
    """

    def sentence(before: int, changed: str) -> str:
        named = (
            f"The run in {path} was trained on {counted(before, 'file')}, of which {changed.partition(' ')[2]!r} has "
            "changed since, or is new or gone"
        )
        put_back = "put the former data back to resume the run, or give another --workdir"
        if before != len(files):  # and the order of the images is another, too
            return (
                f"{named}, and now there are {counted(len(files), 'file')}; {put_back} (data.on_error=skip resumes it "
                "only with as many files)."
            )
        if on_error == "skip":
            return f"{named}; data.on_error=skip: it goes on with the data that there are now."
        return f"{named}; {put_back} (data.on_error=skip resumes it on the data that there are now)."

    skipping = on_error == "skip"
    _record_lines(Path(path), FILES_FILE, files, sentence, lambda before: skipping and before == len(files))


def record_digests(path: str | Path, directory: Path, files: Sequence[str]) -> None:
    """Writes "DIGEST NAME" of a few training files to `digests.txt`, by which data that moved are known again.

    They are among the larger half, which images are in rather than masks, and in the folder, not outside it. A run with
    checkpoints keeps those that it has.

    Args:
        path: the workdir.
        directory: the folder of the data.
        files: "SIZE NAME" of each, from `files_of`.

    Raises:
        ConfigError: if the file cannot be written.
    """
    file = Path(path) / DIGESTS_FILE
    inside = [(int(size), name) for size, _, name in (line.partition(" ") for line in files) if name[:1] != "/"]
    inside = [(size, name) for size, name in inside if one_line(name) == name and not Path(name).is_absolute()]
    if jax.process_index() != 0 or not inside or (holds_checkpoint(path) and file.exists()):
        return
    middle = statistics.median(size for size, _ in inside)
    found = telling_digests(directory, [name for size, name in inside if size >= middle])
    try:
        if found:
            write_lines(file, [f"{digest} {name}" for name, digest in found.items()])
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}.") from error


def telling_digests(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """Returns {name: digest} of a few files in a folder; of those with the same content, as empty masks, of one."""
    found = {content_digest(directory / name): name for name in evenly(names, DIGESTS)}
    return {name: digest for digest, name in found.items() if digest}


def content_digest(path: Path) -> str:
    """Returns the CRC-32 of a file's size and content, of a large one of evenly spaced parts; "" if it has none."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            digest = zlib.crc32(str(size).encode())
            if size <= _BLOCKS * _BLOCK:
                return f"{zlib.crc32(file.read(), digest):08x}"
            for place in np.linspace(0, size - _BLOCK, _BLOCKS).astype(np.int64):
                file.seek(int(place))
                digest = zlib.crc32(file.read(_BLOCK), digest)
    except (OSError, ValueError):
        return ""
    return f"{digest:08x}"


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Returns at most so many items, evenly spaced, the first and the last among them."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)]


def _record_lines(
    path: Path,
    name: str,
    lines: Sequence[str],
    sentence: Callable[[int, str], str],
    bears: Callable[[int], bool] = lambda before: False,
) -> None:
    """Writes lines to a file; raises ConfigError if the run has checkpoints and its file has others.

    Where `bears` says so of their number, these are noted instead, and the file stays.
    """
    file = path / name
    lines = [one_line(line) for line in lines]
    try:
        if holds_checkpoint(path) and file.exists():
            before, now = set(read_lines(file)), set(lines)
            changed = [line for line in (*lines, *sorted(before)) if (line in before) != (line in now)]
            if changed and not bears(len(before)):
                raise ConfigError(sentence(len(before), changed[0]))
            if changed:
                note(sentence(len(before), changed[0]))
                return
        if jax.process_index() == 0:
            write_lines(file, lines)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read or written: {error.strerror or error}.") from error
