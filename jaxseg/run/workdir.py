"""The directory of a run: its configuration and what its data are."""

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxseg import config as config_lib
from jaxseg.config import ConfigDict
from jaxseg.errors import ConfigError
from jaxseg.files import write_text

CONFIG_FILE = "config.json"
INFO_FILE = "data.json"
CHECKPOINTS = "checkpoints"


class RunData(NamedTuple):
    """What a run knows of its data without opening them.

    Attributes:
        classes: the name of each class.
        colors: the (r, g, b) of each class.
        num_classes: logits of the network; 1 for a binary one, which has two classes.
        class_weights: the weights that the loss gives the classes, or None.
    """

    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    num_classes: int
    class_weights: tuple[float, ...] | None


def default_workdir(experiment: str) -> Path:
    """Returns runs/NAME or runs/NAME-VARIANT for the experiment `PATH/NAME.py[:VARIANT]`."""
    path, _, variant = experiment.partition(":")
    return Path("runs") / "-".join(filter(None, (Path(path).stem, variant)))


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def prepare_workdir(path: str | Path, config: ConfigDict) -> Path:
    """Makes the directory of a run and writes its configuration there; returns its absolute path.

    A run that is there already goes on where the configuration is the same, apart from keys that change no numbers
    (`config.FREE_KEYS`), which are then stored anew. One that ended before its first checkpoint binds nobody: its
    configuration is replaced.

    Raises:
        ConfigError: if the directory cannot be made or written, or holds a run whose configuration differs (the
            message lists the keys), or a config.json that cannot be read.
    """
    path = Path(path).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"The run cannot be kept in {path}: {error.strerror or error}; give a directory that can be written "
            "with --workdir."
        ) from error
    file = path / CONFIG_FILE
    if file.exists():
        differing = config_lib.differences(read_config(path), config)  # may be somebody else's file: refused, not lost
        if differing and holds_checkpoint(path):
            raise ConfigError(
                f"{path} holds a run with another configuration; give the same one to resume it, or another --workdir. "
                f"The keys that differ: {'; '.join(differing)}."
            )
    elif holds_checkpoint(path):
        raise ConfigError(f"{path} holds checkpoints but no {CONFIG_FILE} that says of what; give another --workdir.")
    if jax.process_index() == 0:
        write_or_refuse(file, config_lib.to_dict(config))
    return path


def read_config(path: str | Path) -> ConfigDict:
    """Returns the configuration of the run in the directory `path`.

    Raises:
        ConfigError: if there is none, it is no JSON, or another version wrote it.
    """
    file = Path(path) / CONFIG_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} holds no run: there is no {CONFIG_FILE} in it.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); give another --workdir.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is not a configuration: it holds {type(values).__name__}, not named values.")
    return config_lib.from_dict(values)


def holds_checkpoint(path: str | Path) -> bool:
    """Returns whether a checkpoint, be it whole, damaged or half written, is in the run in the directory `path`."""
    directory = Path(path).expanduser() / CHECKPOINTS
    return directory.is_dir() and any(directory.iterdir())


def data_record(
    path: str | Path,
    *,
    classes: Sequence[str],
    colors: Iterable[Sequence[int]],
    num_classes: int,
    weigh: Callable[[], Iterable[float] | None],
) -> RunData:
    """Writes what the data of a run are to `data.json`; returns it.

    A run that is resumed must have the classes that it began with, and keeps their weights. Under several processes
    each of them calls this, and the first writes.

    Args:
        path: the directory of the run.
        classes: the class names of today's data.
        colors: the (r, g, b) of each class.
        num_classes: logits of the network.
        weigh: returns the weights of the classes, or None; called only where the run has no checkpoint yet, since
            it may have to read every mask.

    Raises:
        ConfigError: if the run has checkpoints of a network for other classes, or the file cannot be read or written.
    """
    file = Path(path) / INFO_FILE
    began = read_data(path) if holds_checkpoint(path) and file.exists() else None
    if began is not None and (began.classes, began.num_classes) != (tuple(classes), num_classes):
        then, now = _show_classes(began.classes, began.num_classes), _show_classes(classes, num_classes)
        raise ConfigError(
            f"The run in {path} was trained on {then}, but the data now have {now}; give the data it began with to "
            "resume it, or another --workdir."
        )
    weights = weigh() if began is None else began.class_weights
    about = RunData(
        tuple(map(str, classes)),
        tuple((int(r), int(g), int(b)) for r, g, b in colors),
        int(num_classes),
        None if weights is None else tuple(map(float, weights)),
    )
    if jax.process_index() == 0:
        write_or_refuse(file, about._asdict())
    return about


def read_data(path: str | Path) -> RunData:
    """Returns what `data.json` of the run in the directory `path` says.

    Raises:
        ConfigError: if there is none, or it is not what `data_record` wrote.
    """
    file = Path(path) / INFO_FILE
    if not file.is_file():
        raise ConfigError(f"The run in {str(path)!r} has no {INFO_FILE}: it was stopped before its first step.")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        colors = tuple((int(r), int(g), int(b)) for r, g, b in values["colors"])
        weights = values["class_weights"]
        weights = None if weights is None else tuple(map(float, weights))
        return RunData(tuple(values["classes"]), colors, int(values["num_classes"]), weights)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} is not what training wrote: {error!r}.") from error


def _show_classes(classes: Sequence[str], num_classes: int) -> str:
    return f"{len(classes)} classes ({', '.join(classes)}; {num_classes} {'logit' if num_classes == 1 else 'logits'})"


def write_or_refuse(file: Path, value: Any) -> None:
    try:
        write_json(file, value)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}.") from error
