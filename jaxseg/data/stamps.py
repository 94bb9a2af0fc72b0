"""Whether the files of a data set are still those that a run has opened: their sizes, and when they were changed.

A file that is replaced in the middle of a run would change what the run learns, and nothing else would show it.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from jaxseg.errors import DataError, counted


class Files(Protocol):
    """The files of one example, such as a `pairs.Pair`."""

    @property
    def paths(self) -> tuple[Path, ...]: ...


class Stamp(NamedTuple):
    """Size of a file in bytes, and the time of its last change in nanoseconds, as its file system gives them."""

    size: int
    changed: int


def stamp(path: Path) -> Stamp:
    """Returns the stamp of a file.

    Raises:
        DataError: if there is no such file, or it cannot be read.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return Stamp(status.st_size, status.st_mtime_ns)


def stamps_of(pairs: Iterable[Files]) -> dict[Path, Stamp]:
    """Returns the stamp of every image and mask, taken in threads: each may be one trip to the server of the files.

    Raises:
        DataError: as `stamp` does, of the first file.
    """
    paths = [path for pair in pairs for path in pair.paths]
    with ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(stamp, paths), strict=True))


def require_unchanged(pair: Files, stamps: Mapping[Path, Stamp]) -> None:
    """Raises DataError if an image or its mask is no longer the file that its stamp was taken of."""
    for path in pair.paths:
        if path not in stamps:
            continue
        now, then = stamp(path), stamps[path]
        if now != then:
            size = f"{counted(then.size, 'byte')} then and {now.size} now"
            raise DataError(
                f"{path} was changed after the data were opened ({size}), so it is not the file of the run any more; "
                "put the former one back and start the command again."
            )
