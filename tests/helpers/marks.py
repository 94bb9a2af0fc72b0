"""Marks of tests."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

# Odd levels of a pyramid run the code of even ones, and that of padding and cropping.
at_each_size = pytest.mark.parametrize("size", [(65, 79), pytest.param((64, 96), marks=pytest.mark.slow)])


def some_slow(values: Iterable[Any], slow: Collection[Any]) -> list[Any]:
    """Returns the parameters of a test, those in `slow` with the mark: the others run the same code in less time."""
    return [pytest.param(value, marks=pytest.mark.slow) if value in slow else value for value in values]
