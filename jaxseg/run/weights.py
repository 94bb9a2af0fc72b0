"""The parameters that a new run starts from: random ones, replaced by the weights that its configuration names."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.build import Parts, make_model
from jaxseg.compiler import options_for_once
from jaxseg.config import ConfigDict
from jaxseg.errors import ConfigError, JaxsegError, WeightsError, counted
from jaxseg.nn import without_crf
from jaxseg.nn.quantisation import without_quantised_inputs
from jaxseg.optim import make_selection
from jaxseg.pieces import require_start_of_frozen
from jaxseg.pretrained import flatten
from jaxseg.pretrained.loading import locate
from jaxseg.run import snapshot
from jaxseg.run.weights_source import Origin, Planned, Weights, merge_run, read_weights, resolve
from jaxseg.state import TrainState, by_path, first_state
from jaxseg.types import Key

_UNUSABLE = "unusable"  # sent to the other processes in place of the SHA-256 if a process cannot use the weights


def find_weights(config: ConfigDict, model: nn.Module) -> Weights | None:
    """Returns the weights that the configuration names; None if it names none.

    Raises:
        ConfigError: for two sources, or an unknown name (the message gives the nearest known name).
    """
    group = config.model
    if group.weights_skip and not group.weights and not group.encoder_weights:
        raise ConfigError("model.weights_skip needs model.weights or model.encoder_weights.")
    try:
        return resolve(
            model,
            group.name,
            weights=group.weights,
            encoder_weights=group.encoder_weights,
            skip=tuple(group.weights_skip),
            which=group.weights_checkpoint,
            group="model.",
        )
    except WeightsError as error:
        raise ConfigError(str(error)) from error


def locate_weights(config: ConfigDict) -> None:
    """Fetches the weights that the configuration names, or finds their file, before anything is read or computed.

    Of several processes each reads them in `plan_weights`, where they wait for each other; those of a run are found
    there too.

    Raises:
        ConfigError: if they cannot be fetched, or there are none.
    """
    if not (config.model.weights or config.model.encoder_weights) or jax.process_count() > 1:
        return
    network = without_crf(make_model(config, config.model.num_classes or 2))
    weights = find_weights(config, network)
    if weights is None or weights.workdir is not None:
        return
    try:
        locate(weights.source, encoder=weights.encoder, model=weights.model, network=network)
    except WeightsError as error:
        raise ConfigError(f"{weights.key}: {error}") from error


def plan_weights(parts: Parts) -> Planned | None:
    """Reads the weights that the configuration names and compares them with the network; None if it names none.

    Nothing is compiled or written, so that weights that do not fit leave no workdir behind.

    Args:
        parts: the parts of the run.

    Raises:
        ConfigError: if the weights cannot be found, read or fitted to the network, or none are named and a part of it
            is frozen.
        CheckpointError: if they are those of another run, which has no readable checkpoint.
    """
    config, network = parts.config, without_crf(parts.model)
    weights = find_weights(config, network)
    if weights is None:
        require_start_of_frozen(config)
        return None
    try:
        planned = read_weights(
            weights, network, _shapes(parts), channels=config.data.channels, num_classes=parts.num_classes
        )
    except JaxsegError as error:
        snapshot.all_processes(_UNUSABLE)  # the other processes wait for this one's text
        if isinstance(error, WeightsError):
            raise ConfigError(str(error)) from error
        raise
    _require_known(parts, planned)
    origin = planned.origin
    read = set(snapshot.all_processes(origin.sha256))
    if _UNUSABLE in read:
        raise ConfigError(f"{weights.key}: another process of this run cannot use {origin.source}.")
    if len(read) > 1:
        raise ConfigError(f"{weights.key}: the processes of this run have read different weights from {origin.source}.")
    return planned


def require_fit(parts: Parts, start: Parts) -> None:
    """Compares the network of `parts` with that of a run that it will start from, by their shapes alone.

    Raises:
        ConfigError: if the weights of the run will not fit.
    """
    arrays = {path: np.broadcast_to(np.zeros((), x.dtype), x.shape) for path, x in flatten(_shapes(start)).items()}
    config, network = parts.config, without_crf(parts.model)
    options = {"skip": tuple(config.model.weights_skip), "channels": config.data.channels}

    def merged() -> None:  # inside of a trace no array of the network is made
        merge_run(
            _shapes(parts), arrays, start.model, network, whole=True, notes=[], num_classes=parts.num_classes, **options
        )

    try:
        jax.eval_shape(merged)
    except WeightsError as error:
        raise ConfigError(str(error)) from error


def _shapes(parts: Parts) -> dict[str, Any]:
    """Returns the shapes of the variables that weights fill."""
    image = jax.ShapeDtypeStruct((1, *parts.image_shape), np.float32)
    # The ranges of what layers read are drawn with what no weights have.
    shapes = jax.eval_shape(without_quantised_inputs(parts.model).init, jax.random.key(0), image)
    return {"params": shapes["params"], "batch_stats": shapes["batch_stats"] if "batch_stats" in shapes else {}}


def _require_known(parts: Parts, planned: Planned) -> None:
    """Raises ConfigError for frozen parameters that the weights do not have: they would keep their random values."""
    selection, config = make_selection(parts.config), parts.config
    if selection.everything:
        return
    filled = by_path(planned.variables["params"])
    random = [
        path for path, value in filled.items() if isinstance(value, jax.ShapeDtypeStruct) and not selection.trains(path)
    ]
    if random and not (config.optimizer.train_only or config.lora.rank):
        raise ConfigError(
            f"optimizer.encoder_rate=0 freezes {counted(len(random), 'parameter')} that {planned.origin.key} does not "
            f"have, {random[0]} for one: they would keep random values; name weights of the whole encoder, or leave "
            "optimizer.encoder_rate at 1."
        )
    if random:
        parts_of_it = sorted({path.split("/")[0] for path in random})
        trained = ",".join((*selection.patterns, *(f"^{part}" for part in parts_of_it)))
        raise ConfigError(
            f"optimizer.train_only={','.join(selection.patterns)} freezes {counted(len(random), 'parameter')} that "
            f"{planned.origin.key} does not have, {random[0]} for one: they would keep random values; name what else "
            f"trains, such as optimizer.train_only={trained}, or weights of the whole network."
        )


def initial_state(
    parts: Parts, key: Key, planned: Planned | None = None, init: Callable[..., TrainState] | None = None
) -> tuple[TrainState, list[Origin]]:
    """Returns the initial state and the origins of its weights ([] if all parameters are random).

    Args:
        parts: the parts of the run.
        key: the PRNG key that the parameters are drawn from.
        planned: the weights that replace random parameters, or None.
        init: `parts.init` as a program, see `run.programs`; None: it is made here.
    """
    if planned is None:
        init = init or jax.jit(parts.init, compiler_options=options_for_once())
        return init(key), []

    def draw(key: Key) -> dict[str, Any]:
        state = parts.init(key)
        return {"params": state.params, "batch_stats": state.batch_stats}

    loaded = planned.fill(draw, key)

    def copied(tree: Any) -> Any:  # no two parts of a state may share memory, since the step donates all of it
        return jax.tree.map(jnp.array, tree)

    ema = parts.config.ema.decay > 0
    state = jax.jit(lambda variables: first_state(variables, parts.optimiser, ema=ema))(loaded)
    return state.replace(opt_state=copied(state.opt_state), ema_params=copied(state.ema_params)), [planned.origin]
