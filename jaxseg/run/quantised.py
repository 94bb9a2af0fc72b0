"""The workdir of a network whose kernels are stored in whole numbers: what marks it, and how it is read."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg.build import Parts
from jaxseg.errors import ConfigError
from jaxseg.nn.quantisation import Quantisation, restored_kernels, stored_kernels
from jaxseg.state import TrainState
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
        return str(json.loads((workdir / FILE).read_bytes())["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{workdir / FILE} is no record of a quantised network ({error!r}).") from error


def require_float(workdir: Path, doing: str) -> None:
    """Raises ConfigError if the network in a workdir is quantised already, `doing` being what needs float32."""
    if is_quantised(workdir):
        raise ConfigError(
            f"{workdir} holds a quantised network, whose kernels are whole numbers: {doing} needs the run that it was "
            f"made from, {origin_of(workdir)}."
        )


def quantised_state(step: Any, variables: Mapping[str, PyTree], quantisation: Quantisation) -> TrainState:
    """Returns what a checkpoint stores: kernels in whole numbers with their scales, and the rest in float32."""
    params = stored_kernels(variables["params"], quantisation)
    return TrainState(step, params, variables["batch_stats"], (), None)


def stored_state(parts: Parts, state: TrainState, quantisation: Quantisation) -> TrainState:
    """Returns `quantised_state` of the network alone, of the state of a run with these parts."""
    deployed = parts.deployed(state)
    return quantised_state(state.step, deployed.variables, quantisation)


def float_state(state: TrainState) -> TrainState:
    """Returns the stored state with kernels of float32."""
    return dataclasses.replace(state, params=restored_kernels(state.params))
