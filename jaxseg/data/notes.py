"""Remarks about data that do not stop anything, each logged once."""

import functools
import logging

_LOG = logging.getLogger(__name__)


@functools.cache
def note(sentence: str) -> None:
    """Logs a sentence as a warning, only the first time: every split of a folder gives the same notes."""
    _LOG.warning(sentence)
