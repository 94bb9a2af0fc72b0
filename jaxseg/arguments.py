"""Checks arguments by signature and annotation, before anything is computed.

An annotation says all that a value has to be: `Annotated[int, at_least(1)]` is "a whole number of at least 1",
`Literal["jit", "pmap"]` is "one of 'jit', 'pmap'". An invalid value gives one sentence, "X must be ..., got ...", with
the nearest right word where there is one. `checked` decorates a function, `check` takes names and annotations.
"""

import collections.abc
import functools
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from jaxseg.errors import ArgumentError, ConfigError, nearest

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Where:
    """A condition on a value, for `Annotated[type, Where(...)]`.

    Attributes:
        holds: whether a value of the type meets it.
        words: what follows the words of the type: "of at least 1" after "a whole number".
        instead: words that replace those of the type: "(height, width) in whole pixels".
    """

    holds: Callable[[Any], bool]
    words: str = ""
    instead: str = ""


def at_least(low: float) -> Where:
    """Returns the condition low <= value < inf."""
    return Where(lambda value: low <= value < math.inf, f"of at least {low}")


def above(low: float) -> Where:
    """Returns the condition low < value < inf."""
    return Where(lambda value: low < value < math.inf, f"above {low}")


def within(low: float, high: float) -> Where:
    """Returns the condition low <= value <= high."""
    return Where(lambda value: low <= value <= high, f"in [{low}, {high}]")


def from_to_below(low: float, high: float) -> Where:
    """Returns the condition low <= value < high."""
    return Where(lambda value: low <= value < high, f"in [{low}, {high})")


def one_or_more(words: str) -> Where:
    """Returns the condition that a tuple is not empty; `words` name its elements."""
    return Where(lambda value: len(value) > 0, instead=f"a tuple of one or more {words}")


Count = Annotated[int, at_least(1)]
WholeNotNegative = Annotated[int, at_least(0)]
NotNegative = Annotated[float, at_least(0)]
Positive = Annotated[float, above(0)]
AtLeastOne = Annotated[float, at_least(1)]
Finite = Annotated[float, Where(math.isfinite, instead="a finite number")]
Share = Annotated[float, within(0, 1)]
BelowOne = Annotated[float, from_to_below(0, 1)]
BelowHalf = Annotated[float, from_to_below(0, 0.5)]
UpToHalf = Annotated[float, within(0, 0.5)]
UpTo32 = Annotated[float, within(0, 32)]
PositiveShare = Annotated[float, Where(lambda value: 0 < value <= 1, "in (0, 1]")]
Quality = Annotated[int, within(0, 100)]
UpToTen = Annotated[float, within(0, 10)]
AlphaOfBeta = Annotated[float, Where(lambda value: 0.01 <= value <= 32, "in [0.01, 32]")]
Operations = Annotated[int, within(0, 14)]

# What configuration keys and the functions that take their values share.
MIXING = ("cutmix", "classmix", "copy_paste", "mixup")  # the keys of `augment` that take more than one image, and how:
MIXING_OPTIONS = ("copy_paste_of", "copy_paste_classes", "copy_paste_scale", "copy_paste_flip", "mixup_alpha")
StrategyName = Literal["jit", "pmap"]
ScheduleName = Literal["constant", "poly", "cosine", "exponential", "step", "plateau"]
Boundaries = Annotated[
    tuple[Count, ...],
    Where(lambda steps: list(steps) == sorted(set(steps)), instead="ascending whole numbers of at least 1"),
]
Size = Annotated[
    tuple[int, ...], Where(lambda v: _is_size(v), instead="(height, width) in whole pixels, such as (64, 64)")
]
SizeOrNone = Annotated[
    tuple[int, ...], Where(lambda v: not v or _is_size(v), instead="(height, width) in whole pixels, or empty")
]
Tiles = Annotated[
    str,
    Where(
        lambda v: not v or re.fullmatch(r"[1-9]\d*x[1-9]\d*", v) is not None,
        instead="the height and width of a tile in pixels, such as 256x512, or empty",
    ),
]
_AMOUNT = re.compile(r"\d+(\.\d+)? ?([kKMG]B|[KMG]iB)")
Amount = Annotated[str, Where(lambda v: _AMOUNT.fullmatch(v) is not None, instead="an amount such as 6GB or 500 MiB")]
Memory = Annotated[
    str,
    Where(
        lambda v: v in ("", "off") or _AMOUNT.fullmatch(v) is not None,
        instead="an amount such as 6GB or 500 MiB, off, or empty",
    ),
]
Zoom = Annotated[
    tuple[float, ...],
    Where(lambda v: len(v) == 2 and 0 < v[0] <= v[1] < math.inf, instead="(low, high) with 0 < low <= high"),
]


def _is_size(value: tuple[int, ...]) -> bool:
    return len(value) == 2 and min(value) > 0


def annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns {name: annotation} of the keyword-only arguments of a function, in its order."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def check(owner: str, values: Mapping[str, Any], hints: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns `values` in the types of `hints`: a list becomes a tuple, a whole number a float.

    Args:
        owner: what takes the arguments, for the message: "the loss dice".
        values: {name: value}.
        hints: {name: annotation} of every argument that `owner` takes.
        prefix: stands before each name in a message: "dice.".

    Raises:
        ArgumentError: for a name that `owner` does not take (naming the nearest), or an invalid value.
    """
    for name in values:
        if name not in hints:
            raise ArgumentError(f"{prefix}{name} is not an argument of {owner}.{nearest(name, hints)}")
    return {name: check_value(f"{prefix}{name}", value, hints[name]) for name, value in values.items()}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Returns `function` with all its arguments checked against their annotations at each call.

    The result raises TypeError for a missing or unknown argument, as Python does, and ArgumentError for an invalid
    value.
    """
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function, include_extras=True)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = check_value(name, value, hints[name])
        return function(*bound.args, **bound.kwargs)

    return call


def check_value(name: str, value: Any, hint: Any, *, type_only: bool = False) -> Any:
    """Returns `value` in the type of the annotation `hint`.

    Args:
        name: what the message calls the value.
        value: any value.
        hint: an annotation: a type, `Literal`, `Annotated` with `Where`, a union, a tuple of any of these, or `Any`.
        type_only: leaves out the conditions and choices of the value itself (its elements are checked in full).

    Raises:
        ArgumentError: for an invalid value.
    """
    result = _convert(value, bare(hint) if type_only else hint)
    if result is _INVALID:
        choices = [choice for choice in typing.get_args(hint) if isinstance(choice, str)] if _is_literal(hint) else []
        near = nearest(value, choices, listing=False) if isinstance(value, str) else ""
        raise ArgumentError(f"{name} must be {describe(hint)}, got {value!r}.{near}")
    return result


def bare(hint: Any) -> Any:
    """Returns the type of an annotation, without its own conditions and choices."""
    if typing.get_origin(hint) is Annotated:
        return bare(typing.get_args(hint)[0])
    return type(typing.get_args(hint)[0]) if _is_literal(hint) else hint


_INVALID = object()
_UNIONS = (typing.Union, types.UnionType)


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Literal


def _convert(value: Any, hint: Any) -> Any:
    """Returns `value` in the type of `hint`, or _INVALID."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return as_tuples(value)
    if hint is tuple:
        return as_tuples(value) if isinstance(value, list | tuple) else _INVALID
    if origin is Annotated:
        result = _convert(value, args[0])
        holds = result is not _INVALID and all(w.holds(result) for w in args[1:] if isinstance(w, Where))
        return result if holds else _INVALID
    if origin in _UNIONS:
        results = [result for arg in args if (result := _convert(value, arg)) is not _INVALID]
        same = [result for result in results if type(result) is type(value)]
        return (same or results or [_INVALID])[0]
    if origin is typing.Literal:
        return value if any(type(value) is type(arg) and value == arg for arg in args) else _INVALID
    if origin is tuple:
        return _convert_tuple(value, args)
    if hint is None:
        return value if value is None else _INVALID
    if hint is float:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _INVALID
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _INVALID
    if hint is Callable or origin is collections.abc.Callable:
        return value if callable(value) else _INVALID
    return value if isinstance(value, origin or hint) else _INVALID


def as_tuples(value: Any) -> Any:
    """Returns `value` with a tuple for every list, at any depth of lists and tuples."""
    return tuple(as_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _convert_tuple(value: Any, args: tuple[Any, ...]) -> Any:
    if not isinstance(value, list | tuple):
        return _INVALID
    hints = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(hints) != len(value):
        return _INVALID
    result = tuple(_convert(element, hint) for element, hint in zip(value, hints))
    return _INVALID if any(element is _INVALID for element in result) else result


_ONE = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    dict: "a dictionary",
    tuple: "a tuple",
    collections.abc.Sequence: "a sequence",
    collections.abc.Mapping: "a mapping",
    collections.abc.Callable: "a callable",
    types.NoneType: "None",
    None: "None",
    Any: "anything",
}
_MANY = _ONE | {
    int: "whole numbers",
    float: "numbers",
    str: "words",
    tuple: "tuples",
    collections.abc.Callable: "callables",
}


def describe(hint: Any) -> str:
    """Returns the words that complete "X must be ..." for an annotation: "a whole number of at least 1"."""
    return _describe(hint, many=False)


def describe_many(hint: Any) -> str:
    """Returns the words for several values of an annotation: "whole numbers of at least 1"."""
    return _describe(hint, many=True)


def _describe(hint: Any, many: bool) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    words = _MANY if many else _ONE
    if origin is Annotated:
        conditions = [w for w in args[1:] if isinstance(w, Where)]
        text = next((w.instead for w in reversed(conditions) if w.instead), _describe(args[0], many))
        return " ".join([text, *(w.words for w in conditions if w.words)])
    if origin in _UNIONS:
        return " or ".join(_describe(arg, many) for arg in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple:
        each, number = _describe(args[0], many=True), "" if args[-1] is Ellipsis else f"{len(args)} "
        return f"{'tuples' if many else 'a tuple'} of {number}{each}"
    kind = origin or (collections.abc.Callable if hint is Callable else hint)
    if kind in words:
        return words[kind]
    return f"of type {kind.__name__ if isinstance(kind, type) else kind}"


def exact_fraction(text: str) -> Fraction:
    """Returns a number such as 0.05, 1/64 or 5e-2 exactly; raises ValueError or ZeroDivisionError for other text.

    Of 1e999999999, which would fill the memory with digits, it is a ValueError.
    """
    _, _, exponent = text.lower().partition("e")
    if len(text) > 40 or len(exponent.strip().lstrip("+-0")) > 2:
        raise ValueError(f"{text[:40]!r} is no number of a usual size")
    return Fraction(text.strip())


def expanded(path: str | Path) -> Path:
    """Returns a path that a user gave, with `~` or `~NAME` at its start replaced by that home folder, as in a shell.

    A `~NAME` that is no user stays: it may be a file.

    Raises:
        ConfigError: if this user has no home folder, as one of a container that has a number but no name.
    """
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError as error:
        if path.parts[0] != "~":
            return path
        raise ConfigError(f"{path} begins with ~, but this user has no home folder; give the whole path.") from error


def located(path: str | Path) -> str:
    """Returns a path in quotes; for a relative one also the folder that it starts from, for messages."""
    place = "" if Path(path).is_absolute() else f" (relative to {os.getcwd()}, the folder of this command)"
    return f"{str(path)!r}{place}"
