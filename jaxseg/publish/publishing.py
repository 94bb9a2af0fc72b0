"""From a run to a published network: its files are made and read back first, and then put in their place."""

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg import models
from jaxseg.arguments import expanded
from jaxseg.config import to_dict
from jaxseg.errors import ConfigError, nearest
from jaxseg.export import FORMATS, export_run
from jaxseg.files import write_atomically, write_text
from jaxseg.pretrained import flatten
from jaxseg.pretrained.files import safetensors_of
from jaxseg.publish import upload
from jaxseg.publish.card import CARD_FILE, FILES, Words, card_of
from jaxseg.publish.places import require_none, without_places
from jaxseg.publish.record import record_of
from jaxseg.run.load import Run, load_run, require_single
from jaxseg.run.published import (
    FITTED_FILES,
    HUB,
    RECORD_FILE,
    WEIGHTS_FILE,
    is_on_hub,
    is_published,
    read_record,
    sha256_of,
)
from jaxseg.run.workdir import CONFIG_FILE, INFO_FILE, holds_checkpoint, write_json

NO_WORDS = Words()
_LICENCES = "apache-2.0, mit, cc-by-4.0, cc-by-sa-4.0, cc-by-nc-4.0, cc0-1.0, openrail or other"
_FAMILIES = frozenset(("bsd", "cc", "gfdl", "gpl", "lgpl"))  # of several versions: valid, and no advice
_OTHERS = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m "
    "afl-3.0 artistic-2.0 bsl-1.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc0-1.0 cc-by-2.0 cc-by-2.5 "
    "cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 "
    "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 "
    "gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 "
    "ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 gemma unknown other"
)
_IDENTIFIERS = _FAMILIES.union(_OTHERS.split())
_NAME = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}", re.ASCII)


class Publication(NamedTuple):
    """What `publish_run` published, or would publish.

    Attributes:
        place: hf://OWNER/NAME, or the folder.
        files: name and bytes of each file.
        removed: files of a former publication that are no part of this one.
        done: whether they are there; False of a dry run.
    """

    place: str
    files: tuple[tuple[str, int], ...]
    removed: tuple[str, ...]
    done: bool


def publish_run(
    run: Run,
    target: str | Path,
    *,
    licence: str | None,
    words: Words = NO_WORDS,
    exports: Sequence[str] = (),
    private: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    api: Any = None,
) -> Publication:
    """Writes a trained network with its card to a folder, or to a repository of the Hugging Face Hub.

    The files hold the weights that evaluation uses, the configuration without the places of this machine, the classes,
    and what is recorded of the training. They are read back and compared before anything is published.

    Args:
        run: from `load_run`.
        target: hf://OWNER/NAME, or a folder.
        licence: identifier of the Hub for the licence of the weights, such as "apache-2.0".
        words: what a person says about data, use and limits.
        exports: of "stablehlo" and "onnx": programs of the network that are put beside.
        private: whether a new repository is private.
        replace: also where another network, or files of something else, are.
        dry_run: makes and checks the files, and publishes none.
        api: what stands for `huggingface_hub.HfApi()`; None: that.

    Raises:
        ConfigError: if the licence is missing, the target is no place for a network or holds another one, the network
            cannot be published, or the Hub refuses it.
    """
    require_single(run, "A published network")
    licence = check_licence(licence)
    check_exports(exports)
    name = check_target(target)
    if models.can_generate(run.model):
        raise ConfigError(f"{run.config.model.name} makes images from noise; a network that segments can be published.")
    own = dataclasses.replace(run, parts=dataclasses.replace(run.parts, config=without_places(run.config)))
    folder = None if is_on_hub(target) else expanded(target)
    with tempfile.TemporaryDirectory(prefix="jaxseg-publish-") as made:
        staged = Path(made)
        names = _make(staged, run, own, licence, words, exports, name)
        require_none(staged, run.workdir)
        files = tuple((file, (staged / file).stat().st_size) for file in names)
        identity = read_record(staged).content["identity"]
        if folder is None:
            found = upload.examine(name, identity, replace=replace, api=api)
            removed = tuple(file for file in found if file not in names)
            if not dry_run:
                upload.upload(staged, name, private=private, removed=removed, api=api)
        else:
            removed = tuple(file for file in _examine(folder, str(identity), replace) if file not in names)
            if not dry_run:
                _put(staged, folder, names, removed)
    return Publication(f"{HUB}{name}" if folder is None else str(folder), files, removed, not dry_run)


def check_licence(licence: str | None) -> str:
    """Returns the licence, or raises ConfigError if it is missing or no identifier."""
    if not licence:
        raise ConfigError(f"Give --licence, under which others may use the weights: {_LICENCES}.")
    if licence not in _IDENTIFIERS:
        near = nearest(licence.lower(), _IDENTIFIERS - _FAMILIES, listing=False)
        raise ConfigError(f"--licence takes an identifier of the Hub, such as {_LICENCES}; got {licence!r}.{near}")
    return licence


def check_exports(exports: Sequence[str]) -> None:
    """Raises ConfigError for an unknown format of an export."""
    for name in exports:
        if name not in FORMATS:
            raise ConfigError(f"--export takes {' and '.join(FORMATS)}, got {name!r}.{nearest(name, FORMATS)}")


def check_target(target: str | Path) -> str:
    """Returns OWNER/NAME of a repository, or the name of a folder; raises ConfigError for anything else."""
    if not is_on_hub(target):
        folder = expanded(target).absolute()
        if folder.is_file():
            raise ConfigError(f"{folder} is a file; give a folder, or hf://OWNER/NAME.")
        if holds_checkpoint(folder):
            raise ConfigError(f"{folder} is the workdir of a run; give a folder of its own for what is published.")
        return folder.name
    name = str(target).removeprefix(HUB)
    if _NAME.fullmatch(name) is None or ".." in name or "--" in name:
        raise ConfigError(f"{target} names no repository to publish to, which is hf://OWNER/NAME.")
    return name


def _make(
    staged: Path, run: Run, own: Run, licence: str, words: Words, exports: Sequence[str], name: str
) -> tuple[str, ...]:
    """Writes all files to a folder, and reads them back; returns their names."""
    variables = {path: np.asarray(x) for path, x in flatten(run.variables).items()}
    weights = safetensors_of(variables, {"format": "flax"})
    record = record_of(run, weights, licence)
    fitted = [file for file in FITTED_FILES if (run.workdir / file).is_file()]
    programs = [f"model{FORMATS[form]}" for form in dict.fromkeys(exports)]
    record["files"] = [CARD_FILE, WEIGHTS_FILE, CONFIG_FILE, INFO_FILE, RECORD_FILE, *fitted, *programs]
    write_atomically(staged / WEIGHTS_FILE, lambda file: file.write(weights))
    write_json(staged / CONFIG_FILE, to_dict(own.config))
    for file in (INFO_FILE, *fitted):
        shutil.copyfile(run.workdir / file, staged / file)
    card = card_of(own, record, name, words)
    record["card"] = sha256_of(card.encode())  # tells whether a person has edited it since
    write_json(staged / RECORD_FILE, record)
    write_text(staged / CARD_FILE, card)
    back = load_run(staged)
    _require_same(variables, back)
    for program in programs:
        export_run(back, staged / program)
    return tuple(record["files"])


def _require_same(variables: dict[str, np.ndarray], back: Run) -> None:
    read = {path: np.asarray(x) for path, x in flatten(back.variables).items()}
    same = read.keys() == variables.keys() and all(np.array_equal(x, read[path]) for path, x in variables.items())
    if not same:
        raise ConfigError("The network that was read back is another one; nothing is published.")


def _examine(folder: Path, identity: str, replace: bool) -> list[str]:
    """Returns the files that a former publication put into a folder.

    Raises:
        ConfigError: if it holds anything else, or a card that a person has edited, unless that may be replaced.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return []
    former = list[str]()
    if is_published(folder):
        content = read_record(folder).content
        former = [file for file in content["files"] if isinstance(file, str) and file in FILES]
        if "identity" in content and content["identity"] == identity:
            if not replace and (folder / CARD_FILE).is_file():
                upload.require_own_card(content, (folder / CARD_FILE).read_bytes(), str(folder / CARD_FILE))
            return [file for file in former if (folder / file).is_file()]
    if not replace:
        what = "another published network" if former else "files that are no published network"
        raise ConfigError(f"{folder} holds {what}; give another folder, or --replace.")
    return [file for file in former if (folder / file).is_file()]


def _put(staged: Path, folder: Path, names: Sequence[str], removed: Sequence[str]) -> None:
    """Moves the files to a folder, each whole; the record is the last, so that a part of them is no network."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD_FILE).unlink(missing_ok=True)
        for file in removed:
            (folder / file).unlink(missing_ok=True)
        for file in sorted(names, key=lambda name: name == RECORD_FILE):
            content = (staged / file).read_bytes()
            write_atomically(folder / file, lambda out, content=content: out.write(content))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}.") from error
