"""Says how far a command is: a bar on a terminal, and a plain line now and then where its output goes elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

from jaxseg.errors import counted, printable

Item = TypeVar("Item")

EVERY = 30.0
"""The least seconds between two plain lines."""


class Lines:
    """Counts as tqdm does, and prints a line on standard error at most every `EVERY` seconds.

    Attributes:
        n: what is done.
        total: of how many; None where that is not known.
    """

    def __init__(self, what: str, unit: str, total: int | None = None):
        self.n, self.total = 0, total
        self._what, self._unit = printable(what), unit
        self._began = self._said = time.monotonic()

    def update(self, n: int = 1) -> None:
        """Adds what was done, and prints a line if the last is old."""
        self.n, now = self.n + n, time.monotonic()
        if now - self._said < EVERY:
            return
        self._said = now
        done = counted(self.n, self._unit) if self.total is None else f"{self.n} of {counted(self.total, self._unit)}"
        print(f"{self._what}: {done} after {now - self._began:.0f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(what: str, unit: str = "image", total: int | None = None, *, leave: bool = True) -> Iterator[Any]:
    """Gives an object with `update(n)`, `n` and `total`, which shows how much of `what` is done.

    Args:
        what: the words before the number.
        unit: what is counted, in the singular.
        total: how many there are; None: not known yet.
        leave: whether the bar of a terminal stays at the end.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=unit, leave=leave) as bar:
            yield bar
    else:
        yield Lines(what, unit, total)


def each(items: Sequence[Item], what: str, unit: str = "image") -> Iterator[Item]:
    """Yields the items, and shows how many are done; see `progress`."""
    with progress(what, unit, len(items)) as bar:
        for item in items:
            yield item
            bar.update()
