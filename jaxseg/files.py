"""Writes files atomically, reads JSON that anybody may have written, and locks what one process at a time may write."""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import logging
import math
import os
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # what file systems without locks answer
_logger = logging.getLogger(__name__)


def write_atomically(path: str | Path, write: Callable[[BinaryIO], Any]) -> None:
    """Calls `write` with a file beside `path`, and moves it there once it is on the disk; creates the folder.

    Whatever happens meanwhile, a full disk or a killed process, what was at `path` before stays as it was.

    Raises:
        OSError: if it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several machines, in containers even of one number, may write to one file system.
    part = path.with_name(f".{path.name[:20]}.{uuid.uuid4().hex[:12]}.part")  # the name itself may be of full length
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text as `write_atomically` does, and names of files that are not UTF-8 as their bytes."""
    write_atomically(path, lambda file: file.write(text.encode(errors="surrogateescape")))


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Writes text as `write_text` does, each line as `one_line` gives it."""
    write_text(path, "".join(f"{one_line(line)}\n" for line in lines))


def read_lines(path: str | Path) -> list[str]:
    """Returns the lines that `write_lines` wrote; names may hold any character that ends a line elsewhere.

    Raises:
        OSError: if it cannot be read.
    """
    text = Path(path).read_bytes().decode(errors="surrogateescape")
    return text.removesuffix("\n").split("\n") if text else []


def one_line(name: str) -> str:
    """Returns a name with `\\n` written out for each end of a line, since names of files may hold these."""
    return name.replace("\n", "\\n")


_DEPTH, _DIGITS = 50, 100  # of JSON that jaxseg writes; the state of a generator of random numbers has 39 digits


def read_json(path: str | Path, *, finite: bool = True) -> Any:
    """Returns the content of a JSON file in UTF-8 that jaxseg writes, and that may be of a stranger or damaged.

    Args:
        path: the file.
        finite: whether NaN, infinity and numbers that no float holds are errors.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no such JSON; the text says why in a line.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None
    return parse_json(text, finite=finite)


def parse_json(text: str, *, finite: bool = True) -> Any:
    """Returns the content of JSON text; see `read_json`."""

    def constant(name: str) -> float:
        if finite:
            raise ValueError(f"it holds {name}, where a finite number was expected")
        return float(name)

    def number(digits: str) -> float:
        value = float(digits)
        if finite and not math.isfinite(value):
            raise ValueError(f"it holds {digits[:40]}, which is too large")
        return value

    def whole(digits: str) -> int:
        if len(digits) > _DIGITS:
            raise ValueError(f"it holds a whole number of more than {_DIGITS} digits")
        return int(digits)

    try:
        content = json.loads(text, parse_constant=constant, parse_float=number, parse_int=whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [content]
    for _ in range(_DEPTH):
        groups = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list)]
        level = [entry for group in groups for entry in group]
    if level:
        raise ValueError("it is nested too deeply")
    return content


def names_in_npz(path: str | Path) -> frozenset[str]:
    """Returns the names of the arrays in a file of NumPy; none if it is no such file, or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except Exception:  # zipfile raises many classes for a file that is cut off or forged
        return frozenset()


@contextlib.contextmanager
def locked(path: str | Path, *, wait: bool = True, note: str = "", without: str = "") -> Iterator[None]:
    """Holds the lock file `path`, which one process at a time can; creates its folder, and removes the file at the end.

    The system takes the lock from a process that ends for any reason. A file that a killed process left is no lock.

    Args:
        path: the lock file.
        wait: whether to wait until another process gives the lock back.
        note: text in the file while the lock is held, for other processes to read.
        without: what the user has to take care of on a file system without locks, for a warning; the body then runs
            without the lock. Empty: that is an error.

    Raises:
        BlockingIOError: if another process holds the lock and `wait` is not set.
        OSError: if the file cannot be made, or its file system has no locks and `without` is empty.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            file = path.open("a+", encoding="utf-8")
            with contextlib.ExitStack() as attempt:
                attempt.enter_context(file)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    raise
                except OSError as error:  # no locks here: the file means nothing
                    path.unlink(missing_ok=True)
                    if not without or error.errno not in _NO_LOCKS:
                        raise
                    _warn(path.parent, error.strerror or str(error), without)
                    file = None
                    break
                # The process that held the lock before has removed the file that was opened here.
                if _is_at(file.fileno(), path):
                    stack.push(attempt.pop_all())
                    break
        if file is not None:
            stack.callback(path.unlink, missing_ok=True)
            file.truncate(0)
            file.write(note)
            file.flush()
        yield


@functools.cache
def _warn(folder: Path, reason: str, without: str) -> None:
    """Says once for each folder that it has no locks: a sweep locks its own many times."""
    _logger.warning("the file system of %s has no locks (%s): %s.", folder, reason, without)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that is at `path` now."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


class Digest:
    """A file that is written or read from its beginning to its end, with the size and the SHA-256 of what passed."""

    def __init__(self, file: BinaryIO, limit: int | None = None):
        self._file, self._limit = file, limit
        self._hash, self._bytes = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._pass(data)
        return self._file.write(data)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._pass(data)
        if self._limit is not None and self._bytes > self._limit:
            raise ValueError("it is larger than what was written")
        return data

    def about(self) -> dict[str, Any]:
        """Returns the size in bytes and the digest, as JSON values."""
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}

    def _pass(self, data: bytes) -> None:
        self._hash.update(data)
        self._bytes += len(data)
