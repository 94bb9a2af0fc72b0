"""The number of the training step, for layers whose behaviour follows a schedule, such as EoMT's mask annealing.

A step gives it with `at_step`; a layer asks for it with `current_step` while it is traced. It is an array of the step's
program, the count of its state, so that a resumed run goes on where it stopped; no variable of the network holds it.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax


class _Tracing(threading.local):
    step: jax.Array | None = None


_TRACING = _Tracing()


def at_step(apply: Callable[..., Any], step: jax.Array) -> Callable[..., Any]:
    """Returns `apply` with `current_step` giving `step`, i32[], to the layers that it calls."""

    @functools.wraps(apply)
    def applied(*args: Any, **kwargs: Any) -> Any:
        before, _TRACING.step = _TRACING.step, step
        try:
            return apply(*args, **kwargs)
        finally:
            _TRACING.step = before

    return applied


def current_step() -> jax.Array | None:
    """Returns the number of the training step i32[] that is traced, from 0; None outside of a training step."""
    return _TRACING.step
