"""The workdir of a network whose kernels are stored in whole numbers: what marks it, and how it is read.

A checkpoint describes each of its arrays in half a kilobyte, which is more than many kernels of bytes take. So all
whole numbers are one array, and all other numbers of the network another, each in the order of their paths.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.build import Parts
from jaxseg.errors import ConfigError, first_line
from jaxseg.files import read_json
from jaxseg.nn.quantisation import Quantisation, restored_kernels, stored_kernels
from jaxseg.state import TrainState, by_path
from jaxseg.types import PyTree

FILE = "quantised.json"
"""The file in the workdir that says what the network was before."""


def is_quantised(workdir: Path) -> bool:
    """Whether the checkpoint in a workdir stores kernels in whole numbers."""
    return (workdir / FILE).is_file()


def origin_of(workdir: Path) -> str:
    """Returns the workdir of the run that a quantised network was made from.

    Raises:
        ConfigError: if the record cannot be read.
    """
    try:
        return str(read_json(workdir / FILE)["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = first_line(error)[:200]
        raise ConfigError(f"{workdir / FILE} is no record of a quantised network ({why}).") from error


def require_float(workdir: Path, doing: str) -> None:
    """Raises ConfigError if the network in a workdir is quantised already, `doing` being what needs float32."""
    if is_quantised(workdir):
        raise ConfigError(
            f"{workdir} holds a quantised network, whose kernels are whole numbers: {doing} needs the run that it was "
            f"made from, {origin_of(workdir)}."
        )


def quantised_state(step: Any, variables: Mapping[str, PyTree], quantisation: Quantisation) -> TrainState:
    """Returns what a checkpoint stores of a network: {"whole": i8[n], "other": f32[m]} as its parameters.

    `n` counts the numbers of all kernels of few bits, `m` their scales, the other parameters and the statistics.
    """
    leaves = by_path(_stored(variables, quantisation)).values()
    packed = {
        name: jnp.concatenate([leaf.reshape(-1) for leaf in leaves if (leaf.dtype == jnp.int8) == whole])
        for name, whole in (("whole", True), ("other", False))
    }
    return TrainState(step, packed, {}, (), None)


def shapes_of_network(parts: Parts) -> dict[str, PyTree]:
    """Returns the shapes of the variables of the network alone."""
    return jax.eval_shape(lambda key: parts.deployed(parts.init(key)).variables, jax.random.key(0))


def float_state(state: TrainState, shapes: Mapping[str, PyTree], quantisation: Quantisation) -> TrainState:
    """Returns the state with all numbers in their places, and kernels of float32.

    Args:
        state: what `quantised_state` returned.
        shapes: of the variables that it was given.
        quantisation: that it was given.
    """
    stored = jax.eval_shape(lambda variables: _stored(variables, quantisation), shapes)
    leaves, tree = jax.tree.flatten(stored)
    kinds = ["whole" if leaf.dtype == jnp.int8 else "other" for leaf in leaves]
    pieces = {}
    for kind, array in state.params.items():
        ends = np.cumsum([leaf.size for leaf, of in zip(leaves, kinds) if of == kind])
        pieces[kind] = iter(np.split(np.asarray(array), ends[:-1]))
    placed = [next(pieces[kind]).reshape(leaf.shape) for leaf, kind in zip(leaves, kinds)]
    variables = jax.tree.unflatten(tree, placed)
    params = jax.device_get(restored_kernels(variables["params"]))
    return dataclasses.replace(state, params=params, batch_stats=variables["batch_stats"])


def _stored(variables: Mapping[str, PyTree], quantisation: Quantisation) -> dict[str, PyTree]:
    return {**variables, "params": stored_kernels(variables["params"], quantisation)}
