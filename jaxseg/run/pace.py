"""How long a run takes: times as text, the time that is left by its first steps, and by all that was measured."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxseg.errors import counted

_STEPS = 5  # that are timed; the first step of all is not, since it compiles
_LEAST = 60.0  # seconds; a run that ends sooner needs no forecast
_LONG = 3600.0  # seconds, from which it is said what would be quicker
_RECENT = 200  # steps whose mean is the time of the next: a machine that others use has slower hours


def duration(seconds: float) -> str:
    """Returns a time in seconds as text such as "2 h 05 min" or "3 min 07 s"; "?" for NaN and infinity."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@dataclass
class Pace:
    """Says once, from the first steps of a start, how long the others take.

    Attributes:
        total: steps of the whole run.
        advice: what would be quicker, for a run that takes long; "" if nothing is known.
    """

    total: int
    advice: str = ""
    _seconds: list[float] = field(default_factory=list)

    def add(self, step: int, seconds: float | None) -> str:
        """Returns the forecast after the last of the timed steps, if the run takes a minute or more; else "".

        Args:
            step: the number of steps made.
            seconds: the time of this step; None if it was not measured.
        """
        if seconds is None or len(self._seconds) == _STEPS:
            return ""
        self._seconds.append(seconds)
        if len(self._seconds) < _STEPS:
            return ""
        mean, steps = sum(self._seconds) / _STEPS, self.total - step
        left = mean * steps
        if left < _LEAST:
            return ""
        quicker = f"; quicker: {self.advice}" if self.advice and left >= _LONG else ""
        return (
            f"about {duration(left)} for the {counted(steps, 'step')} left ({mean:.2g} s a step), evaluations not "
            f"counted{quicker}"
        )


@dataclass(frozen=True)
class Rhythm:
    """What comes between the steps of a run.

    Attributes:
        evaluations: steps between evaluations, each with its checkpoint and pictures; the last step has one. 0: none.
        checkpoints: steps between checkpoints. 0: none.
        may_end_early: whether the run may end before its last step.
        epoch: steps of one pass over the training images; 0: not known.
    """

    evaluations: int = 0
    checkpoints: int = 0
    may_end_early: bool = False
    epoch: float = 0.0

    def evaluations_after(self, step: int, total: int) -> int:
        """Returns how many evaluations follow those of `step`, up to the last step, `total`."""
        every = self.evaluations
        return total // every - step // every + (total % every > 0) if every and step < total else 0

    def checkpoints_after(self, step: int, total: int) -> int:
        """Returns how many checkpoints follow that of `step` at steps that are not evaluated."""
        every = self.checkpoints
        if not every or step >= total:
            return 0
        count = total // every - step // every
        if not self.evaluations:
            return count
        both = math.lcm(every, self.evaluations)
        last = total % every == 0 and total % self.evaluations > 0
        return count - (total // both - step // both) - last


class Left(NamedTuple):
    """What is left of a run.

    Attributes:
        seconds: of all whose time is known; NaN before a step is timed.
        evaluations, checkpoints: how many are ahead of which none has been timed yet.
    """

    seconds: float
    evaluations: int
    checkpoints: int


class Times:
    """The measured times of one start: of its steps, and of the pauses between them for evaluations and checkpoints.

    A pause lasts from the end of a step to the dispatch of the next, so that all that happens there counts: the
    evaluation, its pictures, the checkpoint, the next batch.
    """

    def __init__(self, rhythm: Rhythm, total: int):
        """Args:
        rhythm: of the run.
        total: steps of the whole run.
        """
        self.rhythm, self.total = rhythm, total
        self._steps: deque[float] = deque(maxlen=_RECENT)
        self._evaluations: list[float] = []
        self._checkpoints: list[float] = []
        self._paused: float | None = None
        self._evaluates = False

    def step(self, seconds: float) -> None:
        """Takes the time of a step."""
        self._steps.append(seconds)

    def pause(self, now: float) -> None:
        """Takes the time at which a pause begins; nothing happens in a pause."""
        if self._paused is None:
            self._paused, self._evaluates = now, False

    def evaluates(self) -> None:
        """Says that the pause that has begun is for an evaluation."""
        self._evaluates = True

    def go_on(self, now: float) -> None:
        """Takes the time at which a pause ends, if there is one."""
        if self._paused is not None:
            (self._evaluations if self._evaluates else self._checkpoints).append(now - self._paused)
            self._paused = None

    def left(self, step: int, now: float) -> Left:
        """Returns what is left after `step` steps, at the time `now`."""
        if step < self.total and not self._steps:
            return Left(math.nan, 0, 0)
        seconds = (self.total - step) * sum(self._steps) / len(self._steps) if self._steps else 0.0
        evaluations = self.rhythm.evaluations_after(step, self.total)
        checkpoints = self.rhythm.checkpoints_after(step, self.total)
        evaluation, checkpoint = _typical(self._evaluations), _typical(self._checkpoints)
        if evaluation is not None:
            seconds += evaluations * evaluation
            if self._paused is not None and self._evaluates:
                seconds += max(0.0, evaluation - (now - self._paused))
        if checkpoint is not None:
            seconds += checkpoints * checkpoint
        return Left(seconds, evaluations if evaluation is None else 0, checkpoints if checkpoint is None else 0)

    def words(self, step: int, now: float) -> str:
        """Returns the time that is left after `step` steps as text, such as "about 3 min 07 s left"."""
        left = self.left(step, now)
        if math.isnan(left.seconds):
            return "time left not known yet"
        about = "at most" if self.rhythm.may_end_early and step < self.total else "about"
        untimed = [
            counted(count, what)
            for count, what in ((left.evaluations, "evaluation"), (left.checkpoints, "checkpoint"))
            if count
        ]
        ahead = f", plus {' and '.join(untimed)}" if untimed else ""  # which none has shown the time of
        return f"{about} {duration(left.seconds)} left{ahead}"


def _typical(seconds: list[float]) -> float | None:
    """Returns the mean time; the first, in which programs compile, counts only while there is no other."""
    later = seconds[1:] or seconds
    return sum(later) / len(later) if later else None
