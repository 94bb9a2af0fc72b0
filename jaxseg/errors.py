"""The exception classes of jaxseg, and functions that write parts of their messages.

The message of each is one sentence for the user: what was given, what was expected, and the file or key it came from.
`except jaxseg.errors.JaxsegError` catches them all; the commands print the sentence and end with exit status 1.
"""

import contextlib
import difflib
import errno
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

_DIRECTIONS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))  # text of any script needs none


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


class HostError(JaxsegError, RuntimeError):
    """Another process of a run of several has ended, or cannot be reached."""


class NotFiniteError(JaxsegError, RuntimeError):
    """The loss or the gradient is NaN or infinite."""


class OutOfMemoryError(JaxsegError, MemoryError):
    """The memory of the device or of the machine does not hold what was asked for."""


def raise_together(*checks: Callable[[], object]) -> None:
    """Makes every check; raises one ConfigError with a line for each different error that they raise.

    A user with several wrong values sees them all, and the first does not hide a more basic one.
    """
    wrong: dict[str, ConfigError] = {}
    for check in checks:
        try:
            check()
        except ConfigError as error:
            wrong.setdefault(str(error), error)
    if wrong:
        raise ConfigError("\n".join(wrong)) from next(iter(wrong.values()))


# What errors say, in lower case and without spaces, `_` and `-`: XLA on every backend, cuDNN and cuBLAS, the allocators
# of CUDA, ROCm and Metal, the C++ library, and the operating system.
_NO_MEMORY = (
    "resourceexhausted",
    "outofmemory",
    "allocfailed",
    "allocationfailed",
    "allocationfailure",
    "failedtoalloc",
    "unabletoallocate",
    "cannotallocatememory",
    "can'tallocatememory",
    "badalloc",
    "notenoughmemory",
    "insufficientmemory",
    "insufficientsystemmemory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory is full; JAX has no type or status code for it, only a text."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = re.sub(r"[\s_-]", "", str(error).lower())
    if isinstance(error, ValueError):  # some calls of jaxlib raise it, with the code of the status
        return text.startswith("resourceexhausted:")
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)


@contextlib.contextmanager
def naming_lack_of_memory(what: str, advice: str | Callable[[], str]) -> Iterator[None]:
    """Raises OutOfMemoryError, "WHAT does not fit into memory: ADVICE.", if the body ends for lack of memory.

    `advice` may be a function, which is called then.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, JaxsegError) or not is_out_of_memory(error):
            raise
        words = advice if isinstance(advice, str) else advice()
        raise OutOfMemoryError(f"{what} does not fit into the device's memory: {words}.") from error


def about_the_machine(error: BaseException) -> str | None:
    """Returns a sentence about an error of the machine, its memory or its files; None for any other error."""
    if is_out_of_memory(error):
        return f"There is too little memory ({first_line(error)[:200]}); give smaller images or batches."
    if isinstance(error, OSError):  # most likely a full disk
        name, reason = error.filename or "A file", error.strerror or error
        return f"{printable(str(name))} could not be read or written: {reason}."
    return None


def nearest(word: object, known: Iterable[str], *, listing: bool = True) -> str:
    """Returns " Did you mean X?" for the known word closest to `word`, or with which it begins, as names of timm do.

    Where none is close, returns the list of the known words if `listing` is set and there are at most 60, else "".
    """
    known = sorted(known)
    name = str(word).rpartition("/")[2]  # swin_tiny_patch4_window7_224 begins with swin_tiny
    beginnings = [each for each in known if each and name.startswith(tuple(f"{each}{mark}" for mark in "_.-"))]
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5) or sorted(beginnings, key=len)[-1:]
    if match:
        return f" Did you mean {match[0]!r}?"
    return f" Known: {', '.join(known) or 'none'}." if listing and len(known) <= 60 else ""


def some(names: Iterable[str], limit: int = 20) -> str:
    """Returns the first `limit` names with commas, and how many more there are; "nothing" for none."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more


def counted(number: int | float, word: str) -> str:
    """Returns a number with its word in the singular or the plural: "1 class", "0 classes", "2.5 epochs"."""
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {word if number == 1 else _plural(word)}"


def _plural(word: str) -> str:
    if word.endswith(("s", "x", "tch", "sh")):
        return f"{word}es"
    return f"{word[:-1]}ies" if word.endswith("y") and word[-2:-1] not in "aeiou" else f"{word}s"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text without its full stop; the name of its type if it has no text."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def printable(text: str) -> str:
    r"""Returns text of a user, such as the name of a file or a class, with what no terminal or picture shows as \x1b.

    These are control characters, those that reverse the direction of what follows, and the surrogates that stand for
    bytes of a file's name outside UTF-8.
    """
    hidden = ("Cc", "Cs", "Zl", "Zp")
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in hidden or c in _DIRECTIONS else c for c in text)
