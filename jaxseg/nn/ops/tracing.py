"""Traces kept: a network calls the same function with the same shapes many times, and tracing is Python's time.

JAX keeps the trace of a branch of `lax.platform_dependent`, and of a function under `jax.jit`, for the next call with
the same function, shapes and settings. It cannot for a lambda, which is another function at each call.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import jax

_Function = TypeVar("_Function", bound=Callable[..., Any])


@functools.lru_cache(maxsize=None, typed=True)
def bound(function: Callable[..., Any], **values: Hashable) -> Callable[..., Any]:
    """Returns `function` with `values` for its last arguments; equal arguments give one and the same object."""
    return functools.partial(function, **values)


def traced_once(*static: str) -> Callable[[_Function], _Function]:
    """Decorates a function of arrays that is traced once for each of their shapes.

    Its operations become those of the program that calls it, as if it were not decorated. Beside its arguments it may
    read the mesh, which JAX tells apart, but not `forms.convolution_forms`, which JAX does not know.

    Args:
        static: the arguments that are no arrays.
    """
    return lambda function: cast(_Function, jax.jit(function, static_argnames=static, inline=True))
