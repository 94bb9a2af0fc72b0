"""Which trials are stopped early, by their scores at the evaluations: the median rule, and Hyperband.

Both are pure functions of curves, and both compare a trial with those of smaller numbers alone: what a search that is
resumed decides about a trial is what it would have decided without the stop. A higher score is better.
"""

import binascii
import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple, TypeAlias

Curve: TypeAlias = Sequence[tuple[int, float]]
"""The (step, score) of each evaluation, in order."""

REDUCTION = 3


class Verdict(NamedTuple):
    """Why a trial is stopped: its score at a step, and the least score with which it would have gone on."""

    step: int
    score: float
    needed: float


def by_median(own: Curve, others: Sequence[Curve], startup: int, first: int = 0) -> Verdict | None:
    """Returns the first evaluation at which the best score so far is below the median of the others at that step.

    The median stopping rule (Golovin et al. 2017, Google Vizier, section 3.2.2), with the scores at the step in place
    of their running averages, as Optuna has it.

    Args:
        own: the curve of the trial.
        others: the curves of the trials to compare with, which have ended.
        startup: how many others there must be at least.
        first: the step before which no trial is stopped.
    """
    if len(others) < startup:
        return None
    best = -math.inf
    for step, score in own:
        best = max(best, score)
        at_step = [dict(curve)[step] for curve in others if step in dict(curve)]
        if step >= first and at_step and best < median(at_step):
            return Verdict(step, best, median(at_step))
    return None


def rungs_of_brackets(steps: int, first: int, reduction: int = REDUCTION) -> tuple[tuple[int, ...], ...]:
    """Returns the rungs of each bracket of Hyperband: the steps at which the worse of its trials are stopped.

    Bracket i has the rungs first · η^i, first · η^(i+1), ... below the last step. There are ⌊log_η(steps / first)⌋ + 1
    (Li et al. 2018, Hyperband, algorithm 1, of steps / first units).

    Args:
        steps: of a whole run.
        first: the step of the first rung.
        reduction: η, by which the trials of a rung are reduced.
    """
    rungs = []
    while first <= steps:
        rungs.append(first)
        first *= reduction
    return tuple(tuple(rung for rung in rungs[i:] if rung < steps) for i in range(len(rungs)))


def bracket_of(number: int, name: str, brackets: int, reduction: int = REDUCTION) -> int:
    """Returns the bracket of a trial: by chance, in the shares that Hyperband gives its brackets.

    Bracket i of n has the share ⌈n · η^s / (s + 1)⌉ with s = n - 1 - i, the number of its trials in algorithm 1. The
    chance is a digest of `name` and the number of the trial, as in Optuna.
    """
    sizes = [math.ceil(brackets * reduction**s / (s + 1)) for s in reversed(range(brackets))]
    left = binascii.crc32(f"{name}_{number}".encode()) % sum(sizes)
    for bracket, size in enumerate(sizes):
        left -= size
        if left < 0:
            return bracket
    raise AssertionError("the shares add up to the sum")


def by_halving(own: Curve, others: Sequence[Curve], rungs: Sequence[int], reduction: int = REDUCTION) -> Verdict | None:
    """Returns the first rung at which a trial is not among the best 1/η of those that have reached it.

    Asynchronous successive halving (Li et al. 2020, ASHA, algorithm 2) without trials that wait: of fewer than 2 η
    trials, the best alone goes on.

    Args:
        own: the curve of the trial.
        others: the curves of the other trials of its bracket, ended or not.
        rungs: see `rungs_of_brackets`.
        reduction: η.
    """
    for rung in rungs:
        at = _at_rung(own, rung)
        if at is None:
            return None
        scores = [score for _, score in filter(None, (_at_rung(curve, rung) for curve in others))]
        ranked = sorted([at[1], *scores], reverse=True)
        needed = ranked[max(len(ranked) // reduction, 1) - 1]
        if at[1] < needed:
            return Verdict(at[0], at[1], needed)
    return None


def _at_rung(curve: Curve, rung: int) -> tuple[int, float] | None:
    """Returns the first evaluation at or after a rung."""
    return next(((step, score) for step, score in curve if step >= rung), None)
