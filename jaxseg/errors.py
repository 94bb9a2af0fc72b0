"""The exception classes of jaxseg, and functions that write parts of their messages.

The message of each is one sentence for the user: what was given, what was expected, and the file or key it came from.
`except jaxseg.errors.JaxsegError` catches them all; the commands print the sentence and end with exit status 1.
"""

import difflib
from collections.abc import Iterable


class JaxsegError(Exception):
    """An error that a user can cause and correct."""


class ArgumentError(JaxsegError, ValueError):
    """An argument of a function that is unknown or has an invalid value."""


class ConfigError(JaxsegError, ValueError):
    """A configuration, or an argument of a command, that is invalid."""


class DataError(JaxsegError, ValueError):
    """Data that cannot be used: the message names the file, what it holds and what was expected."""


class WeightsError(JaxsegError, ValueError):
    """Weights that cannot be found, read or fitted to a network."""


class CheckpointError(JaxsegError, RuntimeError):
    """A checkpoint that cannot be written or read, or that belongs to another network."""


class NotFiniteError(JaxsegError, RuntimeError):
    """The loss or the gradient is NaN or infinite."""


def nearest(word: object, known: Iterable[str], *, listing: bool = True) -> str:
    """Returns " Did you mean X?" for the known word closest to `word`.

    Where none is close, returns the list of the known words if `listing` is set and there are at most 60, else "".
    """
    known = sorted(known)
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    if match:
        return f" Did you mean {match[0]!r}?"
    return f" Known: {', '.join(known) or 'none'}." if listing and len(known) <= 60 else ""


def some(names: Iterable[str], limit: int = 20) -> str:
    """Returns the first `limit` names with commas, and how many more there are; "nothing" for none."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more
