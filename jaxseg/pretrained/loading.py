"""Loads weights into a network: finds and reads them, renames the arrays, merges them and notes what was done."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

from jaxseg.errors import WeightsError
from jaxseg.models import encoders
from jaxseg.pretrained import catalogue, files, hub, packages, peer_form, vgg
from jaxseg.pretrained.family import EncoderFormat, NetworkFormat, Packaged, Published
from jaxseg.pretrained.merging import adapt_and_merge, check_patterns, flatten
from jaxseg.pretrained.renaming import drop_skipped, is_ours, rename, rename_encoder, unknown_names, unwrapped
from jaxseg.pretrained.rules import Rule
from jaxseg.pretrained.sources import find, no_published_encoder


class Loaded(NamedTuple):
    """Variables with weights in them.

    Attributes:
        variables: those given, with the arrays of the file in place of their own.
        file: path of the file.
        sha256: of the file.
        commit: of the repository on the Hub that the file came from; hf://OWNER/NAME@COMMIT fetches it again. Else
            None.
        notes: what was done besides renaming, a few words each.
    """

    variables: dict[str, Any]
    file: str
    sha256: str
    commit: str | None
    notes: tuple[str, ...]


class Candidate(NamedTuple):
    """The rules of a format that a file may have.

    Attributes:
        rules: for an encoder, relative to it; for a whole network, for all of it.
        network: the format, of a whole network; None for an encoder and for rules that the caller gave.
    """

    rules: list[Rule]
    network: NetworkFormat | None = None


def load(
    variables: Mapping[str, Any],
    source: str,
    *,
    encoder: str | None = None,
    model: str | None = None,
    network: nn.Module | None = None,
    rules: Iterable[Rule] | None = None,
    skip: Sequence[str] = (),
    channels: int = 3,
    num_classes: int | None = None,
) -> Loaded:
    """Returns `variables` of a network with published or other weights in it; every name must exist on both sides.

    With `model` the weights are those of the whole network. Else they are those of its child "encoder", and from a VGG
    also those of the children "fc6" and "fc7" of an FCN, if the dense layers fit.

    Args:
        variables: {"params": ..., "batch_stats": ...} of the network, arrays or shapes. What the file does not hold
            stays as it is.
        source: see `find`.
        encoder: name of the network's encoder, one of `jaxseg.models.encoders.names()`.
        model: name of the architecture.
        network: the network itself. The rules then follow the levels of its encoder (else those of the encoder of this
            name), and its fields are compared with those of the peer's network, see `jaxseg.pretrained.peer_form`.
        rules: of the format of the file, relative to the encoder or for the whole network, in place of the known ones.
        skip: regular expressions of our paths that keep their values, see `merge`, or of names in the file that no rule
            knows and that are left out. Each must be found in one of either.
        channels: of the network's images. If it is not 3, the first convolution of RGB weights is adapted, see
            `adapt_input`.
        num_classes: of the network. Classifiers for another number keep their values, see `new_classifiers`.

    Raises:
        WeightsError: if the weights cannot be found, fetched, read or renamed, or do not fit the network. Lists what is
            missing, unexpected and of another shape.
    """
    check_patterns(skip)
    found = find(source, encoder=encoder, model=model, network=network)
    path = _located(found.place)
    file = files.read(path)
    catalogue.check_torchvision_digest(path.stem, file.sha256)
    notes, commit = list(file.notes), None
    if isinstance(found.place, Published):
        commit = hub.commit(path)
        if hub.digest(path) is None:
            notes.append("not compared with the Hub's digest, which its cache does not keep here")
    if not isinstance(found.place, Path) and found.place.normalised is not None:
        mean, std = ("({})".format(", ".join(f"{value:g}" for value in each)) for each in found.place.normalised)
        notes.append(f"they were trained with images of data.mean {mean} and data.std {std}")
    known = candidates(found.formats, encoder, network) if rules is None else [Candidate(list(rules))]
    lists = [candidate.rules for candidate in known]
    given = unwrapped(file.arrays, lists, notes, encoder=model is None)
    theirs = drop_skipped(given, lists, skip, notes)
    best = None if model is None or is_ours(given) else _best(theirs, known)
    try:
        without_name = not known and encoder is None and (model is None or found.formats)
        if network is not None and not is_ours(given) and without_name:
            raise WeightsError(f"its names are not ours, and {no_published_encoder(network)}")
        children = None
        if model is not None:
            arrays = rename(theirs, lists)
        else:
            arrays = rename_encoder(theirs, lists, notes)
            dense = _dense_layers(given, variables, encoder, notes)
            arrays, children = arrays | dense, ("encoder", *(vgg.DENSE if dense else ()))
        result = adapt_and_merge(
            variables,
            arrays,
            children=children,
            skip=skip,
            channels=channels,
            num_classes=num_classes,
            notes=notes,
            dropped=given.keys() - theirs.keys(),
        )
    except WeightsError as error:
        hint = "" if model is None else _hint(given, best, encoder, network)
        raise WeightsError(f"{path}: {error}{hint}") from error
    if best is not None and best.network is not None and network is not None:
        notes += peer_form.remarks(best.network, encoder, network, given)
    return Loaded(result, str(path), file.sha256, commit, tuple(notes))


def locate(
    source: str, *, encoder: str | None = None, model: str | None = None, network: nn.Module | None = None
) -> Path:
    """Returns the file of weights, fetched if it is not there; its content is not read. The arguments are `load`'s.

    Raises:
        WeightsError: if the weights are unknown, cannot be fetched, or there is no such file.
    """
    path = _located(find(source, encoder=encoder, model=model, network=network).place)
    files.require_file(path)
    return path


def _located(place: Path | Published | Packaged) -> Path:
    if isinstance(place, Packaged):
        return packages.locate(place)
    return hub.fetch(place) if isinstance(place, Published) else place


def candidates(
    formats: Iterable[EncoderFormat | NetworkFormat], encoder: str | None, network: nn.Module | None = None
) -> list[Candidate]:
    """Returns the rules of the formats; for a network over any encoder, one candidate for each format of `encoder`."""
    result = []
    for known in formats:
        if isinstance(known, EncoderFormat):
            result.append(Candidate(known.rules()))
        elif not known.takes:
            result.append(Candidate(known.rules(), known))
        elif encoder is not None:
            result += [over(known, inner, encoder, network) for inner in catalogue.encoder_formats(encoder)]
    return result


def over(known: NetworkFormat, inner: EncoderFormat, encoder: str, network: nn.Module | None) -> Candidate:
    """Returns the rules of a network's format over one of `encoder`; see `candidates`."""
    given = {"encoder": inner.rules(), "strides": _strides(encoder, network)}
    return Candidate(known.rules(*(given[name] for name in known.takes)), known)


def _strides(encoder: str, network: nn.Module | None) -> tuple[int, ...]:
    """Returns the strides of the network's encoder, or of the encoder of this name."""
    own = None if network is None else peer_form.encoder_of(network)
    built: Any = encoders.build(encoder) if own is None else own
    return built.strides


def _dense_layers(
    arrays: Mapping[str, np.ndarray], variables: Mapping[str, Any], encoder: str | None, notes: list[str]
) -> dict[str, np.ndarray]:
    """Returns the dense layers of a VGG's file, as `vgg.dense_layers`; nothing for other encoders."""
    if encoder is None or encoders.family(encoder) != "vgg":
        return {}
    return vgg.dense_layers(arrays, flatten(variables), notes)


def _best(names: Collection[str], known: Iterable[Candidate]) -> Candidate | None:
    """Returns the candidate that knows most of the names, if it knows more than half of them."""
    counts = [(len(unknown_names(names, candidate.rules)), candidate) for candidate in known]
    if not counts:
        return None
    unknown, best = min(counts, key=lambda pair: pair[0])
    return best if 2 * unknown < len(names) else None


def _hint(names: Collection[str], best: Candidate | None, encoder: str | None, network: nn.Module | None) -> str:
    """Returns what may be wrong with a file that does not fit a whole network, judged by the names in it."""
    if best is not None:
        if best.network is None or network is None:
            return ""
        return peer_form.advice(best.network, encoder, network)
    if is_ours(names) or _best(names, candidates(catalogue.encoder_formats(), None)) is None:
        return ""
    takes_one = network is None or hasattr(network, "encoder")
    return f" These are names of an encoder{': load them as weights of the encoder' if takes_one else ''}."
