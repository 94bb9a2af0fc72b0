"""Remarks about data that do not stop anything: logged once each, or collected by a command that prints them."""

import contextlib
import functools
import logging
from collections.abc import Iterator

_LOG = logging.getLogger(__name__)
_LISTS: list[list[str]] = []  # those of `collected`, the innermost last


def note(sentence: str) -> None:
    """Logs a sentence as a warning, only the first time: every split of a folder gives the same notes.

    Inside `collected` it is added to that list instead.
    """
    if _LISTS:
        _LISTS[-1].append(sentence)
    else:
        log_once(sentence)


@functools.cache
def log_once(sentence: str) -> None:
    """Logs a sentence as a warning the first time; for the reason of a long wait, which has to be said before it."""
    _LOG.warning(sentence)


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Gives the list of the notes of the body, in place of logging them."""
    notes: list[str] = []
    _LISTS.append(notes)
    try:
        yield notes
    finally:
        _LISTS.pop()
