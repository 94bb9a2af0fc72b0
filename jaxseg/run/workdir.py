"""The directory of a run (workdir): its configuration and the record of its data."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxseg import config as config_lib
from jaxseg import models
from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict
from jaxseg.data.hierarchy import Hierarchy
from jaxseg.errors import ConfigError, counted, first_line
from jaxseg.files import read_json, read_lines, write_text
from jaxseg.pages.frame import require_own_page
from jaxseg.pictures import marks
from jaxseg.types import IGNORE_16

CONFIG_FILE = "config.json"
INFO_FILE = "data.json"
FILES_FILE = "files.txt"
DIGESTS_FILE = "digests.txt"
LABELLED_FILE = "labelled.txt"
PROPOSALS_FILE = "proposals.txt"
TEACHER_FILE = "teacher.json"
TRACKERS_FILE = "trackers.json"
CHECKPOINTS = "checkpoints"
_LABELLED = "labelled_sha256"  # the name in INFO_FILE of the digest of LABELLED_FILE
_DIGEST = re.compile(r"[0-9a-f]{8,16} .")
_LINES = {FILES_FILE: re.compile(r"\d+ ."), DIGESTS_FILE: _DIGEST, PROPOSALS_FILE: _DIGEST}  # how each line begins
_TEXTS = (INFO_FILE, "run.json", "log.jsonl")  # that training writes beside CONFIG_FILE


class RunData(NamedTuple):
    """The record of a run's data, for uses that do not open the data.

    Attributes:
        classes: the name of each class.
        colors: the (r, g, b) of each class.
        num_classes: channels of the logits; 1 for a binary problem, which has two classes.
        class_weights: the weights of the classes in the loss, or None.
        values: the value of each class in the stored masks; () in the record of an earlier version, which lacks them.
        color_masks: whether the stored masks hold `colors` in place of values.
        class_prior: the share of each class in the training data, for `loss.logit_adjustment`, or None.
        hierarchy: the groups of the classes, of `loss.hierarchy`.
    """

    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    num_classes: int
    class_weights: tuple[float, ...] | None
    values: tuple[int, ...] = ()
    color_masks: bool = False
    class_prior: tuple[float, ...] | None = None
    hierarchy: Hierarchy = Hierarchy()


def default_workdir(experiment: str) -> Path:
    """Returns runs/NAME or runs/NAME-VARIANT for the experiment `PATH/NAME.py[:VARIANT]`."""
    path, _, variant = experiment.partition(":")
    return Path("runs") / "-".join(filter(None, (Path(path).stem, variant)))


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` atomically as indented JSON; raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def prepare_workdir(path: str | Path, config: ConfigDict) -> Path:
    """Makes the directory of a run and writes its configuration there; returns its absolute path.

    Raises:
        ConfigError: as `make_workdir` and `write_config` do.
    """
    path = make_workdir(path)
    write_config(path, config)
    return path


def make_workdir(path: str | Path) -> Path:
    """Makes the directory of a run; returns its absolute path.

    Raises:
        ConfigError: if it cannot be made or written.
    """
    path = expanded(path).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"The workdir {path} cannot be written: {error.strerror or error}; give a writable directory with "
            "--workdir."
        ) from error
    return path


def write_config(path: Path, config: ConfigDict) -> None:
    """Writes the configuration of a run into its directory.

    If the directory holds a run with checkpoints, the configuration must be the same, except for keys that have no
    effect on numbers (`config.FREE_KEYS`), whose new values are written. Without a checkpoint it is replaced.

    Raises:
        ConfigError: if it cannot be written, the directory holds a run with another configuration (the message lists
            the keys), a config.json that cannot be read, or a file that training would replace and did not write.
    """
    file = path / CONFIG_FILE
    _require_own_files(path, config)
    if file.exists():
        from jaxseg.data import folders  # imports Pillow, which some commands leave out

        before = read_config(path)  # an error for a file of another program, so that it is not overwritten
        differing = config_lib.differences(before, config, divided=folders.is_divided(config))
        if differing and holds_checkpoint(path):
            raise ConfigError(
                f"{path} holds a run with another configuration; give the same one to resume it, or another --workdir. "
                f"The keys that differ: {'; '.join(differing)}.{_why_the_same_batch(differing)}"
            )
    elif holds_checkpoint(path):
        raise ConfigError(f"{path} holds checkpoints but no {CONFIG_FILE} of their run; give another --workdir.")
    if jax.process_index() == 0:
        write_or_refuse(file, config_lib.to_dict(config))


def _why_the_same_batch(differing: Iterable[str]) -> str:
    """Returns why a run keeps its batch size, if that is among the keys that differ."""
    if not any(key.startswith("batch_size:") for key in differing):
        return ""
    return (
        " The images of every step and the learning rates follow from batch_size, which counts over all devices and "
        "hosts: it stays the same on any number of them."
    )


def _require_own_files(path: Path, config: ConfigDict) -> None:
    """Raises ConfigError if a file of the name of an output of this run is of someone else.

    Texts are those of a run where its configuration, written first, is beside them; lists that earlier versions did not
    write must have their form too. Pictures have a mark, except samples.png of earlier versions, after a checkpoint.
    """
    instead = "give another --workdir, or move it out of this one"
    gradients = config.log.gradients
    written = (*_TEXTS, *(["gradients.jsonl"] if gradients else []))
    written += (FILES_FILE, DIGESTS_FILE) if config.data.source == "folder" else ()
    written += (LABELLED_FILE,) if config.data.labelled != "" else ()
    written += (PROPOSALS_FILE,) if config.data.proposals else ()
    written += (TEACHER_FILE,) if config.distill.teacher else ()
    written += (TRACKERS_FILE,) if config.log.trackers else ()
    texts = [path / name for name in written if (path / name).exists()]
    if texts and not (path / CONFIG_FILE).exists():  # asked in this order, for another process may begin the run now
        raise marks.refusal(texts[0], instead)
    for file in texts:  # a run of an earlier version did not write these
        if file.name in _LINES and not _holds_lines(file, _LINES[file.name]):
            raise marks.refusal(file, "move it out of the workdir")
    pictures = {
        "curves.png": True,
        "predictions.png": config.log.images > 0,
        "samples.png": config.model.name in models.GENERATORS and not holds_checkpoint(path),
        "gradients.png": gradients,
    }
    if config.log.report:
        require_own_page(path / "report.html", "jaxseg report", instead)
    for name in (name for name, drawn in pictures.items() if drawn):
        marks.require_own_figure(path / name, instead)


def _holds_lines(file: Path, form: re.Pattern[str]) -> bool:
    """Returns whether the file has lines, and each is of the form."""
    try:
        lines = read_lines(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}.") from error
    return bool(lines) and all(map(form.match, lines))


def read_config(path: str | Path) -> ConfigDict:
    """Returns the configuration of the run in the directory `path`.

    Raises:
        ConfigError: if there is none, it is not JSON, or another version of jaxseg wrote it.
    """
    file = Path(path) / CONFIG_FILE
    try:
        values = read_json(file)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} holds no run: there is no {CONFIG_FILE} in it.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); give another --workdir.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is not a configuration: it holds {type(values).__name__}, not named values.")
    try:
        return config_lib.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def holds_checkpoint(path: str | Path) -> bool:
    """Returns whether the run in the directory `path` has a checkpoint, even a damaged or incomplete one."""
    directory = expanded(path) / CHECKPOINTS
    return directory.is_dir() and any(directory.iterdir())


def data_record(
    path: str | Path,
    *,
    classes: Sequence[str],
    colors: Iterable[Sequence[int]],
    num_classes: int,
    values: Sequence[int] = (),
    color_masks: bool = False,
    weigh: Callable[[], Iterable[float] | None],
    prior: Callable[[], Iterable[float] | None] = lambda: None,
    hierarchy: Callable[[], Hierarchy] = Hierarchy,
    labels: bool = False,
) -> RunData:
    """Writes the record of a run's data to `data.json`; returns it.

    A resumed run must have the same classes as before, and keeps its class weights, prior and hierarchy. With several
    processes, every process calls this function, and process 0 writes.

    Args:
        path: the directory of the run.
        classes: the class names of the data.
        colors: the (r, g, b) of each class.
        num_classes: channels of the logits.
        values: the value of each class in the stored masks; empty: 0, 1, 2, ...
        color_masks: whether the stored masks hold `colors` in place of values.
        weigh: returns the class weights, or None; called only if the run has no checkpoint, since it may read every
            mask.
        prior: as `weigh`, returns the share of each class or None.
        hierarchy: as `weigh`, returns the groups of the classes.
        labels: whether the run has just written `labelled.txt`, whose digest is recorded.

    Raises:
        ConfigError: if the run has checkpoints of a network for other classes, or the file cannot be read or written.
    """
    file = Path(path) / INFO_FILE
    before = read_data(path) if holds_checkpoint(path) and file.exists() else None
    if before is not None and (before.classes, before.num_classes) != (tuple(classes), num_classes):
        then = _show_classes(before.classes, before.num_classes)
        now = _show_classes(classes, num_classes)
        raise ConfigError(
            f"The run in {path} was trained on {then}, but the data now have {now}; give the same data to resume it, "
            "or another --workdir."
        )
    weights = weigh() if before is None else before.class_weights
    shares = prior() if before is None else before.class_prior
    groups = hierarchy() if before is None else before.hierarchy
    about = RunData(
        tuple(map(str, classes)),
        tuple((int(r), int(g), int(b)) for r, g, b in colors),
        int(num_classes),
        None if weights is None else tuple(map(float, weights)),
        tuple(map(int, values or range(len(classes)))),
        color_masks,
        None if shares is None else tuple(map(float, shares)),
        groups,
    )
    if jax.process_index() == 0:
        labelled = Path(path) / LABELLED_FILE
        own = {_LABELLED: digest_of(labelled)} if labelled.is_file() and labels else {}
        write_or_refuse(file, {**about._asdict(), "hierarchy": groups._asdict(), **own})
    return about


def digest_of(file: Path) -> str:
    """Returns the SHA-256 of a file; "" where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def require_own_labelled(path: Path) -> None:
    """Raises ConfigError unless `labelled.txt` is as `data.json` says that a run has written it.

    Any list of names has its form, so that the form does not tell whose it is.
    """
    file = path / LABELLED_FILE
    try:
        content = read_json(path / INFO_FILE)
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or _LABELLED not in content or content[_LABELLED] != digest_of(file):
        raise marks.refusal(file, "move it out of the workdir")


def read_data(path: str | Path) -> RunData:
    """Returns the record in `data.json` of the run in the directory `path`.

    Raises:
        ConfigError: if there is none, or its content is not that of `data_record`.
    """
    from jaxseg.data.masks import check_color  # imports Pillow, which a network alone does not need

    file = Path(path) / INFO_FILE
    if not file.is_file():
        raise ConfigError(f"The run in {str(path)!r} has no {INFO_FILE}: it was stopped before its first step.")
    try:
        values = read_json(file)
        colors = tuple(check_color(color, "colors") for color in values["colors"])
        classes = tuple(values["classes"])
        if not all(isinstance(name, str) for name in classes) or len(colors) < len(classes):
            raise ValueError("it does not have a name and a colour for each class")
        weights = None if values["class_weights"] is None else tuple(map(float, values["class_weights"]))
        stored = tuple(map(int, values["values"])) if "values" in values else ()
        color_masks = "color_masks" in values and bool(values["color_masks"])
        prior = values["class_prior"] if "class_prior" in values else None
        prior = None if prior is None else tuple(map(float, prior))
        k = int(values["num_classes"])
        fitting = not stored or (len(stored) == len(classes) and all(0 <= value < 2**16 for value in stored))
        if not (1 <= k <= IGNORE_16 and fitting):
            raise ValueError("its classes have no places in the logits, or no values in the masks")
        stored_groups = values["hierarchy"] if "hierarchy" in values else Hierarchy()._asdict()
        groups = Hierarchy(*(tuple(map(tuple, stored_groups[key])) for key in Hierarchy._fields))
        return RunData(classes, colors, k, weights, stored, color_masks, prior, groups)
    except Exception as error:  # another program, or a stranger, may have written anything
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)[:200]
        raise ConfigError(f"{file} is not a record that training wrote: {lacking}.") from error


def _show_classes(classes: Sequence[str], num_classes: int) -> str:
    return f"{counted(len(classes), 'class')} ({', '.join(classes)}; {counted(num_classes, 'logit')})"


def require_own_json(file: Path, keys: Collection[str]) -> None:
    """Raises ConfigError if there is a file of the name of one of ours that is no JSON object with these keys."""
    if not file.is_file():
        return
    try:
        content = read_json(file)
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or not set(keys) <= content.keys():
        raise marks.refusal(file, "move it out of the workdir")


def write_or_refuse(file: Path, value: Any) -> None:
    """Writes `value` as `write_json` does; raises ConfigError if the file cannot be written."""
    try:
        write_json(file, value)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}.") from error
