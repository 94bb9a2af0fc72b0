"""Pruning of single weights by their magnitude while the network trains (Zhu and Gupta 2017, "To prune, or not to
prune: exploring the efficacy of pruning for model compression", section 3).

At each pruning step the weights of the smallest magnitude are set to 0, as many as the schedule says, and a mask in the
state of the optimiser keeps them there. A weight that is 0 stays 0: the share never falls, and the masks are monotone.
(In the authors' program a masked weight keeps the value that it had, which could put it back in a later mask.)
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxseg.config import ConfigDict
from jaxseg.errors import ConfigError
from jaxseg.state import TrainState, by_path
from jaxseg.tuning import EVERYTHING, PROBE, Selection
from jaxseg.types import DISTILLATION, LORA, PyTree

Scope: TypeAlias = Literal["layer", "global"]


@dataclasses.dataclass(frozen=True)
class Pruning:
    """A schedule of sparsity, and the kernels that it holds for.

    Attributes:
        sparsity: share of the weights that are 0 in the end.
        begin: the first pruning step, counted from 0; the weights before the update of this step decide.
        end: the last pruning step, from which on the share is `sparsity`.
        every: steps between pruning steps.
        initial: the share at `begin`.
        scope: whether each kernel has this share of zeros ("layer"), or all of them together ("global").
        keep: regular expressions of kernels that are not pruned; "probe": the layers of the classifier.
        selection: the parameters that train; the others are not pruned.
    """

    sparsity: float
    begin: int = 0
    end: int = 1
    every: int = 1
    initial: float = 0.0
    scope: Scope = "layer"
    keep: tuple[str, ...] = (PROBE,)
    selection: Selection = EVERYTHING

    @property
    def steps(self) -> np.ndarray:
        """i64[n], the steps at which the masks change: every so many from `begin`, and `end`."""
        return np.unique([*range(self.begin, self.end, self.every), self.end])

    def share(self, step: Any) -> np.ndarray:
        """Steps i[...] -> f64[...], the share of zeros after each: s_f + (s_i - s_f) (1 - (t - t_0) / (t_n - t_0))³.

        Equation 1 of the paper, with s_i the initial and s_f the final share and the pruning steps t_0 to t_n.
        """
        gone = (np.asarray(step, np.float64) - self.begin) / max(1, self.end - self.begin)
        left = 1.0 - np.clip(gone if self.end > self.begin else np.ones_like(gone), 0.0, 1.0)
        return self.sparsity + (self.initial - self.sparsity) * left**3

    def kernels(self, params: PyTree) -> dict[str, Any]:
        """Returns {path: kernel} of what is pruned: kernels of two axes or more that train and that `keep` leaves.

        Raises:
            ConfigError: for a pattern of `keep` that is found in no path of a kernel, or if no kernel is left.
        """
        found = {path: leaf for path, leaf in by_path(params).items() if _is_kernel(path, leaf)}
        for pattern in self.keep:
            if pattern != PROBE and not any(re.search(pattern, path) for path in found):
                raise ConfigError(
                    f"prune.keep={pattern} is found in no path of a kernel; one is {min(found, default='')}."
                )
        kept = Selection(self.keep)
        chosen = {
            path: leaf
            for path, leaf in found.items()
            if self.selection.trains(path) and not (self.keep and kept.trains(path))
        }
        if not chosen:
            raise ConfigError("prune.sparsity has no kernel to prune: prune.keep and optimizer.train_only leave none.")
        return chosen


def _is_kernel(path: str, leaf: Any) -> bool:
    own = path.split("/")[0] not in (LORA, DISTILLATION)
    return own and path.rpartition("/")[2] == "kernel" and len(leaf.shape) >= 2


class Masked(NamedTuple):
    """The state of a pruned optimiser.

    Attributes:
        inner: the state of the optimiser.
        step: i32[], the number of updates.
        masks: bool of the shape of each pruned kernel; False where the weight is 0 for good.
    """

    inner: PyTree
    step: jax.Array
    masks: PyTree


def pruning_of(config: ConfigDict, selection: Selection) -> Pruning | None:
    """Returns the pruning of the prune.* keys; None if there is none.

    Raises:
        ConfigError: for a pattern that is not a regular expression.
    """
    c = config.prune
    if not c.sparsity:
        return None
    for pattern in c.keep:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"prune.keep must be regular expressions, got {pattern!r}: {error}.") from error
    end = max(c.begin, c.end or config.steps // 2)
    return Pruning(c.sparsity, c.begin, end, c.every, c.initial, c.scope, tuple(c.keep), selection)


def pruned(tx: optax.GradientTransformation, pruning: Pruning) -> optax.GradientTransformation:
    """Returns the optimiser `tx` with masks: where they are False, the new parameter is exactly 0."""

    def due(step: jax.Array) -> jax.Array:
        within = (step >= pruning.begin) & (step <= pruning.end)
        return within & (((step - pruning.begin) % pruning.every == 0) | (step == pruning.end))

    def init(params: PyTree) -> Masked:
        masks = {path: jnp.ones(leaf.shape, bool) for path, leaf in pruning.kernels(params).items()}
        return Masked(tx.init(params), jnp.zeros((), jnp.int32), unflatten_dict(masks, sep="/"))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        kernels = pruning.kernels(params)
        before: dict[str, Any] = flatten_dict(state.masks, sep="/")
        masks = jax.lax.cond(
            due(state.step), lambda: _smaller_masks(pruning, kernels, before, state.step), lambda: {**before}
        )
        updates, inner = tx.update(updates, state.inner, params)

        def masked(path: Any, change: jax.Array) -> jax.Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return jnp.where(masks[name], change, -kernels[name]) if name in masks else change

        updates = jax.tree_util.tree_map_with_path(masked, updates)
        return updates, Masked(inner, state.step + 1, unflatten_dict(masks, sep="/"))

    return optax.GradientTransformation(init, update)


def _smaller_masks(
    pruning: Pruning, kernels: Mapping[str, jax.Array], masks: Mapping[str, jax.Array], step: jax.Array
) -> dict[str, jax.Array]:
    """Returns the masks after a pruning step: the weights of the smallest magnitude are False, those before too."""
    number = jnp.searchsorted(jnp.asarray(pruning.steps), step)
    shares = pruning.share(pruning.steps)
    if pruning.scope == "layer":
        return {path: _mask(kernels[path], mask, shares, number) for path, mask in masks.items()}
    flat = {path: kernels[path].reshape(-1) for path in masks}
    whole = _mask(
        jnp.concatenate([*flat.values()]), jnp.concatenate([m.reshape(-1) for m in masks.values()]), shares, number
    )
    ends = np.cumsum([leaf.size for leaf in flat.values()])[:-1]
    return {path: part.reshape(masks[path].shape) for path, part in zip(masks, jnp.split(whole, ends))}


def _mask(kernel: jax.Array, mask: jax.Array, shares: np.ndarray, number: jax.Array) -> jax.Array:
    """Returns the mask with round(shares[number] · weights) of its weights False; of equal magnitudes the first."""
    counts = jnp.asarray(np.round(shares * kernel.size).astype(np.int32))  # exact: the shares are float64
    order = jnp.argsort(jnp.where(mask, jnp.abs(kernel), -1.0).reshape(-1), stable=True)
    return jnp.zeros(kernel.size, bool).at[order].set(jnp.arange(kernel.size) >= counts[number]).reshape(kernel.shape)


def with_pruned_average(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a training step whose moving average of the parameters is 0 where the masks are, too.

    An average would reach 0 only in the limit, and it is the average that is evaluated and exported.
    """

    def pruned_step(state: TrainState, *arguments: Any) -> tuple[TrainState, Any]:
        state, metrics = step(state, *arguments)
        return dataclasses.replace(state, ema_params=_masked_like(state.ema_params, state.opt_state)), metrics

    return pruned_step


def _masked_like(params: PyTree | None, opt_state: PyTree) -> PyTree | None:
    if params is None:
        return None
    masks: dict[str, Any] = flatten_dict(masks_of(opt_state), sep="/")

    def masked(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.where(masks[name], leaf, 0.0) if name in masks else leaf

    return jax.tree_util.tree_map_with_path(masked, params)


def masks_of(opt_state: PyTree) -> PyTree:
    """Returns the masks in the state of an optimiser, that of `pruned` or one that holds it; {} if there are none."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Masked))
    return next((state.masks for state in states if isinstance(state, Masked)), {})


def zero_share(params: PyTree, pruning: Pruning) -> float:
    """Returns the share of the weights of the pruned kernels that are exactly 0, in [0, 1]."""
    kernels = [np.asarray(leaf) for leaf in pruning.kernels(params).values()]
    return sum(np.count_nonzero(kernel == 0) for kernel in kernels) / sum(kernel.size for kernel in kernels)
