"""The directory of a run: its configuration, what its data are, and a record of every start with what it ran on."""

import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxseg import config as config_lib
from jaxseg.compiler import compiler_options, cpu_name
from jaxseg.config import ConfigDict, ConfigError
from jaxseg.files import write_text
from jaxseg.revision import git_state

CONFIG_FILE = "config.json"
INFO_FILE = "data.json"
RECORD_FILE = "run.json"
CHECKPOINTS = "checkpoints"
_PACKAGES = ("jaxseg", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
# Variables of the environment that may change the numbers of a run.
_NUMERIC = re.compile(r"XLA_\w*FLAGS|JAX_(?!COMPILATION|PERSISTENT|PLATFORMS)\w+|NVIDIA_TF32_OVERRIDE|OMP_NUM_THREADS")


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
        _write_or_refuse(file, config_lib.to_dict(config))
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
        _write_or_refuse(file, about._asdict())
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


def run_record(
    path: str | Path, config: ConfigDict, *, step: int = 0, weights: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Adds this start to `run.json`: the command line, and all that may change the numbers: configuration to commit.

    Args:
        path: the directory of the run.
        config: its configuration.
        step: the step that this start goes on from.
        weights: what a fresh run started from: source, file, digest.

    Raises:
        ConfigError: if the file cannot be written.
    """
    if jax.process_index() == 0:
        start = {**_describe_start(config, step), "weights": [dict(origin) for origin in weights]}
        _write_starts(path, [*read_starts(path), start])


def end_record(path: str | Path, *, step: int, seconds: float, mean_iou: float) -> None:
    """Adds to the newest start in `run.json` how it ended.

    Args:
        path: the directory of the run.
        step: the last step of the run.
        seconds: wall time since the start, compilation included.
        mean_iou: of the last evaluation, in [0, 1]; NaN is written as null.

    Raises:
        ConfigError: if the file cannot be written.
    """
    starts = read_starts(path)
    if jax.process_index() != 0 or not starts:
        return
    quality = mean_iou if math.isfinite(mean_iou) else None
    starts[-1]["end"] = {"time": _now(), "step": step, "seconds": round(seconds, 1), "mean_iou": quality}
    _write_starts(path, starts)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_starts(path: str | Path) -> list[dict[str, Any]]:
    """Returns the starts in `run.json` of the run in the directory `path`, oldest first; none where it has none."""
    file = Path(path) / RECORD_FILE
    if not file.exists():
        return []
    try:
        return json.loads(file.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{file} cannot be read ({error}) and is begun anew.", stacklevel=3)
        return []


def _write_starts(path: str | Path, starts: list[dict[str, Any]]) -> None:
    _write_or_refuse(Path(path) / RECORD_FILE, {"starts": starts})


def _write_or_refuse(file: Path, value: Any) -> None:
    try:
        write_json(file, value)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}.") from error


def _describe_start(config: ConfigDict, step: int) -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "time": _now(),
        "step": step,
        "command": _command_line(),
        "git": git_state(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
            "cpus": os.cpu_count(),
            "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "cpu": cpu_name(),
        },
        # Those that the training step is compiled with.
        "compiler_options": compiler_options(config.compile.options, remat=config.remat)
        if config.strategy == "jit"
        else {},
        "python": platform.python_version(),
        "packages": package_versions(),
        "environment": {name: os.environ[name] for name in sorted(os.environ) if _NUMERIC.fullmatch(name)},
        "config": config_lib.to_dict(config),
    }


def _command_line() -> str:
    """Returns what this process was started with, as one would type it; "" where that was no file or module."""
    program, *arguments = sys.argv or [""]
    spec = sys.modules["__main__"].__spec__
    if spec is not None and spec.origin == program:
        words = ["-m", spec.name.removesuffix(".__main__")]
    elif Path(program).is_file():
        words = [program]
    elif importlib.util.find_spec(program.partition(".")[0] or "-"):  # `jaxseg.sweep.worker` puts its sweep's name here
        words = ["-m", program]
    else:
        return ""
    return shlex.join(["python", *words, *arguments])


def package_versions() -> dict[str, str | None]:
    """Returns the installed version of each package that the numbers of a run may depend on; None where it is not."""
    versions: dict[str, str | None] = dict.fromkeys(_PACKAGES)
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
