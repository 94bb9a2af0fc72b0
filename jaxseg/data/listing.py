"""Which files in a folder count as images: one rule for training data, for prediction and for the TFDS builders."""

import contextlib
import errno
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxseg.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""The suffixes of files that count as images, in lower or upper case."""

ARRAYS = (".npy", ".npz")
"""The suffixes of files of NumPy that count as images too, where no picture has the same name."""

# Folders that archives and file servers add, and that no file browser shows.
_ADDED = (
    "__MACOSX",
    "@eaDir",
    "#recycle",
    "@Recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)


class Listing(NamedTuple):
    """The image files of a folder, sorted, and a sentence for each link to nowhere and each unreadable folder."""

    files: list[Path]
    problems: list[str]


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder of this name is left out: its name starts with a dot, or the system added it."""
    return name.startswith(".") or name in _ADDED


def list_images(
    folder: Path, *, recursive: bool = True, former: bool = False, suffixes: Sequence[str] = SUFFIXES
) -> Listing:
    """Returns the image files of a folder that are not hidden.

    Sub-folders that are links are entered, except where a link leads back to a folder that contains the link.

    Args:
        folder: the folder.
        recursive: also list the sub-folders that are not hidden.
        former: enter hidden sub-folders and no links to folders, as before 0.2.
        suffixes: the suffixes of images, in lower case.
    """
    files: list[Path] = []
    problems: list[str] = []

    def counts(entry: os.DirEntry) -> bool:
        return not is_hidden(entry.name) or (former and entry.is_dir())

    def visit(directory: Path, above: tuple[tuple[int, int], ...]) -> None:
        try:
            with os.scandir(directory) as entries:
                visible = sorted((e for e in entries if counts(e)), key=lambda e: e.name)
            status = os.stat(directory)
        except OSError as error:
            problems.append(unreadable(directory, error))
            return
        here = status.st_dev, status.st_ino
        if here in above:
            return
        for entry in visible:
            path = directory / entry.name
            if entry.is_symlink() and leads_nowhere(path):
                if path.suffix.lower() in (*suffixes, ""):
                    problems.append(f"{path} is a link to {os.readlink(path)}, which does not exist.")
            elif entry.is_dir():
                if recursive and not (former and entry.is_symlink()):
                    visit(path, (*above, here))
            elif entry.is_file() and path.suffix.lower() in suffixes:
                files.append(path)

    visit(folder, tuple((s.st_dev, s.st_ino) for s in map(os.stat, folder.absolute().resolve().parents)))
    return Listing(sorted(files), problems)


def leads_nowhere(path: Path) -> bool:
    """Returns whether `path` is a link whose target does not exist."""
    if not path.is_symlink():
        return False
    try:
        path.stat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
    return False


def unreadable(folder: Path, error: OSError) -> str:
    """Returns the sentence about a folder that cannot be read."""
    more = f"; allow it with chmod u+rx {folder}, or move it away" if isinstance(error, PermissionError) else ""
    return f"The folder {folder} cannot be read: {error.strerror or error}{more}."


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Raises DataError, which names the folder, if the body cannot read it."""
    try:
        yield
    except OSError as error:
        raise DataError(unreadable(folder, error)) from error


def is_folder(path: Path) -> bool:
    """Returns whether there is a folder; raises PermissionError, unlike newer `Path.is_dir`, if this is not known."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError:
        raise
    except OSError:
        return False


def sub_folders(folder: Path) -> list[str]:
    """Returns the names of the sub-folders of a folder that are not hidden, sorted.

    Raises:
        DataError: if the folder cannot be read.
    """
    with reading(folder), os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not is_hidden(e.name) and e.is_dir())


def entries_of(folder: Path) -> list[Path]:
    """Returns all files and folders directly in a folder, sorted; raises DataError if the folder cannot be read."""
    with reading(folder), os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries)


def name_in(folder: Path, path: Path) -> str:
    """Returns the path of a file inside `folder` without its suffix, with "/" between folders, as Unicode NFC.

    File systems and archives write an accented letter as one character or as two; both have the same name here.
    """
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
