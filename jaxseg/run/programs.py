"""The programs that a training starts with, the initialisation and the step: traced once, before a file is written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jaxseg.build import Parts
from jaxseg.compiler import options_for_once
from jaxseg.parallel import Strategy
from jaxseg.run.check import trace_training
from jaxseg.run.preflight import Ahead, ahead_of_training
from jaxseg.state import TrainState


@dataclass(frozen=True)
class Programs:
    """The programs of a run.

    Attributes:
        init: key -> initial state; compiled at its first call.
        state: the shapes of the state.
        train_step: (state, batch, key) -> (state, metrics); compiled and checked by its `compile`.
    """

    init: Callable[..., TrainState]
    state: TrainState
    train_step: Ahead


def make_programs(parts: Parts, strategy: Strategy) -> Programs:
    """Returns the programs, traced: an invalid value fails here, and their first calls find these traces.

    Raises:
        ConfigError: for an invalid value; the message names the key.
    """
    init = jax.jit(parts.init, compiler_options=options_for_once())
    train_step = ahead_of_training(parts, strategy)
    if parts.config.strategy != "jit":  # `check` has traced the step
        return Programs(init, init.eval_shape(jax.eval_shape(jax.random.key, 0)), train_step)

    def shapes(*arguments: Any) -> Any:
        return train_step.eval_shape(*strategy.placed_shapes(*arguments))

    return Programs(init, trace_training(parts, init.eval_shape, shapes), train_step)
