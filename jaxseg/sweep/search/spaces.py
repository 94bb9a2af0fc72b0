"""The values that a searched key may have: a range, or some values."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from jaxseg.arguments import Finite, Positive, check_value
from jaxseg.errors import ArgumentError

_FEW = 20  # whole numbers that are all looked at before a search starts


@dataclass(frozen=True)
class Uniform:
    """A number from `low` to `high`, each equally likely.

    Raises:
        ArgumentError: if these are not finite numbers with low < high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ends(self, Finite)


@dataclass(frozen=True)
class LogUniform:
    """A number above 0 from `low` to `high`, of which each factor is equally likely: the usual space of a rate.

    Raises:
        ArgumentError: if these are not numbers above 0 with low < high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ends(self, Positive)


@dataclass(frozen=True)
class Integer:
    """A whole number from `low` to `high`, both included; with `log` each factor is equally likely.

    Raises:
        ArgumentError: if these are not whole numbers with low < high, of at least 1 with `log`.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        check_value("log of Integer", self.log, bool)
        _check_ends(self, int)
        if self.log and self.low < 1:
            raise ArgumentError(f"Integer(low={self.low}, log=True): low must be at least 1 for a logarithm.")


@dataclass(frozen=True)
class Choice:
    """One of two or more values, each equally likely.

    Raises:
        ArgumentError: if there are fewer than two, or two are the same.
    """

    values: Sequence[Any]

    def __post_init__(self) -> None:
        values = check_value("values of Choice", self.values, tuple[Any, ...])
        if len(values) < 2 or len({label(value) for value in values}) < len(values):
            raise ArgumentError(f"values of Choice must be two or more different values, got {self.values!r}.")
        object.__setattr__(self, "values", values)


Space: TypeAlias = Uniform | LogUniform | Integer | Choice
SPACES = (Uniform, LogUniform, Integer, Choice)


def _check_ends(space: Any, hint: Any) -> None:
    name = type(space).__name__
    low, high = (check_value(f"{end} of {name}", getattr(space, end), hint) for end in ("low", "high"))
    if low >= high:
        raise ArgumentError(f"{name}(low={low}, high={high}): low must be less than high.")
    object.__setattr__(space, "low", low)
    object.__setattr__(space, "high", high)


def label(value: Any) -> str:
    """Returns a value as text that tells it from every other: its JSON."""
    return json.dumps(value)


def value_at(space: Space, share: float) -> Any:
    """Returns the value below which the `share` in [0, 1) of the space lies: of a uniform share, a value drawn."""
    if isinstance(space, Choice):
        return space.values[int(share * len(space.values))]
    if isinstance(space, Uniform):
        return min(space.low + share * (space.high - space.low), space.high)
    if isinstance(space, LogUniform):
        return min(max(space.low * (space.high / space.low) ** share, space.low), space.high)
    if space.log:
        return min(int(space.low * ((space.high + 1) / space.low) ** share), space.high)
    return space.low + int(share * (space.high + 1 - space.low))


def drawn(spaces: Mapping[str, Space], seed: int, number: int) -> dict[str, Any]:
    """Returns the values of a trial, drawn independently of all other trials: the same in any order of them."""
    shares = np.random.default_rng([seed, number]).random(len(spaces))
    return {key: value_at(spaces[key], float(share)) for key, share in zip(sorted(spaces), shares)}


def place_of(space: Space, value: Any) -> float | None:
    """Returns where a value lies on the axis of its space; None for a value that the space does not have.

    The axis is the number itself, its logarithm to the base 10 where factors are equally likely, or the index of a
    choice.
    """
    if isinstance(space, Choice):
        labels = [label(each) for each in space.values]
        return float(labels.index(label(value))) if label(value) in labels else None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not space.low <= value <= space.high:
        return None
    return math.log10(value) if is_log(space) else float(value)


def is_log(space: Space) -> bool:
    """Whether each factor is equally likely."""
    return isinstance(space, LogUniform) or (isinstance(space, Integer) and space.log)


def to_try(space: Space) -> list[Any]:
    """Returns the values that are checked before a search: all if they are few, else the ends and some between."""
    if isinstance(space, Choice):
        return list(space.values)
    if isinstance(space, Integer) and space.high - space.low < _FEW:
        return list(range(space.low, space.high + 1))
    between = [value_at(space, share / 10) for share in range(1, 10)]
    return [space.low, *between, space.high]


def ends(space: Space) -> list[Any]:
    """Returns the choices, or the two ends of a range."""
    return list(space.values) if isinstance(space, Choice) else [space.low, space.high]


def as_json(space: Space) -> dict[str, Any]:
    """Returns a space as JSON values; see `from_json`."""
    return {"kind": type(space).__name__, **asdict(space)}


def from_json(values: Mapping[str, Any]) -> Space:
    """Returns the space of `as_json`; raises KeyError, TypeError or ArgumentError for anything else."""
    kinds = {kind.__name__: kind for kind in SPACES}
    return kinds[values["kind"]](**{name: value for name, value in values.items() if name != "kind"})
