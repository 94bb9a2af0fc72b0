"""Stops a run whose loss, gradient or parameters are NaN or infinite, before they are saved."""

import math

from jaxseg.errors import NotFiniteError
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.report import StepMetrics


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
