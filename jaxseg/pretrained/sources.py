"""Finds where weights are: published under a name, in a file, or in a repository of the Hugging Face Hub."""

import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flax import linen as nn

from jaxseg import models
from jaxseg.arguments import expanded, located
from jaxseg.errors import WeightsError, nearest
from jaxseg.models import encoders
from jaxseg.pretrained import catalogue, files
from jaxseg.pretrained.family import HUB_FILES, SHARD_LISTS, EncoderFormat, NetworkFormat, Packaged, Published

_HUB = "hf://"
_ADDRESS = re.compile(r"(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>.*[^/]))?")


class Source(NamedTuple):
    """Where weights are.

    Attributes:
        place: a file, weights on the Hub, or weights in a package.
        formats: the formats that the file may have, in the order in which they are tried.
    """

    place: Path | Published | Packaged
    formats: tuple[EncoderFormat, ...] | tuple[NetworkFormat, ...]


def find(
    source: str, *, encoder: str | None = None, model: str | None = None, network: nn.Module | None = None
) -> Source:
    """Returns where `source` is. Reads and fetches nothing.

    Args:
        source: the name of published weights of the encoder or network ("imagenet"); a file; a folder that holds one
            under a name of the Hub, such as model.safetensors; or a repository of the Hugging Face Hub, hf://OWNER/NAME
            or hf://OWNER/NAME/FILE, with @REVISION (a commit, a tag or a branch) after NAME for another revision than
            the newest.
        encoder: name of the encoder that the weights belong to.
        model: name of the architecture, for weights of the whole network.
        network: the network itself; the error then says which encoders it takes.

    Raises:
        WeightsError: if the encoder or the name of the weights is unknown (names the nearest), a path does not exist,
            or the network's encoder has no published weights.
    """
    if encoder is not None and encoder not in encoders.names():
        raise WeightsError(f"There is no encoder {encoder!r}.{nearest(encoder, encoders.names())}")
    owner, names, formats = _known(encoder, model)
    if source in names:
        return Source(names[source], formats)
    if source.startswith(_HUB):
        return Source(repository(source), formats)
    path = expanded(source)
    if path.suffix in files.SUFFIXES or path.exists():
        return Source(file_in(path) or path, formats)
    if _is_path(source):
        raise WeightsError(f"There is no file or folder {located(path)}.")
    if encoder is None and model is None and network is not None:
        raise WeightsError(no_published_encoder(network))
    reason = catalogue.withheld(encoder, model)
    known = nearest(source, names) if names else "" if reason else " None are known by name."
    hint = f"{known} {reason}." if reason else known
    hint += f" Nor is there a folder {located(path)}." if "/" in source else ""
    raise WeightsError(
        f"There are no published weights {source!r} for {owner}.{hint} A file can be given too (.safetensors, .pth, "
        ".npz), the workdir of a run, or a repository: hf://OWNER/NAME."
    )


def file_in(folder: Path) -> Path | None:
    """Returns the file of weights in a folder that is a copy of a repository of the Hub; None if there is none.

    For weights in several files it is the list of these.
    """
    return next((folder / name for name in (*HUB_FILES, *SHARD_LISTS) if (folder / name).is_file()), None)


def _known(
    encoder: str | None, model: str | None
) -> tuple[str, Mapping[str, Published | Packaged], tuple[EncoderFormat, ...] | tuple[NetworkFormat, ...]]:
    """Returns whose weights are looked for, {name: where they are} of the published ones, and their formats."""
    if model is not None:
        return f"the network {model!r}", catalogue.network_weights(model), catalogue.network_formats(model)
    if encoder is not None:
        return f"the encoder {encoder!r}", catalogue.encoder_weights(encoder), catalogue.encoder_formats(encoder)
    return "an encoder without a name", {}, ()


def repository(source: str) -> Published:
    """Returns what hf://OWNER/NAME[@REVISION][/FILE] names.

    Raises:
        WeightsError: if it names no repository.
    """
    address = _ADDRESS.fullmatch(source.removeprefix(_HUB))
    if address is None:
        raise WeightsError(
            f"{source!r} names no repository, which is hf://OWNER/NAME or hf://OWNER/NAME/FILE, with @REVISION "
            "after NAME for a commit, a tag or a branch without slashes."
        )
    wanted = HUB_FILES if address["file"] is None else (address["file"],)
    revision = None if address["revision"] is None else urllib.parse.unquote(address["revision"])
    return Published(address["repository"], wanted, revision)


def _is_path(source: str) -> bool:
    """Returns whether a source that does not exist is meant as a path; a name may have the form OWNER/NAME too."""
    if "/" not in source or "://" in source:
        return False
    return source.startswith(("/", "~", ".")) or source.count("/") > 1 or Path(source).parent.is_dir()


def no_published_encoder(network: nn.Module) -> str:
    """Returns why no published weights can start the encoder of a network, and what the user can do."""
    name = type(network).__module__.rpartition(".")[2]
    if hasattr(network, "encoder"):
        return (
            f"the network {name!r} has its own encoder here, for which no weights are published; give the network "
            "another encoder, such as resnet50."
        )
    return (
        f"the network {name!r} takes no encoder but its own, for which no weights are published; networks that take "
        f"others: {', '.join(models.with_encoder())}."
    )
