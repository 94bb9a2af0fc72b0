"""How long a run takes: times as text, and the time that is left by its first steps."""

import math
from dataclasses import dataclass, field

from jaxseg.errors import counted

_STEPS = 5  # that are timed; the first step of all is not, since it compiles
_LEAST = 60.0  # seconds; a run that ends sooner needs no forecast
_LONG = 3600.0  # seconds, from which it is said what would be quicker


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
