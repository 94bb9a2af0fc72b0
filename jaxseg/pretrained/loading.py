"""From a name or a file to the variables of a network: finding, reading, and saying what was done."""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxseg.models import encoders
from jaxseg.pretrained import catalogue, files, hub
from jaxseg.pretrained.catalogue import Published
from jaxseg.pretrained.errors import WeightsError
from jaxseg.pretrained.fitting import fit, rename, rename_encoder
from jaxseg.pretrained.rules import Rule
from jaxseg.words import nearest

_HUB = "hf://"
# Names of the parameter by which a rules function for a network takes the rules of its encoder.
_ENCODER_PARAMETERS = {"encoder", "encoder_rules"}


class Source(NamedTuple):
    """Where weights are to come from.

    Attributes:
        file: the file, or None where it is fetched from the Hub.
        published: the entry of the Hub, or None.
        rules: names of the rules that its format may need, tried in this order.
    """

    file: Path | None
    published: Published | None
    rules: tuple[str, ...]


class Loaded(NamedTuple):
    """Variables with weights in them.

    Attributes:
        variables: those given, with the arrays of the file in place of their own.
        file: what was read.
        sha256: of the file.
        notes: what was done besides renaming, a few words each.
    """

    variables: dict[str, Any]
    file: str
    sha256: str
    notes: tuple[str, ...]


def find(source: str, *, encoder: str | None = None, model: str | None = None) -> Source:
    """Says where `source` is, without reading or fetching anything.

    Args:
        source: a name of published weights of the encoder or network ("imagenet"); a file; or any repository of the
            Hugging Face Hub, hf://OWNER/NAME or hf://OWNER/NAME/FILE.
        encoder: name of the encoder that the weights belong to.
        model: name of the architecture; where it is given, the weights are those of the whole network.

    Raises:
        WeightsError: for a name that is not known, naming the nearest, and an encoder that is not.
    """
    if encoder is not None and encoder not in encoders.names():
        raise WeightsError(f"There is no encoder {encoder!r}.{nearest(encoder, encoders.names())}")
    if model is not None:
        owner, names = f"the network {model!r}", catalogue.network_weights(model)
        rules = catalogue.network_rules(model)
    elif encoder is not None:
        owner, names = f"the encoder {encoder!r}", catalogue.encoder_weights(encoder)
        rules = catalogue.encoder_rules(encoder)
    else:
        owner, names, rules = "an encoder without a name", {}, ()
    if source in names:
        return Source(None, names[source], rules)
    if source.startswith(_HUB):
        owner_name, file = source.removeprefix(_HUB).split("/", 2)[:2], source.removeprefix(_HUB).split("/", 2)[2:]
        if len(owner_name) != 2 or not all((*owner_name, *file)):
            raise WeightsError(f"{source!r} names no repository, which is hf://OWNER/NAME or hf://OWNER/NAME/FILE.")
        return Source(None, Published("/".join(owner_name), tuple(file) or catalogue.HUB_FILES), rules)
    path = Path(source).expanduser()
    if path.suffix in files.SUFFIXES or path.exists():
        return Source(path, None, rules)
    hint = nearest(source, names) if names else " None are known by name."
    raise WeightsError(
        f"There are no published weights {source!r} for {owner}.{hint} A file can be given too (.safetensors, .pth, "
        ".npz), the workdir of a run, or a repository: hf://OWNER/NAME."
    )


def load(
    variables: Mapping[str, Any],
    source: str,
    *,
    encoder: str | None = None,
    model: str | None = None,
    rules: Iterable[Rule] | None = None,
    skip: Sequence[str] = (),
    channels: int = 3,
    num_classes: int | None = None,
) -> Loaded:
    """Returns `variables` of a network with published or other weights in it, every name accounted for on both sides.

    With `model` the weights are those of the whole network, else of its child "encoder" alone.

    Args:
        variables: {"params": ..., "batch_stats": ...} of the network, arrays or shapes (what is not in the file then
            stays a shape).
        source: see `find`.
        encoder: name of the network's encoder, one of `jaxseg.models.encoders.names()`.
        model: name of the architecture.
        rules: of the format of the file, relative to the encoder or for the whole network, in place of those that are
            known for it.
        skip: regular expressions of paths that stay as they are, see `merge`.
        channels: of the network's images; where that is not 3, the first convolution of RGB weights is adapted, see
            `adapt_input`.
        num_classes: of the network; classifiers for another number in the file stay as they are, see `remade_heads`.

    Raises:
        WeightsError: if the weights cannot be had, read, renamed or fitted: what is missing, unexpected and of another
            shape is listed.
    """
    found = find(source, encoder=encoder, model=model)
    path = hub.fetch(found.published) if found.file is None else found.file
    file = files.read(path)
    catalogue.check_torchvision_digest(path.stem, file.sha256)
    notes = list(file.notes)
    lists = _rule_lists(found.rules, encoder) if rules is None else [list(rules)]
    try:
        arrays = rename_encoder(file.arrays, lists, notes) if model is None else rename(file.arrays, lists)
        result = fit(
            variables, arrays, whole=model is not None, skip=skip, channels=channels, num_classes=num_classes,
            notes=notes,
        )  # fmt: skip
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return Loaded(result, str(path), file.sha256, tuple(notes))


def _rule_lists(names: Iterable[str], encoder: str | None) -> list[list[Rule]]:
    """Returns the rules behind the names; a function that takes an encoder's rules is given each of them."""
    lists = []
    for name in names:
        function, arguments = _function(name)
        if not _ENCODER_PARAMETERS & set(inspect.signature(function).parameters):
            lists.append(function(*arguments))
        elif encoder is not None:
            lists += [function(inner) for inner in _rule_lists(catalogue.encoder_rules(encoder), None)]
    return lists


def _function(name: str) -> tuple[Callable[..., list[Rule]], tuple[Any, ...]]:
    """Returns the function and the arguments of "FILE:FUNCTION" or "FILE:FUNCTION(1.1)"."""
    module, function, arguments = re.fullmatch(r"(\w+):(\w+)(?:\((.+)\))?", name).groups()
    function = getattr(importlib.import_module(f"jaxseg.pretrained.{module}"), function)
    return function, (ast.literal_eval(f"({arguments},)") if arguments else ())
