"""Stops a run whose numbers are no longer finite, before anything of it is saved."""

import math

from jaxseg.errors import NotFiniteError
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.report import StepMetrics


def require_finite(done: StepMetrics | None, checkpoints: Checkpoints) -> None:
    """Stops the run where the metrics of a step, or the parameters after it, are NaN or infinite."""
    if done is not None and not done.finite:
        what = f"loss {done.loss}, norm of the gradient {done.grad_norm}, norm of the parameters {done.param_norm}"
        raise NotFiniteError(f"The training diverged at step {done.step} ({what}); {_what_to_try(checkpoints)}")


def require_finite_loss(loss: float, step: int, checkpoints: Checkpoints) -> None:
    """Stops the run where the validation loss of labelled pixels is NaN or infinite."""
    if not math.isfinite(loss):
        raise NotFiniteError(f"The validation loss is {loss} at step {step}; {_what_to_try(checkpoints)}")


def _what_to_try(checkpoints: Checkpoints) -> str:
    checkpoints.wait()
    good = checkpoints.latest_step()
    where = "there is no checkpoint yet" if good is None else f"the last good checkpoint is {checkpoints.path(good)}"
    return (
        f"{where}. Try a lower optimizer.learning_rate, a longer schedule.warmup, optimizer.clip=1, or dtype=float32, "
        "in a new workdir."
    )
