"""Writes files atomically."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: str | Path, write: Callable[[BinaryIO], Any]) -> None:
    """Calls `write` with a file beside `path`, and moves it there once it is on the disk; creates the folder.

    Whatever happens meanwhile, a full disk or a killed process, what was at `path` before stays as it was.

    Raises:
        OSError: if it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several machines, in containers even of one number, may write to one file system.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text as `write_atomically` does."""
    write_atomically(path, lambda file: file.write(text.encode()))
