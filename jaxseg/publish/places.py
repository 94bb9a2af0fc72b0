"""Takes the places of a machine out of what is published: folders, files, buckets, hosts, users."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxseg.arguments import expanded
from jaxseg.config import FREE_KEYS, KEYS, ConfigDict
from jaxseg.config.values import WITHHELD, flatten, held_out_group, with_values
from jaxseg.errors import ConfigError
from jaxseg.pretrained import catalogue

# Keys that name a file or a folder, and what they become: a network is used without any of them.
PLACES: dict[str, Any] = {
    "data.dir": "",
    "data.cache": "",
    "data.unlabelled": "",
    "data.proposals": "",
    "data.annotations": "",
    "data.labelled": 1.0,  # unless it is a share; that all images keep their labels asks for no file
    "data.fold_file": "",
    "data.group": "",  # a file and its column, or a pattern of names
    "data.val_group": WITHHELD,  # as data.group; that images are held out by themselves, names, may stay
    "compile.cache": "",
    "checkpoint.copy_to": "",
    "log.project": "",  # a name of whoever trained it
    "loss.hierarchy": "",  # data.json has the groups
    "distill.teacher": "",
    "model.weights": "",
    "model.encoder_weights": "",
}
_WEIGHTS = ("model.weights", "model.encoder_weights")
_LENGTH = ("steps", "epochs")
_OF_THE_MACHINE = (
    "data.cache",
    "compile.cache",
    "checkpoint.copy_to",
    "log.project",
)  # places that make no other network
_PLACE = re.compile(r"~|\\|\.\.?/|[A-Za-z]:[/\\]|(?:.*[\s='\"(\[,:])?(?:/(?=[\w.])|~/|[a-z]\w*://)|.*/\.\./")
_EXPERIMENT = re.compile(r"(?:.*/)?(experiments/(?:ablations/)?\w+\.py)(:[\w.,-]+)?")


def is_place(text: str) -> bool:
    """Returns whether a text is, or holds, a path from the root, the home or the folder above, or an address."""
    return not text.startswith("hf://") and _PLACE.match(text) is not None


def without_places(config: ConfigDict) -> ConfigDict:
    """Returns the configuration of a run without the places of its machine, for one that is only used.

    Names of published weights and of repositories of the Hub stay; devices are those of whoever uses the network. A
    fold without its file or its groups would be other images, and is left out with them. That groups were held out is
    said, without what they are, so that `--split val` does not score images of the training.
    """
    given = {key: value for key, value in flatten(config.to_dict()).items()}
    changed = {key: KEYS[key].default for key in given if key in KEYS and key.startswith("mesh.")}
    for key, value in given.items():
        if key in PLACES and value != KEYS[key].default and not _may_stay(config, key, value):
            changed[key] = PLACES[key]
    if held_out_group(config) is not None:
        changed["data.val_group"] = WITHHELD  # also where data.group alone names them
    if config.data.fold and (config.data.fold_file or config.data.group):
        changed["data.fold"] = ""
    if config.distill.teacher:
        changed |= {key: KEYS[key].default for key in KEYS if key.startswith("distill.")}
    kept = with_values(config, changed)
    for name, group in (("compile.options", kept.compile.options), ("optimizer.args", kept.optimizer.args)):
        plain = {key: value for key, value in group.items() if not _holds_place(value)}
        kept = with_values(kept, {name: plain}) if len(plain) < len(group) else kept
    left = [key for key, value in flatten(kept.to_dict()).items() if _holds_place(value)]
    if left:
        raise ConfigError(f"{left[0]} of the run names a place of this machine, which is not published.")
    return kept


def _may_stay(config: ConfigDict, key: str, value: Any) -> bool:
    return _is_name(key, value) or (key in _WEIGHTS and value in catalogue.network_weights(config.model.name))


def _is_name(key: str, value: Any) -> bool:
    """Returns whether the value of a key of `PLACES` names no place of a machine."""
    if key in _WEIGHTS:
        return re.fullmatch(r"hf://[\w.@/-]+|\w*", value) is not None
    if key == "data.labelled":
        return not isinstance(value, str) or re.fullmatch(r"[\d./ ]*", value) is not None
    if key == "data.val_group":
        return value in ("group", "names", WITHHELD)
    return value == "" or (key == "compile.cache" and value == "off")


def _holds_place(value: Any) -> bool:
    if isinstance(value, str):
        return is_place(value)
    return any(map(_holds_place, value)) if isinstance(value, list | tuple) else False


def identity_of(config: ConfigDict) -> dict[str, Any]:
    """Returns the values of a configuration that make its network another one; its length does not.

    Its data do: the places are among the values, which are therefore not published themselves.
    """
    flat = flatten(config.to_dict())
    free = {key for key in flat if key.startswith(FREE_KEYS)} - PLACES.keys()
    return {key: value for key, value in sorted(flat.items()) if key not in free.union(_LENGTH, _OF_THE_MACHINE)}


def plain_command(command: Any) -> str:
    """Returns the command of a training, with PATH for each place in it, and without its workdir.

    It is "" for one that is no shell command of jaxseg, such as a call from Python.
    """
    try:
        words = shlex.split(command) if isinstance(command, str) else []  # run.json may hold anything
    except ValueError:
        return ""
    start = 4 if words[2:3] == ["jaxseg"] else 3  # after the subcommand, if there is one
    if re.fullmatch(r"python -m jaxseg( [\w-]+|(\.\w+)+)", " ".join(words[:start])) is None:
        return ""
    return " ".join([*words[:start], *_plain(words[start:])])


def _plain(words: list[str]) -> Iterable[str]:
    rest, named = list(words), False
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") and not named:  # the experiment without --config
            named = True
            yield _experiment(word)
            continue
        name, equals, value = word.partition("=")
        if name.startswith("--") and not equals and rest and not rest[0].startswith("--"):
            value, equals = rest.pop(0), " "
        if name == "--workdir":
            continue
        key = name.removeprefix("--config.")
        if name == "--config":
            value = _experiment(value)
        elif key in PLACES and not _is_name(key, value):
            value = "PATH"
        elif is_place(value) or (not name.startswith("--") and ("/" in name or is_place(name))):
            name, value = (name, "PATH") if equals else ("PATH", "")
        yield f"{name}{equals}{value if value == 'PATH' else shlex.quote(value) if value else ''}"


def _experiment(value: str) -> str:
    found = _EXPERIMENT.fullmatch(value)
    if found is not None:
        return f"{found[1]}{found[2] or ''}"
    variant = value.partition(".py:")[2]
    return "EXPERIMENT.py" + (f":{variant}" if re.fullmatch(r"[\w,-]+", variant) else "")


def require_none(folder: Path, workdir: Path) -> None:
    """Raises ConfigError if a file of a folder holds this user's home, the folder of the command, or the workdir."""
    places = {str(path.absolute()) for path in (workdir, Path.cwd(), expanded("~"))} - {"/"}
    needles = [text.encode() for text in places if text.count("/") > 1 or len(text) > 5]
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        if any(needle in content for needle in needles):
            raise ConfigError(f"{file.name} would publish a path of this machine; nothing is published.")
