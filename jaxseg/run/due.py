"""What follows a training step: an evaluation, a checkpoint, or the end that a signal asks for."""

from dataclasses import dataclass

import jax

from jaxseg.config import ConfigDict
from jaxseg.run.signals import StopRequest


@dataclass(frozen=True)
class Due:
    """What follows a step: an evaluation, a checkpoint, the end as a signal asked."""

    evaluation: bool
    checkpoint: bool
    stop: bool

    @property
    def anything(self) -> bool:
        return self.evaluation or self.checkpoint or self.stop


def what_is_due(config: ConfigDict, step: int, stop: StopRequest) -> Due:
    """Returns what follows the step; the last one is always evaluated."""
    last = step == config.steps
    if last:
        stop.finishing = "this was the last step; it is scored and saved, which ends the run"
    return Due(
        evaluation=last or step % config.eval.every == 0,
        checkpoint=step % config.checkpoint.every == 0,
        stop=asked_to_stop(config, step, stop),
    )


def asked_to_stop(config: ConfigDict, step: int, stop: StopRequest) -> bool:
    """Returns whether a signal asks the run to stop; several hosts ask each other at the same steps alone."""
    return (jax.process_count() == 1 or step % config.log.every == 0) and stop.agreed()
