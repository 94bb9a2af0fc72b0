"""Checks keyword arguments against the dataclass fields of a Linen module, before anything is traced."""

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from jaxseg.arguments import Count, check_value, describe_many, one_or_more
from jaxseg.errors import ArgumentError, nearest

# Fields that a user does not set by name: those of Linen, and the `Layers` that `models.build` makes.
_NOT_SET = ("parent", "name", "common")


def field_names(cls: type) -> tuple[str, ...]:
    """Returns the names of the fields that a user may set."""
    return tuple(f.name for f in dataclasses.fields(cls) if f.init and f.name not in _NOT_SET)


def checked(owner: str, cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` in the types of the fields of `cls`: a list becomes a tuple.

    Whole numbers are counts in a network, so they must be at least 1, and tuples must not be empty.

    Raises:
        ArgumentError: for a name that is no field (naming the nearest), a value of another type than the field's, or a
            count below 1.
    """
    hints = {f.name: f.type for f in dataclasses.fields(cls) if f.name in field_names(cls)}
    for name in values:
        if name not in hints:
            raise ArgumentError(f"{owner} has no field {name!r}.{nearest(name, hints)}")
    return {name: check_value(f"{owner}: {name}", value, counted(hints[name])) for name, value in values.items()}


def counted(hint: Any) -> Any:
    """Returns the annotation `hint` with `Count` for every int, and with one or more elements in every tuple."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is int:
        return Count
    if origin is tuple and args[-1] is Ellipsis:
        element = Count if args[0] is int else args[0]
        return Annotated[tuple[element, ...], one_or_more(describe_many(element))]
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(counted, args))
    return hint
