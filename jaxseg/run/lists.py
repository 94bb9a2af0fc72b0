"""The lists in the directory of a run, one entry a line, of what it was trained on; a resumed run compares them."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxseg.data.folder import FolderSource
from jaxseg.data.multilabel import MultilabelSource
from jaxseg.data.notes import note
from jaxseg.data.weak.source import AnnotatedSource
from jaxseg.errors import ConfigError, counted
from jaxseg.files import one_line, read_lines, write_lines
from jaxseg.run.workdir import (
    FILES_FILE,
    LABELLED_FILE,
    PROPOSALS_FILE,
    digest_of,
    holds_checkpoint,
    require_own_labelled,
)


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
