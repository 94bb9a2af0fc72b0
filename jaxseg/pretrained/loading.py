"""From a name or a file to the variables of a network: finding, reading, and saying what was done."""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flax import linen as nn

from jaxseg import models
from jaxseg.errors import WeightsError, nearest
from jaxseg.models import encoders
from jaxseg.pretrained import catalogue, files, forms, hub, vgg
from jaxseg.pretrained.catalogue import Published
from jaxseg.pretrained.fitting import check_patterns, fit, is_ours, leave_out, rename, rename_encoder, unknown
from jaxseg.pretrained.rules import Rule, flatten

_HUB = "hf://"
_ADDRESS = re.compile(r"(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>.*[^/]))?")


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
        commit: of the repository on the Hub that it came from, which pins it: hf://OWNER/NAME@COMMIT; else None.
        notes: what was done besides renaming, a few words each.
    """

    variables: dict[str, Any]
    file: str
    sha256: str
    commit: str | None
    notes: tuple[str, ...]


class Format(NamedTuple):
    """One that a file may have: the name of its rules, as in the catalogue, and the rules."""

    name: str
    rules: list[Rule]


def find(
    source: str, *, encoder: str | None = None, model: str | None = None, network: nn.Module | None = None
) -> Source:
    """Says where `source` is, without reading or fetching anything.

    Args:
        source: a name of published weights of the encoder or network ("imagenet"); a file; or any repository of the
            Hugging Face Hub, hf://OWNER/NAME or hf://OWNER/NAME/FILE, with @REVISION (a commit, a tag or a branch)
            after NAME where not the newest is wanted.
        encoder: name of the encoder that the weights belong to.
        model: name of the architecture; where it is given, the weights are those of the whole network.
        network: the network itself, to say what it may take instead.

    Raises:
        WeightsError: for a name that is not known, naming the nearest, and an encoder that is not; for published
            weights of the encoder of a network that has none by name.
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
        address = _ADDRESS.fullmatch(source.removeprefix(_HUB))
        if address is None:
            raise WeightsError(
                f"{source!r} names no repository, which is hf://OWNER/NAME or hf://OWNER/NAME/FILE, with @REVISION "
                "after NAME for a commit, a tag or a branch without slashes."
            )
        wanted = catalogue.HUB_FILES if address["file"] is None else (address["file"],)
        return Source(None, Published(address["repository"], wanted, address["revision"]), rules)
    path = Path(source).expanduser()
    if path.suffix in files.SUFFIXES or path.exists():
        return Source(path, None, rules)
    if _is_path(source):
        raise WeightsError(f"There is no file or folder {source!r}.")
    if encoder is None and model is None and network is not None:
        raise WeightsError(without_encoder(network))
    hint = nearest(source, names) if names else " None are known by name."
    raise WeightsError(
        f"There are no published weights {source!r} for {owner}.{hint} A file can be given too (.safetensors, .pth, "
        ".npz), the workdir of a run, or a repository: hf://OWNER/NAME."
    )


def _is_path(source: str) -> bool:
    """Returns whether a source that does not exist was meant for a path, not for a name, which may be OWNER/NAME."""
    if "/" not in source or "://" in source:
        return False
    return source.startswith(("/", "~", ".")) or source.count("/") > 1 or Path(source).parent.is_dir()


def without_encoder(network: nn.Module) -> str:
    """Returns why no published weights can start the encoder of a network, and what can be done."""
    name = type(network).__module__.rpartition(".")[2]
    if hasattr(network, "encoder"):
        return (
            f"the network {name!r} has its own encoder here, for which no weights are published; give it another, such "
            "as model.args.encoder=resnet50."
        )
    return (
        f"the network {name!r} takes no encoder but its own, for which no weights are published; networks that take "
        f"others: {', '.join(models.with_encoder())}."
    )


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
    """Returns `variables` of a network with published or other weights in it, every name accounted for on both sides.

    With `model` the weights are those of the whole network, else of its child "encoder" alone; but the dense layers of
    a VGG's classifier become "fc6" and "fc7" of an FCN, where they fit.

    Args:
        variables: {"params": ..., "batch_stats": ...} of the network, arrays or shapes (what is not in the file then
            stays a shape).
        source: see `find`.
        encoder: name of the network's encoder, one of `jaxseg.models.encoders.names()`.
        model: name of the architecture.
        network: the network itself, whose encoder's levels the rules then follow (without it, those of the encoder of
            this name), and whose fields are compared with those of the file's network, see `forms`.
        rules: of the format of the file, relative to the encoder or for the whole network, in place of those that are
            known for it.
        skip: regular expressions of paths that stay as they are, see `merge`, or of names in the file that no rule
            knows and that are left out; each must be found in one of either.
        channels: of the network's images; where that is not 3, the first convolution of RGB weights is adapted, see
            `adapt_input`.
        num_classes: of the network; classifiers for another number in the file stay as they are, see `remade_heads`.

    Raises:
        WeightsError: if the weights cannot be had, read, renamed or fitted: what is missing, unexpected and of another
            shape is listed.
    """
    check_patterns(skip)
    found = find(source, encoder=encoder, model=model, network=network)
    path = hub.fetch(found.published) if found.file is None else found.file
    file = files.read(path)
    catalogue.check_torchvision_digest(path.stem, file.sha256)
    notes, known = list(file.notes), formats(found.rules, encoder, network)
    if found.file is None and hub.digest(path) is None:
        notes.append("not compared with the Hub's digest, which its cache does not keep here")
    if rules is not None:
        known = [Format("", list(rules))]
    nearest_format, options = None, {"skip": skip, "channels": channels, "num_classes": num_classes, "notes": notes}
    try:
        foreign = network is not None and not is_ours(file.arrays)
        if foreign and not known and encoder is None and (model is None or found.rules):
            raise WeightsError(f"its names are not ours, and {without_encoder(network)}")
        lists = [rules for _, rules in known]
        theirs = leave_out(file.arrays, lists, skip, notes)
        options["names"] = file.arrays.keys() - theirs.keys()
        if model is None:
            arrays = rename_encoder(theirs, lists, notes)
            over_vgg = encoder is not None and encoders.family(encoder) == "vgg"
            dense = vgg.dense_layers(file.arrays, flatten(variables), notes) if over_vgg else {}
            result = fit(variables, arrays | dense, children=("encoder", *(vgg.DENSE if dense else ())), **options)
        else:
            if not is_ours(file.arrays):
                nearest_format = _format_of(theirs, known)
            result = fit(variables, rename(theirs, lists), **options)
    except WeightsError as error:
        hint = "" if model is None else _hint(file.arrays, nearest_format, encoder, network)
        raise WeightsError(f"{path}: {error}{hint}") from error
    form = _form(nearest_format, encoder, network)
    if form is not None and forms.remark(form, network):
        notes.append(forms.remark(form, network))
    return Loaded(result, str(path), file.sha256, hub.commit(path) if found.file is None else None, tuple(notes))


def _format_of(names: Collection[str], known: Iterable[Format]) -> Format | None:
    """Returns the format that knows most of the names, where those are more than half."""
    counts = [(len(unknown(names, f.rules)), f) for f in known]
    left, best = min(counts, key=lambda pair: pair[0], default=(len(names), None))
    return best if 2 * left < len(names) else None


def _form(found: Format | None, encoder: str | None, network: nn.Module | None) -> forms.Form | None:
    """Returns the form of the networks whose files have this format, to compare the network with."""
    return None if found is None or network is None else forms.of(found.name, encoder)


def _hint(names: Collection[str], found: Format | None, encoder: str | None, network: nn.Module | None) -> str:
    """Returns what may be wrong with a file that does not fit a whole network, as far as its names tell."""
    form = _form(found, encoder, network)
    if form is not None:
        return forms.advice(form, network)
    if found is not None or is_ours(names):
        return ""
    of_encoders = {rules for row in catalogue.ENCODER_RULES.values() for rules in row}
    if _format_of(names, formats(sorted(of_encoders), None)) is None:
        return ""
    takes_one = network is None or hasattr(network, "encoder")
    return f" These are names of an encoder{': use model.encoder_weights' if takes_one else ''}."


def formats(names: Iterable[str], encoder: str | None, network: nn.Module | None = None) -> list[Format]:
    """Returns the formats behind the names of rules: a function that takes an encoder's rules is given each of them."""
    result = []
    for name in names:
        function, arguments = _function(name)
        parameters = inspect.signature(function).parameters
        options = {"strides": _strides(encoder, network)} if "strides" in parameters else {}
        if "encoder" not in parameters:
            result.append(Format(name, function(*arguments, **options)))
        elif encoder is not None:
            inner = formats(catalogue.encoder_rules(encoder), None)
            result += [Format(name, function(rules, **options)) for _, rules in inner]
    return result


def _strides(encoder: str | None, network: nn.Module | None) -> tuple[int, ...]:
    """Returns those of the network's encoder, or of the encoder of this name."""
    if network is not None and hasattr(network, "encoder") and network.encoder is not None:
        return network.encoder().strides
    return () if encoder is None else encoders.build(encoder).strides


def _function(name: str) -> tuple[Callable[..., list[Rule]], tuple[Any, ...]]:
    """Returns the function and the arguments of "FILE:FUNCTION" or "FILE:FUNCTION(1.1)"."""
    module, function, arguments = re.fullmatch(r"(\w+):(\w+)(?:\((.+)\))?", name).groups()
    function = getattr(importlib.import_module(f"jaxseg.pretrained.{module}"), function)
    return function, (ast.literal_eval(f"({arguments},)") if arguments else ())
