"""A trained network as the `state_dict` of segmentation_models.pytorch, torchvision or transformers.

The names and layouts are those by which `jaxseg.pretrained` reads the peer's files, read backwards.
"""

import importlib
import importlib.util
import io
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np
from flax import linen as nn

from jaxseg.arguments import check_value, expanded
from jaxseg.errors import ConfigError, WeightsError, counted, nearest
from jaxseg.export.writing import is_ours
from jaxseg.files import write_atomically
from jaxseg.models import encoders
from jaxseg.nn import NormSpec, without_crf
from jaxseg.pretrained import catalogue, flatten, inverse, loading, peer_form
from jaxseg.pretrained.family import SMP, TORCHVISION, TRANSFORMERS, NetworkFormat
from jaxseg.pretrained.files import safetensors_of
from jaxseg.run.load import Run, require_single

Peer: TypeAlias = Literal["smp", "torchvision", "transformers"]
PEERS: dict[str, str] = {"smp": SMP, "torchvision": TORCHVISION, "transformers": TRANSFORMERS}
"""The peers, with their names in `jaxseg.pretrained.family`."""
SUFFIXES = (".safetensors", ".pth")
_WRAPPERS = ("model.", "quantise.")  # of keys outside the arguments of the network


class PeerFile(NamedTuple):
    """A file that `export_peer` has written.

    Attributes:
        path: the file.
        bytes: its size.
        entries: how many entries its `state_dict` has.
        settings: what the peer's network must be built with, where its defaults are others.
        strict: whether the peer's `load_state_dict` finds every entry; False if its encoder keeps stages that ours
            does not have.
    """

    path: Path
    bytes: int
    entries: int
    settings: tuple[str, ...]
    strict: bool


def export_peer(run: Run, file: str | Path, peer: Peer) -> PeerFile:
    """Writes the weights of a run as a peer's `state_dict`, whose network then gives the logits of this one.

    The peer's network takes images that are normalised as the run's are: in [0, 1], minus `data.mean`, divided by
    `data.std`.

    Args:
        run: from `load_run`.
        file: where it is written, ending in .safetensors, or .pth where torch is installed; a file that an export has
            not written is not replaced.
        peer: whose names and layouts it has.

    Raises:
        ArgumentError: for an unknown peer.
        ConfigError: if the peer has no such network (the message says what differs), or the file cannot be written.
    """
    require_single(run, "An export")
    path, peer = expanded(check_value("file", file, str | Path)), check_value("peer", peer, Peer)
    _check_file(path)
    known, encoder = _format(run, peer)
    state = state_dict(run, peer)
    about = {"format": "pt", "jaxseg": f"{run.config.model.name} after {counted(run.step, 'step')}"}
    content = safetensors_of(state, about) if path.suffix == ".safetensors" else _of_torch(state)
    try:
        write_atomically(path, lambda out: _write(out, content))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error
    form = known.form_over(encoder)
    other = [] if form is None else peer_form.differing_fields(form.sizes, run.model)
    fields = [text.partition("=")[0] for text in other if not text.startswith("encoder_args.")]
    settings = [f"{field}={getattr(run.model, field)}" for field in fields]
    return PeerFile(path, path.stat().st_size, len(state), tuple(settings), not _is_cut(run.model, encoder))


def state_dict(run: Run, peer: Peer) -> dict[str, np.ndarray]:
    """Returns the peer's `state_dict`, {name: array}, of a run; raises ConfigError as `export_peer`."""
    known, encoder = _format(run, peer)
    rules = _rules(known, encoder, run.model)
    arrays = {path: np.asarray(x) for path, x in flatten(run.variables).items()}
    try:
        return inverse.invert(arrays, rules, known.names_over(encoder))
    except WeightsError as error:
        raise ConfigError(
            f"{known.peer} has no network of the form of this {run.config.model.name}"
            f"{f' over {encoder}' if encoder else ''}: {error}"
        ) from error


def _write(out: BinaryIO, content: bytes) -> Any:
    return out.write(content)


def _format(run: Run, peer: str) -> tuple[NetworkFormat, str | None]:
    """Returns the peer's format of the network and the name of its encoder, if the peer's gives the same numbers."""
    name, model = run.config.model.name, without_crf(run.model)
    formats = [known for family in catalogue.families() for known in family.network_formats]
    of_peer = [known for known in formats if known.peer == PEERS[peer]]
    fitting = [known for known in of_peer if known.model == name]
    if not fitting:
        others = sorted({known.model for known in of_peer})
        also = sorted(
            short for short, full in PEERS.items() for known in formats if (known.peer, known.model) == (full, name)
        )
        hint = f" --format {' or '.join(also)} has." if also else nearest(name, others)
        raise ConfigError(f"{PEERS[peer]} has no network like {name} whose names are known here.{hint}")
    (known,) = fitting
    own: Any = model.encoder if hasattr(model, "encoder") else None
    encoder = None if own is None else encoders.name_of(own)
    differing = _differing(known, encoder, model, run.config)
    if differing:
        raise ConfigError(
            f"The {name} of {known.peer} is ours with {', '.join(differing)}; this run was trained otherwise, so that "
            f"its weights would give other numbers there.{_training(differing)}"
        )
    return known, encoder


def _training(differing: Sequence[str]) -> str:
    """Returns how a network is trained that the peer takes, of the fields that differ; "" where these say it."""
    fields = [text for text in differing if re.fullmatch(r"[\w.]+=.+", text) and not text.startswith(_WRAPPERS)]
    words = [f"--config.model.args.{text}" for text in fields if " and " not in text]
    return f" Train one with {shlex.join(words)}; docs/share.md has a whole command." if words else ""


def _differing(known: NetworkFormat, encoder: str | None, model: Any, config: Any) -> list[str]:
    """Returns the settings of the peer's network that the run's has otherwise, as `KEY=VALUE`."""
    wrapped = ["model.crf="] if config.model.crf else []
    wrapped += ["model.head=linear"] if config.model.head != "linear" else []
    wrapped += ["quantise.activations=0"] if config.quantise.activations else []
    if wrapped:  # the network is inside another module
        return wrapped
    form = known.form_over(encoder)
    differing = [] if form is None else peer_form.differing_fields(form.fields, model)
    norm = model.common.norm
    if not (isinstance(norm, NormSpec) and norm.name == "batch" and not _settings_of(norm)):
        differing.append("norm=batch and no norm_args")
    return differing


def _settings_of(norm: NormSpec) -> dict[str, Any]:
    """Returns the fields of a norm that change what it computes in evaluation."""
    return {name: value for name, value in norm.fields if name == "epsilon" and value != 1e-5}


def _rules(known: NetworkFormat, encoder: str | None, model: nn.Module) -> list[Any]:
    """Returns the rules of the format over the form of the encoder that the peer's networks hold."""
    if not known.takes:
        return loading.candidates([known], encoder, model)[0].rules
    inside = [f for f in catalogue.encoder_formats(encoder or "") if known.peer in f.inside]
    if encoder is None or not inside:
        over = encoder or "this encoder"
        raise ConfigError(f"{known.peer} has no {known.model} over {over} whose names are known here.")
    return loading.over(known, inside[0], encoder, model).rules


def _is_cut(model: Any, encoder: str | None) -> bool:
    """Whether the encoder has fewer stages than the one of its name."""
    own = peer_form.encoder_of(model)
    if own is None or encoder is None:
        return False
    whole: Any = encoders.build(encoder)
    return len(own.strides) < len(whole.strides)


def _check_file(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path} has an unknown suffix; weights for another library end in {' or '.join(SUFFIXES)}.")
    if path.suffix == ".pth" and importlib.util.find_spec("torch") is None:
        raise ConfigError(f"{path}: a .pth needs the package torch; .safetensors needs none, and torch reads it too.")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of a file.")
    if path.exists() and not is_ours(path):
        raise ConfigError(f"{path} exists and is no file of an export; give another name, or remove it first.")


def _of_torch(state: Mapping[str, np.ndarray]) -> bytes:
    torch = importlib.import_module("torch")  # which jaxseg never needs

    content = io.BytesIO()
    torch.save({name: torch.from_numpy(x.copy()) for name, x in state.items()}, content)
    return content.getvalue()
