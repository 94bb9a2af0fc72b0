"""Decides what follows a training step: an evaluation, a checkpoint, or a stop after a signal."""

from dataclasses import dataclass

import jax

from jaxseg.config import ConfigDict
from jaxseg.run.signals import StopRequest


@dataclass(frozen=True)
class Due:
    """What follows a step.

    Attributes:
        evaluation: whether to evaluate, which also saves a checkpoint.
        checkpoint: whether to save a checkpoint.
        stop: whether to stop, since a signal has come.
    """

    evaluation: bool
    checkpoint: bool
    stop: bool

    @property
    def anything(self) -> bool:
        return self.evaluation or self.checkpoint or self.stop


def what_is_due(config: ConfigDict, step: int, stop: StopRequest) -> Due:
    """Returns what follows the step; the last one is always evaluated."""
    return Due(
        evaluation=step == config.steps or step % config.eval.every == 0,
        checkpoint=step % config.checkpoint.every == 0,
        stop=asked_to_stop(config, step, stop),
    )


def asked_to_stop(config: ConfigDict, step: int, stop: StopRequest) -> bool:
    """Returns whether a signal has come; with several processes, they exchange this only at the log steps."""
    return (jax.process_count() == 1 or step % config.log.every == 0) and stop.agreed()
