"""What a fresh run starts from: parameters drawn anew, and in their place the weights of a file or of another run."""

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
from jaxseg.errors import ConfigError
from jaxseg.models import encoders
from jaxseg.models.encoders import EncoderSpec
from jaxseg.models.fields import field_names
from jaxseg.nn import NormSpec
from jaxseg.pretrained.merging import adapt_and_merge
from jaxseg.pretrained.renaming import rename_encoder
from jaxseg.run import snapshot
from jaxseg.run.load import load_run
from jaxseg.state import TrainState
from jaxseg.types import Key

_OF_THE_RUN = ("dtype", "axis_name")  # fields of a norm that model.args does not set
_UNREAD = "unread"  # what a process that cannot use the weights tells the others, in place of their SHA-256


class Weights(NamedTuple):
    """The weights that a configuration asks a fresh run to start from.

    Attributes:
        key: the configuration key that names them.
        source: what it says: a name, a file, a repository or a workdir.
        encoder: name of the network's encoder, or None.
        model: name of the architecture for weights of the whole network, None for those of the encoder.
        skip: patterns of the parameters that they may lack.
    """

    key: str
    source: str
    encoder: str | None
    model: str | None
    skip: tuple[str, ...]

    @property
    def workdir(self) -> Path | None:
        """The workdir of a run, where the source is one; a folder that merely has the name of weights is none."""
        path = Path(self.source).expanduser()
        return path if path.is_dir() and ((path / "config.json").is_file() or "/" in self.source) else None


class Origin(NamedTuple):
    """Where the weights of a run came from, as `run.json` records it.

    Attributes:
        key: the configuration key that named them.
        source: what it said.
        file: what was read; for another run its workdir and step.
        sha256: of the file; for another run, of its arrays.
        commit: of the repository on the Hub that it came from, or None.
        notes: what was done besides renaming.
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
    """Weights that were read and fit.

    Attributes:
        variables: {"params": ..., "batch_stats": ...} of the network, with shapes in place of what stays as drawn.
        origin: where they came from.
    """

    variables: dict[str, Any]
    origin: Origin


def find_weights(config: ConfigDict, model: nn.Module) -> Weights | None:
    """Returns the weights that the configuration names, after checking the names; None where it names none.

    Raises:
        ConfigError: for two sources, or an unknown name (naming the nearest).
    """
    whole, encoder_only, skip = config.model.weights, config.model.encoder_weights, tuple(config.model.weights_skip)
    if not whole and not encoder_only:
        if skip:
            raise ConfigError("model.weights_skip is of no use without model.weights or model.encoder_weights.")
        return None
    if whole and encoder_only:
        raise ConfigError("Give model.weights, which holds an encoder too, or model.encoder_weights, not both.")
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
    return None if encoder is None else encoders.name_of(encoder)


def plan_weights(parts: Parts) -> Planned | None:
    """Reads the weights that the configuration names and compares them with the network; None where it names none.

    Nothing compiles, and nothing of the run is written yet: what does not fit leaves no workdir behind.

    Args:
        parts: those of the run.

    Raises:
        ConfigError: if the weights cannot be had, read or fitted.
        CheckpointError: if they are another run's, which has no checkpoint that can be read.
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
    except pretrained.WeightsError as error:
        snapshot.all_processes(_UNREAD)  # lest the others wait
        raise ConfigError(f"{weights.key}: {error}") from error
    origin = planned.origin
    read = set(snapshot.all_processes(origin.sha256))
    if _UNREAD in read:
        raise ConfigError(f"{weights.key}: another process of this run could not use {origin.source}.")
    if len(read) > 1:
        raise ConfigError(f"{weights.key}: the processes of this run have read different weights from {origin.source}.")
    return planned


def initial_state(parts: Parts, key: Key, planned: Planned | None = None) -> tuple[TrainState, list[Origin]]:
    """Returns the state before the first step, and where its weights came from (empty where they are all new).

    Args:
        parts: those of the run.
        key: of the parameters.
        planned: the weights that take the place of those drawn, or None.
    """
    state = jax.jit(parts.init, compiler_options=options_for_once())(key)
    if planned is None:
        return state, []
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    # What the network does not hold, a discriminator, begins anew.
    given = {name: jax.eval_shape(lambda x: x, tree) | planned.variables[name] for name, tree in fresh.items()}
    loaded = jax.tree.map(lambda new, old: old if isinstance(new, jax.ShapeDtypeStruct) else new, given, fresh)

    def copied(tree: Any) -> Any:  # no two parts of a state may share memory: the step is given all of it
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
    """Returns `variables` (arrays or shapes) of a network with the weights in it, and where these came from.

    Args:
        weights: which, and for what part of the network.
        network: the network itself.
        variables: {"params": ..., "batch_stats": ...}.
        channels: of the network's images; the first convolution of RGB weights is adapted to another number.
        num_classes: of the network.

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
        notes += _other_form(run.model, network, encoder_only=weights.model is None)
        result = adapt_and_merge(variables, arrays, children=children, notes=notes, **options)
    except pretrained.WeightsError as error:
        why = "; ".join(_reasons(run.model, network, encoder_only=weights.model is None))
        why = f"{why}. " if why else ""
        raise pretrained.WeightsError(f"the run in {weights.workdir}: {why}{error}") from error
    file = f"{Path(weights.workdir).absolute()}, {run.which} checkpoint, step {run.step}"
    return Planned(result, Origin(weights.key, weights.source, file, _digest(arrays), None, tuple(notes)))


def _other_form(theirs: nn.Module, ours: nn.Module, *, encoder_only: bool) -> list[str]:
    """Returns what to note where a run's network was made otherwise, which need not leave a mark in the arrays."""
    if type(theirs) is not type(ours) and not encoder_only:
        return [_other_class(theirs, ours)]
    other = _other_fields(theirs, ours, encoder_only=encoder_only)
    return [f"the run's network has other model.args for {', '.join(other)}"] if other else []


def _reasons(theirs: nn.Module, ours: nn.Module, *, encoder_only: bool) -> list[str]:
    """Returns why a run's arrays may not fit: another class of network, or each field with both of its values."""
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
    """Returns the keys of model.args, of those that both networks have, in which they differ."""
    names = {"norm", "act", *set(field_names(type(theirs))) & set(field_names(type(ours)))}
    names = names & {"encoder", "norm", "act"} if encoder_only else names - {"num_classes"}
    return [name for name in sorted(names) if _setting(theirs, name) != _setting(ours, name)]


def _name(value: Any) -> str:
    """Returns a setting in words: the name of an encoder, of a norm, of a function; else the value."""
    if isinstance(value, EncoderSpec | NormSpec):
        return value.name
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


def _setting(network: Any, name: str) -> Any:
    """Returns the value of a key of model.args; of a norm without its dtype and mapped axis."""
    if name == "act":
        return network.common.act
    if name != "norm":
        return getattr(network, name)
    norm = network.common.norm
    if isinstance(norm, NormSpec):
        return NormSpec(norm.name, tuple((key, value) for key, value in norm.fields if key not in _OF_THE_RUN))
    return norm


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for path in sorted(arrays):
        digest.update(f"{path} {arrays[path].dtype} {arrays[path].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[path]).data)
    return digest.hexdigest()
