"""Reads one image: within a time limit, and with another in its place if it cannot be read and that is wanted."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from jaxseg.data.base import Example
from jaxseg.data.notes import note
from jaxseg.errors import DataError, counted

Files = TypeVar("Files")
_TRIES = 100  # images in a row that cannot be read before "skip" stops


@dataclass(frozen=True)
class Reading:
    """What to do about an image that cannot be read.

    Attributes:
        on_error: "stop" raises the error, "skip" takes another image and says so once for each.
        timeout: seconds that reading one image may take; 0: no limit.
    """

    on_error: Literal["stop", "skip"] = "stop"
    timeout: float = 0.0

    def example(self, source: Any, index: int) -> Example:
        """Returns the example; raises DataError also if it takes longer than `timeout`."""
        if not self.timeout:
            return source[index]
        return _within(self.timeout, lambda: source[index], lambda: source.name(index))

    def image_type(self, source: Any) -> np.dtype:
        """Returns the type of the images, that of the first one, with "skip" of the first that can be read.

        Raises:
            DataError: if it cannot be read.
        """
        return self.first(lambda number: self.example(source, number % len(source)))["image"].dtype

    def first(self, read: Callable[[int], Any]) -> Any:
        """Returns `read(0)`, or with "skip" the first of `read(0)`, `read(1)`, ... that raises no DataError.

        Raises:
            DataError: of `read(0)`, with "skip" if a hundred in a row raise one.
        """
        first: DataError | None = None
        for number in range(_TRIES if self.on_error == "skip" else 1):
            try:
                return read(number)
            except DataError as error:
                first = first or error
                if self.on_error == "skip":
                    note_skipped(str(error))
        assert first is not None
        if self.on_error == "skip":
            raise DataError(f"{_TRIES} images in a row cannot be read, the first of them: {first}") from first
        raise first


def note_skipped(error: str) -> None:
    """Notes, once, that a training image cannot be read and that others are in its place."""
    note(f"{error} data.on_error=skip: other images are in its place.")


def files_at(index: int, every: Sequence[Files], place: str, unreadable: Mapping[Files, str]) -> Files:
    """Returns the files of the example `index` of a folder, named `place`.

    Raises:
        IndexError: if there is none.
        DataError: if they are among those that cannot be read, each with its sentence.
    """
    if not 0 <= index < len(every):
        raise IndexError(f"index {index} is outside the {counted(len(every), 'image')} of {place}")
    if every[index] in unreadable:
        raise DataError(unreadable[every[index]])
    return every[index]


def raise_first(problems: Sequence[str]) -> None:
    """Raises DataError with the first of some sentences, and how many more there are; nothing if there is none."""
    if problems:
        more = f" ({len(problems) - 1} more such; jaxseg check lists them)"
        raise DataError(problems[0] + (more if len(problems) > 1 else ""))


STOP = Reading()
"""An image that cannot be read raises its error; no limit of time."""


def _within(seconds: float, read: Callable[[], Any], name: Callable[[], str]) -> Any:
    """Returns `read()`; raises DataError if that takes longer, and leaves it behind in a thread of its own."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(read())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise DataError(
            f"{name()} was not read within data.timeout={seconds:g} seconds: its decoder or its file system hangs, or "
            "the limit is too short."
        )
    return results[0]
