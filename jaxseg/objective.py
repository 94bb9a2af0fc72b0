"""What a training step minimises, and what it logs of it: sums of the logits and heads, and a value of their totals."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxseg.errors import ArgumentError, counted
from jaxseg.losses import ClassSample, Loss, present_classes, sample_classes
from jaxseg.types import Key, PyTree

# The stream of a step's key for the sampled classes. Augmentation and dropout have `split(key)`, the streams 0 and 1.
_SAMPLE_STREAM = 2


class Report(NamedTuple):
    """What is logged of a loss.

    Attributes:
        loss: the loss f32[] of the network. Less than what the step minimises if that has the loss of a second player.
        terms: {name: f32[]}, the value of each part, before its weight.
    """

    loss: jax.Array
    terms: dict[str, jax.Array]


class HeadLoss(Protocol):
    """The loss of logits alone: of an auxiliary head, such as a `losses.Loss`."""

    @property
    def multilabel(self) -> bool:
        """Whether labels are sets of classes."""
        ...

    def stats(self, logits: jax.Array, labels: jax.Array, out: Mapping[str, Any]) -> PyTree:
        """f32[b,h,w,k], i32[b,h,w] -> sums; `out` holds no outputs of the network, but what a `step.Teach` gave."""
        ...

    def value(self, stats: PyTree) -> jax.Array:
        """Summed stats -> f32[]."""
        ...


class Objective(Protocol):
    """What training minimises: additive sums and one function of their totals, such as a `losses.Loss`."""

    @property
    def of_logits(self) -> HeadLoss:
        """The loss of an auxiliary head."""
        ...

    def stats(self, logits: jax.Array, labels: jax.Array, out: Mapping[str, Any]) -> PyTree:
        """f32[b,h,w,k], i32[b,h,w] -> sums; `out` is the learner's second output, with the step i32[] as "step"."""
        ...

    def value(self, stats: PyTree) -> jax.Array:
        """Summed stats -> f32[]."""
        ...

    def report(self, stats: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed stats -> the loss f32[] that is logged, and the value f32[] of each part by its name."""
        ...


def value_and_report(
    objective: Objective, aux_weight: float | Sequence[float], stats: Sequence[PyTree]
) -> tuple[jax.Array, Report]:
    """Returns L(S), with the weighted losses of the auxiliary heads, and what is logged of it.

    Args:
        objective: the objective.
        aux_weight: as for `step.make_train_step`.
        stats: the totals of the logits, then those of each auxiliary head.

    Raises:
        ArgumentError: if `aux_weight` has more or fewer numbers than there are auxiliary heads.
    """
    main, *aux = stats
    heads = [objective.of_logits.value(each) for each in aux]
    added = sum((w * head for w, head in zip(_weights(aux_weight, len(aux)), heads)), start=jnp.zeros(()))
    loss, terms = objective.report(main)
    named = {f"auxiliary{i}": head for i, head in enumerate(heads, start=1)}
    return objective.value(main) + added, Report(loss + added, {**terms, **named})


def classes_of_step(objective: Objective, labels: jax.Array, key: Key, axis_name: str | None) -> ClassSample | None:
    """Returns the classes that a step samples, one set for all devices and micro-batches; None if it takes all.

    Args:
        objective: the objective, whose `Loss.class_samples` is the number of classes.
        labels: i[b,h,w] before augmentation, which adds no class.
        key: of the step, equal on all devices.
        axis_name: the mapped axis that the batch is split over, if any.
    """
    if not isinstance(objective, Loss) or objective.class_samples is None:
        return None
    present = present_classes(labels, objective.num_classes)
    present = present if axis_name is None else jax.lax.psum(present, axis_name)
    return sample_classes(jax.random.fold_in(key, _SAMPLE_STREAM), present, objective.class_samples)


def with_classes(objective: Objective, chosen: ClassSample | None) -> Objective:
    """Returns the objective for the logits of the classes `chosen`; None: of all classes."""
    return dataclasses.replace(objective, chosen=chosen) if isinstance(objective, Loss) else objective


def _weights(weights: float | Sequence[float], outputs: int) -> tuple[float, ...]:
    if not isinstance(weights, Sequence):
        return (weights,) * outputs
    if len(weights) != outputs:
        has = f"{counted(outputs, 'auxiliary output')}"
        fewer = f", such as {tuple(weights[:outputs])}" if outputs < len(weights) else ""
        instead = f"give {counted(outputs, 'number')}{fewer}" if outputs else "give none, ()"
        raise ArgumentError(
            f"aux_weight (the key loss.aux_weights) has {counted(len(weights), 'number')}, {tuple(weights)}, but the "
            f"model has {has}: {instead}."
        )
    return tuple(weights)
