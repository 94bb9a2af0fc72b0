"""A disk that is full from a write of a chosen number on, planted in this process."""

import builtins
import contextlib
import errno
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_MAKING = ("os.mkdir", "os.rename", "os.link", "os.truncate")  # `os.replace` is an `os.rename` too


class Disk:
    """Counts what needs space in a folder, and fails from one of these on: the disk stays full; 0: never.

    These uses are: a file that is opened for writing, each write, each fsync, a folder that is made, a move, and an
    array that TensorStore opens for writing, whose writes are in C++.
    """

    def __init__(self, number: int, folder: str | Path):
        self.number, self.folder, self.uses = number, str(folder), list[str]()
        self._lock = threading.Lock()

    def holds(self, path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.folder)

    def use(self, what: str, path: Any) -> None:
        with self._lock:
            self.uses.append(f"{what} {os.path.relpath(os.fsdecode(path), self.folder)}")
            full = 0 < self.number <= len(self.uses)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))


class _File:
    """A file that is written, each of whose writes needs space."""

    def __init__(self, file: Any, disk: Disk, path: Any):
        self._file, self._disk, self._path = file, disk, path

    def write(self, data: Any) -> int:
        self._disk.use("write", self._path)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()


_disks: list[Disk] = []  # the last is the one in use
_hooked: list[bool] = []  # a hook stays as long as the process


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _disks:
        return
    if event == "open" and arguments[2] & _WRITING and _disks[-1].holds(arguments[0]):
        _disks[-1].use("open", arguments[0])
    elif event in _MAKING and _disks[-1].holds(arguments[0]):
        _disks[-1].use(event.removeprefix("os."), arguments[0])


@contextlib.contextmanager
def filled(number: int, folder: str | Path) -> Iterator[Disk]:
    """Has the disk of a folder be full from the use of this number on, see `Disk`, until the body ends."""
    import tensorstore

    disk = Disk(number, folder)
    fsync, opened, made, stored = os.fsync, io.open, builtins.open, tensorstore.open

    def full_fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if disk.holds(path):
            disk.use("fsync", path)
        fsync(descriptor)

    def full_open(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        result = opened(file, mode, *rest, **more)
        return _File(result, disk, file) if set(mode) & set("wax+") and disk.holds(file) else result

    def full_store(spec: Any, *rest: Any, **more: Any) -> Any:
        if more.get("create"):
            disk.use("array", folder)
        return stored(spec, *rest, **more)

    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    _disks.append(disk)
    os.fsync, tensorstore.open, io.open, builtins.open = full_fsync, full_store, full_open, full_open
    try:
        yield disk
    finally:
        _disks.pop()
        os.fsync, tensorstore.open, io.open, builtins.open = fsync, stored, opened, made
