"""Annotations that cannot be read: an error where all are needed, or a list, so that the others are read."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from jaxseg.errors import DataError, first_line


class Fault(NamedTuple):
    """image: as the file names it, or the file itself. what: which annotation of it. why: a sentence."""

    image: str
    what: str
    why: str


@contextlib.contextmanager
def listed(faults: list[Fault] | None, image: str, what: str) -> Iterator[None]:
    """Adds an error of the body to `faults`, with the image and the annotation; raises it where `faults` is None."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # what another program wrote may hold anything in any place
        if faults is None:
            raise
        faults.append(Fault(image, what, _reason(error)))


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, KeyError):
        return f"It lacks {error.args[0]!r}."
    return f"It is of another form ({first_line(error)[:200]})."
