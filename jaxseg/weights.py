"""What a fresh run starts from: parameters drawn anew, and in their place the weights of a file or of another run."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxseg import pretrained, setup, snapshot
from jaxseg.adversarial import without_discriminator
from jaxseg.config import ConfigDict, ConfigError
from jaxseg.inference.run import load_run
from jaxseg.pretrained.fitting import fit, rename_encoder
from jaxseg.state import TrainState
from jaxseg.types import Key


class Origin(NamedTuple):
    """Where the weights of a run came from, as `run.json` records it.

    Attributes:
        key: the configuration key that named them.
        source: what it said.
        file: what was read; for another run its workdir and step.
        sha256: of the file; for another run, of its arrays.
        notes: what was done besides renaming.
    """

    key: str
    source: str
    file: str
    sha256: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}: {'; '.join((self.file, f'SHA-256 {self.sha256[:12]}', *self.notes))}"


def initial_state(
    config: ConfigDict,
    init: Callable[[Key], TrainState],
    tx: optax.GradientTransformation,
    key: Key,
    num_classes: int,
) -> tuple[TrainState, list[Origin]]:
    """Returns the state before the first step, and where its weights came from (empty where they are all new).

    The weights are read and compared with the network before anything compiles.

    Args:
        config: a validated configuration.
        init: key -> state with parameters drawn anew.
        tx: the optimiser.
        key: of the parameters.
        num_classes: of the network.

    Raises:
        ConfigError: if the weights cannot be had, read or fitted.
        CheckpointError: if they are another run's, which has no checkpoint that can be read.
    """
    weights = setup.find_weights(config, setup.make_model(config, num_classes))
    if weights is None:
        return jax.jit(init)(key), []
    shapes = jax.eval_shape(init, key)
    try:
        variables = {"params": shapes.params, "batch_stats": shapes.batch_stats}
        planned, origin = _read(config, weights, without_discriminator(variables), num_classes)
    except pretrained.WeightsError as error:
        raise ConfigError(f"{weights.key}: {error}") from error
    if len(set(snapshot.all_processes(origin.sha256))) > 1:
        raise ConfigError(f"{weights.key}: the processes of this run have read different weights from {origin.source}.")
    planned["params"] = shapes.params | planned["params"]  # a discriminator begins anew
    state = jax.jit(init)(key)
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    loaded = jax.tree.map(lambda new, old: old if isinstance(new, jax.ShapeDtypeStruct) else new, planned, fresh)

    def copied(tree: Any) -> Any:  # no two parts of a state may share memory: the step is given all of it
        return jax.tree.map(jnp.array, tree)

    return state.replace(
        params=loaded["params"],
        batch_stats=loaded["batch_stats"],
        opt_state=copied(jax.jit(tx.init)(loaded["params"])),
        ema_params=None if state.ema_params is None else copied(loaded["params"]),
    ), [origin]


def _read(
    config: ConfigDict, weights: setup.Weights, variables: Mapping[str, Any], num_classes: int
) -> tuple[dict[str, Any], Origin]:
    """Returns `variables` (shapes) with the weights in it, and where these came from."""
    options = {"skip": weights.skip, "channels": config.data.channels, "num_classes": num_classes}
    if weights.workdir is None:
        loaded = pretrained.load(variables, weights.source, encoder=weights.encoder, model=weights.model, **options)
        return loaded.variables, Origin(weights.key, weights.source, loaded.file, loaded.sha256, loaded.notes)
    run = load_run(weights.workdir)
    arrays = {path: np.asarray(x) for path, x in pretrained.flatten(run.variables).items()}
    notes: list[str] = []
    try:
        if weights.model is None:
            arrays = rename_encoder(arrays, (), notes)
        result = fit(variables, arrays, whole=weights.model is not None, notes=notes, **options)
    except pretrained.WeightsError as error:
        raise pretrained.WeightsError(f"the run in {weights.workdir}: {error}") from error
    file = f"{Path(weights.workdir).absolute()}, {run.which} checkpoint, step {run.step}"
    return result, Origin(weights.key, weights.source, file, _digest(arrays), tuple(notes))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for path in sorted(arrays):
        digest.update(f"{path} {arrays[path].dtype} {arrays[path].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[path]))
    return digest.hexdigest()
