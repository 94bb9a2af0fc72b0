"""What a tracker is told of a run when it starts, and what a tracker does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
"""How a start ends: at the last step, before it by a signal, or by an error."""


@dataclass(frozen=True)
class About:
    """A run as a tracker sees it.

    Attributes:
        workdir: the directory of the run.
        project: the project or experiment that it belongs to; "": what the client's environment says, else jaxseg.
        config: {dotted key: value}.
        known: the tracker's name for this run, from an earlier start; "" for a new run.
    """

    workdir: Path
    project: str
    config: Mapping[str, Any]
    known: str

    @property
    def name(self) -> str:
        """The name of the run for people: the last two folders of its workdir, without a `runs` around it."""
        *_, parent, own = ("", *self.workdir.parts)
        return own if parent in ("", "/", "runs") else f"{parent}/{own}"


class Tracker(Protocol):
    """A run in a tracker. All methods but `close` may raise what the client raises; they are called in one thread."""

    name: str
    """The tracker's name for the run, which continues it."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds finite numbers of a step, by names such as "train/loss"."""

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Adds the table of an evaluation."""

    def picture(self, step: int, name: str, images: np.ndarray) -> None:
        """Adds pictures u8[n,h,w,3]."""

    def final(self, values: Mapping[str, float]) -> None:
        """Adds the numbers of the whole run."""

    def close(self, how: str) -> None:
        """Ends this start; `how` is FINISHED, STOPPED or FAILED."""
