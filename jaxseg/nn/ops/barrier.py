"""Keeps XLA on CPUs from computing something long before it is needed, which takes memory until then."""

from typing import Any

import jax
from jax import lax
from jax.core import Tracer


def after_all(*values: Any) -> tuple[Any, ...]:
    """Returns the pytrees of arrays unchanged; on a CPU, what reads one of them is computed after all of them.

    The backward pass of a convolution reads the kernel transposed, for example. XLA transposes it where it finds it, at
    the start of the program, and keeps the result until then, like a second copy of the parameters. A barrier also
    keeps XLA from merging an operation that reads a result with an equal one that reads the value. Other devices fuse
    more, and what a barrier does there was not measured: there is none.
    """
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values)):
        return values  # without `jit`, operations are computed one by one
    return lax.platform_dependent(*values, cpu=_barrier, default=_unchanged)


def _barrier(*values: Any) -> tuple[Any, ...]:
    return lax.optimization_barrier(values)


def _unchanged(*values: Any) -> tuple[Any, ...]:
    return values
