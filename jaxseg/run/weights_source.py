"""The weights that a network starts from: which part of it a source fills, and the arrays that it holds.

`create_model` and the configuration of a run both name weights in two arguments, `weights` and `encoder_weights`.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from jaxseg import pretrained
from jaxseg.arguments import expanded
from jaxseg.compiler import options_for_once
from jaxseg.config import KEYS, ConfigDict
from jaxseg.errors import ConfigError, WeightsError
from jaxseg.models.encoders import EncoderSpec, name_of
from jaxseg.models.fields import field_names
from jaxseg.nn import NormSpec, without_crf
from jaxseg.nn.draws import drawn_alone
from jaxseg.nn.quantisation import without_ranges
from jaxseg.pretrained import catalogue
from jaxseg.pretrained.merging import adapt_and_merge
from jaxseg.pretrained.renaming import rename_encoder
from jaxseg.run.workdir import CONFIG_FILE, holds_checkpoint
from jaxseg.types import Key

_RUN_FIELDS = ("dtype", "axis_name")  # fields of a norm that are no settings of the network


class Weights(NamedTuple):
    """The weights that a network starts from, as they are named.

    Attributes:
        key: the argument or configuration key that names them.
        source: its value: a name, a file, a repository or a workdir.
        encoder: name of the network's encoder, or None.
        model: name of the architecture for weights of the whole network; None for weights of the encoder.
        skip: patterns of parameters that the weights need not have.
        which: the checkpoint of a run, "best" or "last".
    """

    key: str
    source: str
    encoder: str | None
    model: str | None
    skip: tuple[str, ...]
    which: Literal["best", "last"] = "best"

    @property
    def workdir(self) -> Path | None:
        """The workdir, if the source is one; None for a folder without a run that only has the name of weights."""
        from jaxseg.run.published import is_published  # imports more than names of weights need

        path = expanded(self.source)
        if is_published(path):
            return path
        if path.is_dir() and not holds_checkpoint(path) and pretrained.file_in(path) is not None:
            return None  # a copy of a repository of the Hub, which has a config.json too
        return path if path.is_dir() and ((path / "config.json").is_file() or "/" in self.source) else None


class Origin(NamedTuple):
    """Where weights come from, for `run.json`.

    Attributes:
        key: the argument or configuration key that names them.
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

    def fill(self, draw: Callable[[Key], Mapping[str, Any]], key: Key) -> dict[str, Any]:
        """Returns the variables `draw(key)` with the weights in their place.

        Where it is the smaller part of a large network, what the weights do not have is drawn alone, each parameter by
        itself. A discriminator, which is not part of the network, keeps what is drawn.

        Args:
            draw: key -> {"params": ..., "batch_stats": ...}; pure.
            key: the PRNG key.
        """
        shapes = jax.eval_shape(draw, key)
        given = pretrained.flatten(shapes) | pretrained.flatten(self.variables)
        drawn = [path for path, leaf in given.items() if isinstance(leaf, jax.ShapeDtypeStruct)]
        if drawn:

            def rest(key: Key) -> list[jax.Array]:
                with drawn_alone(drawn, given):
                    values = pretrained.flatten(draw(key))
                return [values[path] for path in drawn]

            given |= dict(zip(drawn, jax.jit(rest, compiler_options=options_for_once())(key)))
        # A network without batch norm has no statistics, which no path names.
        return {**{name: {} for name in shapes}, **traverse_util.unflatten_dict(given, sep="/")}


def resolve(
    network: nn.Module,
    name: str,
    *,
    weights: str | Path | None,
    encoder_weights: str | Path | None,
    skip: tuple[str, ...] = (),
    which: Literal["best", "last"] = "best",
    group: str = "",
) -> Weights | None:
    """Returns the weights that the two arguments name, after checking this name; None if both are empty.

    Nothing is read or fetched.

    Args:
        network: the network.
        name: of the network.
        weights: fill the whole network; the name of published weights of its encoder fills the encoder alone.
        encoder_weights: fill the encoder.
        skip: patterns of parameters that the weights need not have.
        which: the checkpoint of a run, "best" or "last".
        group: stands before the two names in messages: "model." for the keys of a configuration.

    Raises:
        ConfigError: if both are given.
        WeightsError: for an unknown name; the message gives the nearest known one.
    """
    if not weights and not encoder_weights:
        return None
    if weights and encoder_weights:
        raise ConfigError(f"Give {group}weights, which includes an encoder, or {group}encoder_weights, not both.")
    key, source = (f"{group}weights", weights) if weights else (f"{group}encoder_weights", encoder_weights)
    encoder = _encoder_name(network)
    found = Weights(key, str(source), encoder, name if weights else None, skip, which)
    if found.workdir is not None:
        return found
    if encoder is not None and found.source in catalogue.encoder_weights(encoder):
        return found._replace(model=None)
    try:
        _check_name(found, network)
    except WeightsError as error:
        raise WeightsError(f"{key}: {error}") from error
    return found


def _encoder_name(network: nn.Module) -> str | None:
    encoder = network.encoder if hasattr(network, "encoder") else None
    return None if encoder is None else name_of(encoder)


def _check_name(weights: Weights, network: nn.Module) -> None:
    """Raises WeightsError for an unknown source; a word without a slash is taken for a name of the encoder's."""
    try:
        pretrained.find(weights.source, encoder=weights.encoder, model=weights.model, network=network)
    except WeightsError:
        if "/" not in weights.source:
            pretrained.find(weights.source, encoder=weights.encoder, network=network)
        raise


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
        ConfigError: if they are a folder that holds no run, or a run whose files cannot be read.
        CheckpointError: if they are those of a run without a readable checkpoint.
    """
    options = {"skip": weights.skip, "channels": channels, "num_classes": num_classes}
    try:
        if weights.workdir is not None:
            return _read_run(weights, weights.workdir, network, variables, options)
        loaded = pretrained.load(
            variables, weights.source, encoder=weights.encoder, model=weights.model, network=network, **options
        )
    except WeightsError as error:
        raise WeightsError(f"{weights.key}: {error}") from error
    return Planned(loaded.variables, Origin(weights.key, weights.source, *loaded[1:]))


def _read_run(
    weights: Weights, workdir: Path, network: nn.Module, variables: Mapping[str, Any], options: dict[str, Any]
) -> Planned:
    if not (workdir / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{weights.key}: The folder {str(workdir)!r} holds no run (no {CONFIG_FILE}); give the workdir of a "
            "training run, or a file of weights."
        )
    from jaxseg.run.load import load_run  # imports Orbax, which only checkpoints need

    try:
        run = load_run(workdir, weights.which)
    except ConfigError as error:
        if holds_checkpoint(workdir):
            raise
        raise ConfigError(
            f"{weights.key}: The folder {str(workdir)!r} holds neither a run ({str(error).rstrip('.')}) nor a file of "
            f"weights ({', '.join(pretrained.HUB_FILES)}); give the workdir of a run, or the file of weights itself."
        ) from error
    whole = weights.model is not None
    stats = without_ranges(run.variables["batch_stats"])  # a run with few bits finds ranges of its own
    named = pretrained.flatten({**run.variables, "batch_stats": stats})
    arrays = {path: np.asarray(x) for path, x in named.items()}
    notes: list[str] = []
    try:
        result = merge_run(variables, arrays, run.model, network, whole=whole, notes=notes, **options)
    except WeightsError as error:
        raise WeightsError(f"the run in {workdir}: {error}") from error
    if run.config.prune.sparsity:
        share = f"{run.config.prune.sparsity:g}"
        same = "".join(f" prune.{key}={value}" for key, value in _unusual(run.config.prune))
        notes.append(
            f"its zeros, a share {share} of its kernels, stay with prune.sparsity={share} prune.initial={share}{same}"
        )
    file = f"{workdir.absolute()}, {run.which} checkpoint, step {run.step}"
    return Planned(result, Origin(weights.key, weights.source, file, digest(arrays), None, tuple(notes)))


def merge_run(
    variables: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    theirs: nn.Module,
    ours: nn.Module,
    *,
    whole: bool,
    notes: list[str],
    **options: Any,
) -> dict[str, Any]:
    """Returns the `variables` of a network with the arrays of a run in place of all, or of those of the encoder.

    `theirs` is the run's network; `notes` receives in what it differs. The rest is as of `pretrained.adapt_and_merge`.

    Raises:
        WeightsError: if they do not fit; the message says in what the networks differ.
    """
    try:
        if not whole:
            arrays = rename_encoder(arrays, (), notes)
        notes += _differences(without_crf(theirs), ours, encoder_only=not whole)
        return adapt_and_merge(variables, arrays, children=None if whole else ("encoder",), notes=notes, **options)
    except WeightsError as error:
        why = "; ".join(_reasons(without_crf(theirs), ours, encoder_only=not whole))
        raise WeightsError(f"{why}. {error}" if why else str(error)) from error


def _unusual(prune: ConfigDict) -> list[tuple[str, Any]]:
    """Returns (key, value) of what else says which weights are pruned, where it is not the default."""
    of_run = {key: getattr(prune, key) for key in ("scope", "keep")}
    return [(key, value) for key, value in of_run.items() if value != KEYS[f"prune.{key}"].default]


def _differences(theirs: nn.Module, ours: nn.Module, *, encoder_only: bool) -> list[str]:
    """Returns notes on differences between a run's network and ours that may leave the arrays' shapes equal."""
    if type(theirs) is not type(ours) and not encoder_only:
        return [_other_class(theirs, ours)]
    other = _other_fields(theirs, ours, encoder_only=encoder_only)
    return [f"the run's network has other values of {', '.join(other)}"] if other else []


def _reasons(theirs: nn.Module, ours: nn.Module, *, encoder_only: bool) -> list[str]:
    """Returns why a run's arrays may not fit: another class of network, or each differing field with both values."""
    if type(theirs) is not type(ours) and not encoder_only:
        return [_other_class(theirs, ours)]
    reasons = []
    for name in _other_fields(theirs, ours, encoder_only=encoder_only):
        there, here = _setting(theirs, name), _setting(ours, name)
        if isinstance(there, EncoderSpec) and isinstance(here, EncoderSpec) and there.name == here.name:
            there, here = there(), here()
            fields = [field for field in field_names(type(there)) if getattr(there, field) != getattr(here, field)]
            values = [(f"{name}_args.{field}", getattr(there, field), getattr(here, field)) for field in fields]
        else:
            values = [(name, there, here)]
        reasons += [f"{k} is {_name(a)} there and {_name(b)} here" for k, a, b in values]
    return reasons


def _other_class(theirs: nn.Module, ours: nn.Module) -> str:
    return f"the run's network is a {type(theirs).__name__}, this one a {type(ours).__name__}"


def _other_fields(theirs: nn.Module, ours: nn.Module, *, encoder_only: bool) -> list[str]:
    """Returns the fields that both networks have with different values, `norm` and `act` among them."""
    names = {"norm", "act", *set(field_names(type(theirs))) & set(field_names(type(ours)))}
    names = names & {"encoder", "norm", "act"} if encoder_only else names - {"num_classes"}
    return [name for name in sorted(names) if _setting(theirs, name) != _setting(ours, name)]


def _name(value: Any) -> str:
    """Returns a setting as text: the name of an encoder, norm or function, or the value."""
    if isinstance(value, EncoderSpec | NormSpec):
        return value.name
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


def _setting(network: Any, name: str) -> Any:
    """Returns the value of a field, of `norm` or of `act`; a norm comes without its dtype and mapped axis."""
    if name == "act":
        return network.common.act
    if name != "norm":
        return getattr(network, name)
    norm = network.common.norm
    if isinstance(norm, NormSpec):
        return NormSpec(norm.name, tuple((key, value) for key, value in norm.fields if key not in _RUN_FIELDS))
    return norm


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of named arrays: of their names, types, shapes and numbers."""
    sha = hashlib.sha256()
    for path in sorted(arrays):
        sha.update(f"{path} {arrays[path].dtype} {arrays[path].shape}\n".encode())
        sha.update(np.ascontiguousarray(arrays[path]).data)
    return sha.hexdigest()
