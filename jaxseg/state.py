"""The training state: one pytree that, with the state of the data iterator, is all a run needs to resume."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxseg.nn.draws import initialise
from jaxseg.types import Key, PyTree


class Network(Protocol):
    """What evaluation applies."""

    def apply(self, variables: Mapping[str, PyTree], image: jax.Array, **arguments: Any) -> Any:
        """f32[b,h,w,c] -> (logits, out); with `mutable`, ((logits, out), changed variables)."""
        ...


class Learner(Network, Protocol):
    """What a training step applies: a model of `jaxseg.models`, or several networks with the methods of one.

    An example of the second is `adversarial.SegmenterWithDiscriminator`.
    """

    def init(self, rngs: Mapping[str, Key], image: jax.Array, **arguments: Any) -> Mapping[str, PyTree]:
        """f32[b,h,w,c] -> variables."""
        ...


@struct.dataclass
class TrainState:
    """Everything that a training step changes.

    Attributes:
        step: i32[], the number of optimiser steps taken.
        params: float32 parameters of the learner.
        batch_stats: running statistics of the norm layers; an empty dictionary if the model has none.
        opt_state: state of the optax chain.
        ema_params: exponential moving average (EMA) of `params`, or None if the run keeps none.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    ema_params: PyTree | None

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables that `model.apply` takes in evaluation: the EMA parameters if there are any, and statistics.

        The batch norm statistics are those of training, since they are moving averages already.
        """
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


def init_state(
    model: Learner, tx: optax.GradientTransformation, key: Key, image_shape: Sequence[int], *, ema: bool = False
) -> TrainState:
    """Returns the initial state of `model` for images of `image_shape`; pure, so it works under `jax.eval_shape`.

    Args:
        model: a model of `jaxseg.models`, or any Linen module with the same arguments.
        tx: the optimiser.
        key: the PRNG key that the parameters are drawn from.
        image_shape: (h, w, c) of one image.
        ema: whether to keep a moving average of the parameters.
    """
    variables = initialise(model, {"params": key}, jnp.zeros((1, *image_shape), jnp.float32), train=False)
    return first_state(variables, tx, ema=ema)


def first_state(variables: Mapping[str, PyTree], tx: optax.GradientTransformation, *, ema: bool = False) -> TrainState:
    """Returns the state before the first step of a network with these variables.

    Args:
        variables: {"params": ..., "batch_stats": ...}; the second may be absent.
        tx: the optimiser.
        ema: whether to keep a moving average of the parameters.
    """
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"] if "batch_stats" in variables else {},
        opt_state=tx.init(params),
        ema_params=jax.tree.map(jnp.array, params) if ema else None,
    )


def average_of(state: TrainState, params: PyTree, decay: float) -> PyTree | None:
    """Returns the moving average of the parameters after a step to `params`; None if the state keeps none.

    The decay is warmed up as min(decay, (1 + t) / (10 + t)) at step t.
    """
    if state.ema_params is None:
        return None
    warmed_up = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    return optax.incremental_update(params, state.ema_params, 1.0 - warmed_up)


def by_path(tree: PyTree) -> dict[str, Any]:
    """Returns {path: leaf} in the order of the leaves, with paths such as "params/stem/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def keys_of_seed(seed: int) -> tuple[Key, Key]:
    """Returns the two PRNG keys of a run: that of its parameters, and that of all its steps."""
    parameters, steps = jax.random.split(jax.random.key(seed))
    return parameters, steps


def count_parameters(params: PyTree) -> int:
    """Returns the number of parameters in a pytree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
