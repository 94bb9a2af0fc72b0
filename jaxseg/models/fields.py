"""Checks keyword arguments against the dataclass fields of a Linen module, before anything is traced."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from jaxseg.errors import nearest

# Fields that a user does not set by name: those of Linen, and the `Layers` that `models.build` makes.
_NOT_SET = ("parent", "name", "common")


def field_names(cls: type) -> tuple[str, ...]:
    """Returns the names of the fields that a user may set."""
    return tuple(f.name for f in dataclasses.fields(cls) if f.init and f.name not in _NOT_SET)


def checked(owner: str, cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` with lists turned into tuples, once every name and type agrees with a field of `cls`.

    Whole numbers are counts in a network, so they must be at least 1, and tuples of them not empty.

    Raises:
        ValueError: for a name that is no field (naming the nearest), a value of another type than the field's, or a
            count below 1.
    """
    hints = {f.name: f.type for f in dataclasses.fields(cls) if f.name in field_names(cls)}
    result = {}
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"{owner} has no field {name!r}.{nearest(name, hints)}")
        value = _tuples(value)
        if not _accepts(value, hints[name]):
            raise ValueError(f"{owner}: {name} must be {_describe(hints[name])}, got {value!r}.")
        counts = value if isinstance(value, tuple) else (value,)
        if not counts:
            raise ValueError(f"{owner}: {name} must not be empty.")
        if any(isinstance(n, int) and not isinstance(n, bool) and n < 1 for n in counts):
            raise ValueError(f"{owner}: {name} must be at least 1, got {value!r}.")
        result[name] = value
    return result


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _accepts(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_accepts(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(_accepts(v, args[0]) for v in value)
    if hint is None or hint is types.NoneType:
        return value is None
    if hint is Callable or origin is Callable:
        return callable(value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)


def _describe(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "text", types.NoneType: "None"}
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin is tuple:
        return f"a tuple, each element {_describe(args[0])}"
    if hint is Callable or origin is Callable:
        return "a callable"
    return words[hint] if hint in words else str(hint)
