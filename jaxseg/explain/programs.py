"""Compiles the functions of this package for a run, each once."""

import functools
from collections.abc import Callable
from typing import Any

from jaxseg.compiler import compiler_options, jit
from jaxseg.run.load import Run


def program(run: Run, function: Callable[..., Any], **static: Any) -> Callable[..., Any]:
    """Returns `function(run.model, ..., **static)`, compiled with the run's options; the same call gives the same."""
    options = compiler_options(run.config.compile.options)
    return _program(function, run.model, tuple(sorted(options.items())), tuple(sorted(static.items())))


@functools.lru_cache(maxsize=64)
def _program(function: Callable[..., Any], model: Any, options: tuple[Any, ...], static: tuple[Any, ...]) -> Any:
    return jit(functools.partial(function, model, **dict(static)), dict(options))
