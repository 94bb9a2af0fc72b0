"""The fields of a Linen module that a user may set, with the annotations that `jaxseg.arguments` checks."""

import dataclasses
import functools
import operator
import types
import typing
from typing import Annotated, Any

from jaxseg.arguments import Count, describe_many, one_or_more

# Fields that a user does not set by name: those of Linen, and the `Layers` that `models.build` makes.
_NOT_SET = ("parent", "name", "common")


def field_names(cls: type) -> tuple[str, ...]:
    """Returns the names of the fields that a user may set."""
    return tuple(f.name for f in dataclasses.fields(cls) if f.init and f.name not in _NOT_SET)


def field_hints(cls: type) -> dict[str, Any]:
    """Returns {name: annotation} of the fields that a user may set.

    Whole numbers are counts in a network, so they must be at least 1, and tuples must not be empty.
    """
    names = field_names(cls)
    return {f.name: counted(f.type) for f in dataclasses.fields(cls) if f.name in names}


def counted(hint: Any) -> Any:
    """Returns the annotation `hint` with `Count` for every int, and with one or more elements in every tuple."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is int:
        return Count
    if origin is tuple and args[-1] is Ellipsis:
        element = counted(args[0])
        return Annotated[tuple[element, ...], one_or_more(describe_many(element))]
    if origin is tuple:
        return tuple[tuple(map(counted, args))]
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(counted, args))
    return hint
