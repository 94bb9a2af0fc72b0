"""What the training loop asks after a step: what is due, whether to stop, and whether the numbers are finite."""

import math
from dataclasses import dataclass

import jax

from jaxseg.config import ConfigDict
from jaxseg.errors import NotFiniteError
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.report import StepMetrics
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


def what_is_due(config: ConfigDict, step: int, stop: StopRequest, until: int | None = None) -> Due:
    """Returns what follows the step; the last one is always evaluated, and a run stops after the step `until`."""
    return Due(
        evaluation=step == config.steps or step % config.eval.every == 0,
        checkpoint=step % config.checkpoint.every == 0,
        stop=(until is not None and step >= until) or asked_to_stop(config, step, stop),
    )


def asked_to_stop(config: ConfigDict, step: int, stop: StopRequest) -> bool:
    """Returns whether a signal has come; with several processes, they exchange this only at the log steps."""
    return (jax.process_count() == 1 or step % config.log.every == 0) and stop.agreed()


def require_finite(done: StepMetrics | None, checkpoints: Checkpoints) -> None:
    """Raises NotFiniteError if the loss or the gradient of a step, or the parameters after it, are NaN or infinite."""
    if done is not None and not done.finite:
        norms = f"norm of the gradient {done.grad_norm}, norm of the parameters {done.param_norm}"
        raise NotFiniteError(
            f"The training diverged at step {done.step} (loss {done.loss}, {norms}); {_advice(checkpoints)}"
        )


def require_finite_loss(loss: float, step: int, checkpoints: Checkpoints) -> None:
    """Raises NotFiniteError if the validation loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise NotFiniteError(f"The validation loss is {loss} at step {step}; {_advice(checkpoints)}")


def _advice(checkpoints: Checkpoints) -> str:
    checkpoints.wait()
    good = checkpoints.latest_step()
    last = "there is no checkpoint yet" if good is None else f"the last good checkpoint is {checkpoints.path(good)}"
    return (
        f"{last}. Try a lower optimizer.learning_rate, a longer schedule.warmup, optimizer.clip=1, or dtype=float32, "
        "in a new workdir."
    )
