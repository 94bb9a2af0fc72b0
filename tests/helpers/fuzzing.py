"""Reads damaged files one after the other: each must give a result or one sentence, in bounded time and memory."""

import contextlib
import resource
import signal
import time
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxseg.errors import JaxsegError

SECONDS = 5.0
"""The time of the processor that one case may take."""
WAITED = 60.0
"""The time by the clock: a busy machine may take long for little."""
MEGABYTES = 400.0
"""The memory that one case may take beside that of the process."""


class TooSlow(BaseException):
    """A case took longer than it may; no `except Exception` of a reader catches it."""


class Outcome(NamedTuple):
    """How a case ended.

    Attributes:
        sentence: the error of jaxseg, or "" for a result.
        seconds: time of the processor.
        megabytes: the peak of the memory of the process above what it had before.
    """

    sentence: str
    seconds: float
    megabytes: float


def attempt(
    call: Callable[[], Any], what: str, *, names: str = "", seconds: float = SECONDS, megabytes: float = MEGABYTES
) -> Outcome:
    """Calls a reader; raises AssertionError, which begins with `what`, if it does not end as it should.

    Args:
        call: the reader with its file.
        what: the kind and the seed of the case, by which it can be repeated.
        names: what a sentence must hold, such as the name of the file.
        seconds, megabytes: the limits.
    """
    before = _reset_peak()
    start, sentence = time.process_time(), ""
    try:
        with _limited(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except JaxsegError as error:
        sentence = str(error)
    except TooSlow:
        raise AssertionError(f"{what}: not finished after {seconds:g} s") from None
    except Exception as error:
        lines = "".join(traceback.format_exception(error)[-6:])
        raise AssertionError(f"{what}: {type(error).__name__} in place of a sentence\n{lines}") from error
    taken, used = time.process_time() - start, _peak() - before
    if sentence:
        assert names in sentence, f"{what}: the sentence does not name {names!r}: {sentence}"
        assert sentence.endswith((".", "?")) and len(sentence) < 50_000, f"{what}: no sentence: {sentence[:500]!r}"
    assert taken < seconds, f"{what}: {taken:.1f} s"
    assert used < megabytes, f"{what}: {used:.0f} MB"
    return Outcome(sentence, taken, used)


class Tally:
    """Counts the outcomes of one kind of file."""

    def __init__(self, kind: str):
        self.kind = kind
        self.counts: Counter[str] = Counter()
        self.seconds = self.megabytes = 0.0

    def add(self, outcome: Outcome) -> None:
        self.counts["sentence" if outcome.sentence else "result"] += 1
        self.seconds, self.megabytes = max(self.seconds, outcome.seconds), max(self.megabytes, outcome.megabytes)

    def row(self) -> str:
        """Returns the row of the table in docs/security.md."""
        n, result, sentence = self.counts.total(), self.counts["result"], self.counts["sentence"]
        return f"| {self.kind} | {n:,} | {result:,} | {sentence:,} | {self.seconds:.2f} | {self.megabytes:.0f} |"


def read_all(
    kind: str, path: Path, cases: Iterator[tuple[str, bytes]], read: Callable[[Path], Any], **limits: Any
) -> Tally:
    """Writes the bytes of each case (its name, the bytes) to `path` and reads them; returns the tally."""
    tally = Tally(kind)
    for name, data in cases:
        path.write_bytes(data)
        tally.add(attempt(lambda: read(path), f"{kind}, {name}", **{"names": path.name, **limits}))
    return tally


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(signum: int, frame: types.FrameType | None) -> None:
        raise TooSlow

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, WAITED))
    before = {number: signal.signal(number, stop) for number, _, _ in timers}
    try:
        for _, timer, limit in timers:
            signal.setitimer(timer, limit)
        yield
    finally:
        for number, timer, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def _reset_peak() -> float:
    """Sets the peak of the memory of the process to what it has now, where the system can; returns it in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
