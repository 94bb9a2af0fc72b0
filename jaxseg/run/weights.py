"""The parameters that a new run starts from: random ones, replaced by the weights of a file or of another run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg import pretrained
from jaxseg.build import Parts
from jaxseg.compiler import options_for_once
from jaxseg.config import ConfigDict
from jaxseg.errors import ConfigError, JaxsegError, WeightsError
from jaxseg.models.encoders import EncoderSpec, name_of
from jaxseg.models.fields import field_names
from jaxseg.nn import NormSpec
from jaxseg.pretrained.merging import adapt_and_merge
from jaxseg.pretrained.renaming import rename_encoder
from jaxseg.run import snapshot
from jaxseg.run.load import load_run
from jaxseg.state import TrainState
from jaxseg.types import Key

_RUN_FIELDS = ("dtype", "axis_name")  # fields of a norm that do not come from model.args
_UNUSABLE = "unusable"  # sent to the other processes in place of the SHA-256 if a process cannot use the weights


class Weights(NamedTuple):
    """The weights that a configuration names for the start of a new run.

    Attributes:
        key: the configuration key that names them.
        source: its value: a name, a file, a repository or a workdir.
        encoder: name of the network's encoder, or None.
        model: name of the architecture for weights of the whole network; None for weights of the encoder.
        skip: patterns of parameters that the weights need not have.
    """

    key: str
    source: str
    encoder: str | None
    model: str | None
    skip: tuple[str, ...]

    @property
    def workdir(self) -> Path | None:
        """The workdir, if the source is one; None for a folder without a run that only has the name of weights."""
        path = Path(self.source).expanduser()
        return path if path.is_dir() and ((path / "config.json").is_file() or "/" in self.source) else None


class Origin(NamedTuple):
    """Where the weights of a run come from, for `run.json`.

    Attributes:
        key: the configuration key that names them.
        source: its value.
        file: the file; for another run, its workdir and step.
        sha256: digest of the file; for another run, of its arrays.
        commit: commit of the Hub repository that holds the file, or None.
        notes: changes to the weights other than new names.
    """

    key: str
    source: str
    file: str
    sha256: str
    commit: str | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}: {'; '.join((self.file, f'SHA-256 {self.sha256[:12]}', *self.notes))}"


class Planned(NamedTuple):
    """Weights that were read and fit the network.

    Attributes:
        variables: {"params": ..., "batch_stats": ...} of the network; shapes stand for values that stay random.
        origin: where they come from.
    """

    variables: dict[str, Any]
    origin: Origin


def find_weights(config: ConfigDict, model: nn.Module) -> Weights | None:
    """Returns the weights that the configuration names; None if it names none.

    Raises:
        ConfigError: for two sources, or an unknown name (the message gives the nearest known name).
    """
    whole, encoder_only, skip = config.model.weights, config.model.encoder_weights, tuple(config.model.weights_skip)
    if not whole and not encoder_only:
        if skip:
            raise ConfigError("model.weights_skip needs model.weights or model.encoder_weights.")
        return None
    if whole and encoder_only:
        raise ConfigError("Give model.weights, which includes an encoder, or model.encoder_weights, not both.")
    encoder = _encoder_name(config, model)
    key = "model.weights" if whole else "model.encoder_weights"
    weights = Weights(key, whole or encoder_only, encoder, config.model.name if whole else None, skip)
    if weights.workdir is None:
        try:
            pretrained.find(weights.source, encoder=encoder, model=weights.model, network=model)
        except pretrained.WeightsError as error:
            raise ConfigError(f"{key}: {error}") from error
    return weights


def _encoder_name(config: ConfigDict, model: nn.Module) -> str | None:
    args = config.model.args.to_dict()
    if "encoder" in args and isinstance(args["encoder"], str):
        return args["encoder"]
    encoder = model.encoder if hasattr(model, "encoder") else None
    return None if encoder is None else name_of(encoder)


def plan_weights(parts: Parts) -> Planned | None:
    """Reads the weights that the configuration names and compares them with the network; None if it names none.

    Nothing is compiled or written, so that weights that do not fit leave no workdir behind.

    Args:
        parts: the parts of the run.

    Raises:
        ConfigError: if the weights cannot be found, read or fitted to the network.
        CheckpointError: if they are those of another run, which has no readable checkpoint.
    """
    config, network = parts.config, parts.model
    weights = find_weights(config, network)
    if weights is None:
        return None
    image = jax.ShapeDtypeStruct((1, *parts.image_shape), np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    variables = {"params": shapes["params"], "batch_stats": shapes["batch_stats"] if "batch_stats" in shapes else {}}
    try:
        planned = read_weights(
            weights, network, variables, channels=config.data.channels, num_classes=parts.num_classes
        )
    except JaxsegError as error:
        snapshot.all_processes(_UNUSABLE)  # the other processes wait for this one's text
        if isinstance(error, WeightsError):
            raise ConfigError(f"{weights.key}: {error}") from error
        raise
    origin = planned.origin
    read = set(snapshot.all_processes(origin.sha256))
    if _UNUSABLE in read:
        raise ConfigError(f"{weights.key}: another process of this run cannot use {origin.source}.")
    if len(read) > 1:
        raise ConfigError(f"{weights.key}: the processes of this run have read different weights from {origin.source}.")
    return planned


def initial_state(parts: Parts, key: Key, planned: Planned | None = None) -> tuple[TrainState, list[Origin]]:
    """Returns the initial state and the origins of its weights ([] if all parameters are random).

    Args:
        parts: the parts of the run.
        key: the PRNG key that the parameters are drawn from.
        planned: the weights that replace random parameters, or None.
    """
    state = jax.jit(parts.init, compiler_options=options_for_once())(key)
    if planned is None:
        return state, []
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    # A discriminator, which is not part of the network, keeps its random parameters.
    given = {name: jax.eval_shape(lambda x: x, tree) | planned.variables[name] for name, tree in fresh.items()}
    loaded = jax.tree.map(lambda new, old: old if isinstance(new, jax.ShapeDtypeStruct) else new, given, fresh)

    def copied(tree: Any) -> Any:  # no two parts of a state may share memory, since the step donates all of it
        return jax.tree.map(jnp.array, tree)

    return state.replace(
        params=loaded["params"],
        batch_stats=loaded["batch_stats"],
        opt_state=copied(jax.jit(parts.optimiser.init)(loaded["params"])),
        ema_params=None if state.ema_params is None else copied(loaded["params"]),
    ), [planned.origin]


def read_weights(
    weights: Weights, network: nn.Module, variables: Mapping[str, Any], *, channels: int, num_classes: int
) -> Planned:
    """Returns the `variables` (arrays or shapes) of a network with the weights in their place, and the origin.

    Args:
        weights: the weights, and the part of the network that they are for.
        network: the network.
        variables: {"params": ..., "batch_stats": ...}.
        channels: channels of the images; the first convolution of RGB weights is adapted to another number.
        num_classes: channels of the network's logits.

    Raises:
        WeightsError: if the weights cannot be read or do not fit.
    """
    options = {"skip": weights.skip, "channels": channels, "num_classes": num_classes}
    if weights.workdir is None:
        loaded = pretrained.load(
            variables, weights.source, encoder=weights.encoder, model=weights.model, network=network, **options
        )
        return Planned(loaded.variables, Origin(weights.key, weights.source, *loaded[1:]))
    run = load_run(weights.workdir)
    arrays = {path: np.asarray(x) for path, x in pretrained.flatten(run.variables).items()}
    notes: list[str] = []
    try:
        if weights.model is None:
            arrays = rename_encoder(arrays, (), notes)
        children = None if weights.model is not None else ("encoder",)
        notes += _differences(run.model, network, encoder_only=weights.model is None)
        result = adapt_and_merge(variables, arrays, children=children, notes=notes, **options)
    except pretrained.WeightsError as error:
        why = "; ".join(_reasons(run.model, network, encoder_only=weights.model is None))
        why = f"{why}. " if why else ""
        raise pretrained.WeightsError(f"the run in {weights.workdir}: {why}{error}") from error
    file = f"{Path(weights.workdir).absolute()}, {run.which} checkpoint, step {run.step}"
    return Planned(result, Origin(weights.key, weights.source, file, _digest(arrays), None, tuple(notes)))


def _differences(theirs: nn.Module, ours: nn.Module, *, encoder_only: bool) -> list[str]:
    """Returns notes on differences between a run's network and ours that may leave the arrays' shapes equal."""
    if type(theirs) is not type(ours) and not encoder_only:
        return [_other_class(theirs, ours)]
    other = _other_fields(theirs, ours, encoder_only=encoder_only)
    return [f"the run's network has other model.args for {', '.join(other)}"] if other else []


def _reasons(theirs: nn.Module, ours: nn.Module, *, encoder_only: bool) -> list[str]:
    """Returns why a run's arrays may not fit: another class of network, or each differing field with both values."""
    if type(theirs) is not type(ours) and not encoder_only:
        return [_other_class(theirs, ours)]
    reasons = []
    for name in _other_fields(theirs, ours, encoder_only=encoder_only):
        key, there, here = f"model.args.{name}", _setting(theirs, name), _setting(ours, name)
        if isinstance(there, EncoderSpec) and isinstance(here, EncoderSpec) and there.name == here.name:
            there, here = there(), here()
            fields = [field for field in field_names(type(there)) if getattr(there, field) != getattr(here, field)]
            values = [(f"{key}_args.{field}", getattr(there, field), getattr(here, field)) for field in fields]
        else:
            values = [(key, there, here)]
        reasons += [f"{k} is {_name(a)} there and {_name(b)} here" for k, a, b in values]
    return reasons


def _other_class(theirs: nn.Module, ours: nn.Module) -> str:
    return f"the run's network is a {type(theirs).__name__}, this one a {type(ours).__name__}"


def _other_fields(theirs: nn.Module, ours: nn.Module, *, encoder_only: bool) -> list[str]:
    """Returns the keys of model.args that both networks have with different values."""
    names = {"norm", "act", *set(field_names(type(theirs))) & set(field_names(type(ours)))}
    names = names & {"encoder", "norm", "act"} if encoder_only else names - {"num_classes"}
    return [name for name in sorted(names) if _setting(theirs, name) != _setting(ours, name)]


def _name(value: Any) -> str:
    """Returns a setting as text: the name of an encoder, norm or function, or the value."""
    if isinstance(value, EncoderSpec | NormSpec):
        return value.name
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


def _setting(network: Any, name: str) -> Any:
    """Returns the value of a key of model.args; a norm comes without its dtype and mapped axis."""
    if name == "act":
        return network.common.act
    if name != "norm":
        return getattr(network, name)
    norm = network.common.norm
    if isinstance(norm, NormSpec):
        return NormSpec(norm.name, tuple((key, value) for key, value in norm.fields if key not in _RUN_FIELDS))
    return norm


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for path in sorted(arrays):
        digest.update(f"{path} {arrays[path].dtype} {arrays[path].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[path]).data)
    return digest.hexdigest()
