"""Removes those messages of Orbax from the console that users do not need."""

import logging
import sys
from collections.abc import Callable
from typing import Any


def quieten_orbax() -> None:
    """Drops Orbax's log lines and the tracebacks of its read and write threads; further calls do nothing.

    When one of several reads or writes fails, Orbax raises an error, which `jaxseg.run.checkpoint` reports. The others
    then fail because their event loop is closed. They print this to standard error from their own threads, where it
    cannot be caught.
    """
    logger = logging.getLogger("absl")
    if _not_orbax not in logger.filters:
        logger.addFilter(_not_orbax)
        logging.getLogger("asyncio").addFilter(_not_an_abandoned_read)
        sys.unraisablehook = _drop_closed_loops(sys.unraisablehook)


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _not_an_abandoned_read(record: logging.LogRecord) -> bool:
    return "OCDBT" not in record.getMessage()


def _drop_closed_loops(before: Callable[[Any], None]) -> Callable[[Any], None]:
    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    return hook
