"""What follows from the scores of evaluations: a lower learning rate on a plateau, and the end of the run.

The best score, the evaluations since it, and the share of the learning rate are arrays in the optimiser's state, so
that a checkpoint has them and a resumed run takes the same decisions. The training step reads the share alone; the loop
sets all of them after each evaluation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxseg.state import TrainState
from jaxseg.types import PyTree


class Progress(NamedTuple):
    """How the scores of the evaluations so far went.

    Attributes:
        share: f32[], of the learning rate of the schedule.
        best: f32[], the highest score; -inf before the first.
        stale: i32[], evaluations since it.
        waited: i32[], evaluations since it or since the last reduction of the rate.
    """

    share: Any
    best: Any
    stale: Any
    waited: Any


def following_progress(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns what multiplies the updates of `tx` by the share of the learning rate in its state, at first 1."""
    return optax.chain(tx, optax.GradientTransformation(lambda params: _first(), _scaled))


def _first() -> Progress:
    return Progress(jnp.float32(1), jnp.float32(-jnp.inf), jnp.int32(0), jnp.int32(0))


def _scaled(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
    del params
    return jax.tree.map(lambda update: state.share * update, updates), state


def progress_of(opt_state: PyTree) -> Progress:
    """Returns the progress in the state of an optimiser of `following_progress`."""
    return next(node for node in jax.tree.leaves(opt_state, is_leaf=_is_progress) if _is_progress(node))


def with_progress(opt_state: PyTree, progress: Progress) -> PyTree:
    """Returns the state of an optimiser with another progress."""
    return jax.tree.map(lambda node: progress if _is_progress(node) else node, opt_state, is_leaf=_is_progress)


def _is_progress(node: Any) -> bool:
    return isinstance(node, Progress)


def after_evaluation(
    progress: Progress, score: float, *, patience: int = 0, factor: float = 1.0, end: float = 0.0
) -> Progress:
    """Returns the progress after an evaluation, as NumPy arrays.

    With a `patience` above 0, the share of the rate is multiplied by `factor` after as many evaluations in a row
    without a higher score, and the next ones are counted from there. torch's ReduceLROnPlateau does the same with
    mode="max", threshold=0, eps=0 and a patience that is lower by one.

    Args:
        progress: on the host.
        score: of the evaluation; NaN, of a split without labels, changes nothing.
        patience: evaluations; 0: the rate stays.
        factor: of the rate.
        end: the smallest share.
    """
    share, best, stale, waited = (np.asarray(value) for value in progress)
    if np.isnan(score):
        return Progress(share, best, stale, waited)
    if np.float32(score) > best:
        best, stale, waited = np.float32(score), np.int32(0), np.int32(0)
    else:
        stale, waited = np.int32(stale + 1), np.int32(waited + 1)
    if patience and waited >= patience:
        share, waited = np.float32(max(share * factor, end)), np.int32(0)
    return Progress(*map(np.asarray, (share, best, stale, waited)))


def with_rate_of_progress(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a training step whose metric `learning_rate` is the share of that of the schedule."""

    def following(state: TrainState, *arguments: Any) -> tuple[TrainState, Any]:
        share = progress_of(state.opt_state).share
        state, metrics = step(state, *arguments)
        return state, {**metrics, "learning_rate": share * metrics["learning_rate"]}

    return following
