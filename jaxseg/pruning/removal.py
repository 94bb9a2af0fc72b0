"""Which channels of a network matter least, and the variables of the smaller network without them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxseg.pruning.channels import Group
from jaxseg.types import PyTree

Criterion: TypeAlias = Literal["l1", "scale", "taylor", "random"]
Score: TypeAlias = Callable[[Group], np.ndarray]


def by_norm(variables: Mapping[str, PyTree]) -> Score:
    """Returns group -> f64[n], the L1 norm of the filters that make each channel (Li et al. 2017, section 3.1).

    Where residual sums tie the filters of several layers together, their norms are added.
    """
    flat = flatten_dict(dict(variables), sep="/")
    return lambda group: _total(group, flat, ("kernel",), np.abs)


def by_scale(variables: Mapping[str, PyTree]) -> Score:
    """Returns group -> f64[n], the absolute scale of each channel's norms (Liu et al. 2017, section 3).

    Channels without a norm, such as those of an up-convolution, have the L1 norm of their filters.
    """
    flat = flatten_dict(dict(variables), sep="/")

    def score(group: Group) -> np.ndarray:
        normed = any(path.endswith("/scale") for path, _ in group.places)
        return _total(group, flat, ("scale",) if normed else ("kernel",), np.abs)

    return score


def by_taylor(variables: Mapping[str, PyTree], gradients: Sequence[PyTree]) -> Score:
    """Returns group -> f64[n], how much the loss changes without a channel, to first order.

    The sum of (g w)² over the parameters w that make the channel, its filters, biases and norms, is averaged over
    batches (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", equation 8).

    Args:
        variables: of the network.
        gradients: of the loss by the parameters, for each batch.
    """
    flat = flatten_dict({"params": variables["params"]}, sep="/")
    changes: dict[str, np.ndarray] = {}
    for tree in gradients:
        for path, gradient in flatten_dict({"params": tree}, sep="/").items():
            change = (np.asarray(gradient, np.float64) * np.asarray(flat[path], np.float64)) ** 2
            changes[path] = changes[path] + change if path in changes else change
    return lambda group: _total(group, changes, ("kernel", "bias", "scale"), lambda x: x / len(gradients))


def by_chance(seed: int) -> Score:
    """Returns group -> f64[n], random scores: the control of every criterion."""
    generator = np.random.default_rng(seed)
    return lambda group: generator.random(group.size)


def _total(
    group: Group, flat: Mapping[str, Any], names: Sequence[str], value: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Returns f64[n], the sum of `value` over the arrays of these names whose last axis has the channels."""
    score = np.zeros(group.size)
    for (path, axis), indices in group.places.items():
        if path.rpartition("/")[2] in names and path in flat and axis == np.ndim(flat[path]) - 1:
            lines = np.asarray(flat[path], np.float64).reshape(-1, np.shape(flat[path])[-1])
            score += value(lines)[:, indices].sum(axis=(0, 2))
    return score


def kept_channels(groups: Sequence[Group], score: Score) -> list[np.ndarray]:
    """Returns for each group the channels of the highest scores, ascending; of equal scores the first are kept."""
    chosen = []
    for group in groups:
        order = np.argsort(-score(group), kind="stable")
        chosen.append(np.sort(order[: group.kept]))
    return chosen


def without_channels(
    variables: Mapping[str, PyTree], groups: Sequence[Group], kept: Sequence[np.ndarray]
) -> dict[str, PyTree]:
    """Returns the variables of the smaller network: those of the large one at the channels `kept` of each group."""
    indices: dict[tuple[str, int], list[np.ndarray]] = {}
    for group, channels in zip(groups, kept, strict=True):
        for place, all_of_them in group.places.items():
            indices.setdefault(place, []).append(all_of_them[channels].reshape(-1))
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(dict(variables), sep="/").items()}
    for (path, axis), parts in indices.items():
        flat[path] = np.take(flat[path], np.sort(np.concatenate(parts)), axis=axis)
    return unflatten_dict(flat, sep="/")


def silenced(variables: Mapping[str, PyTree], groups: Sequence[Group], kept: Sequence[np.ndarray]) -> dict[str, PyTree]:
    """Returns the variables with 0 in place of all numbers of the channels that are not kept.

    The network with these computes the logits of `without_channels`: it is what the tests compare that with.
    """
    flat = {path: np.array(leaf) for path, leaf in flatten_dict(dict(variables), sep="/").items()}
    for group, channels in zip(groups, kept, strict=True):
        gone = np.setdiff1d(np.arange(group.size), channels)
        for (path, axis), indices in group.places.items():
            view = np.moveaxis(flat[path], axis, 0)
            view[indices[gone].reshape(-1)] = 0
    return unflatten_dict(flat, sep="/")


def removed(groups: Sequence[Group]) -> tuple[int, int]:
    """Returns (channels of the network that may be removed, those that are)."""
    free = [group for group in groups if group.kept < group.size]
    return sum(group.size for group in free), sum(group.size - group.kept for group in free)
