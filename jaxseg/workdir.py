"""The directory of a run: its configuration, and a record of every start with what it ran on."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

import jaxseg
from jaxseg import config as config_lib
from jaxseg.config import ConfigDict, ConfigError
from jaxseg.files import write_text

CONFIG_FILE = "config.json"
RECORD_FILE = "run.json"
CHECKPOINTS = "checkpoints"
_PACKAGES = ("jaxseg", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def prepare_workdir(path: str | Path, config: ConfigDict) -> Path:
    """Makes the directory of a run and writes its configuration there; returns its absolute path.

    A run that is there already goes on where the configuration is the same, apart from keys that change no numbers
    (`config.FREE_KEYS`), which are then stored anew.

    Raises:
        ConfigError: if the directory cannot be made or written, or holds a run whose configuration differs (the
            message lists the keys) or cannot be read.
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
        differing = config_lib.differences(read_config(path), config)
        if differing:
            raise ConfigError(
                f"{path} holds a run with another configuration; give the same one to resume it, or another --workdir. "
                f"The keys that differ: {'; '.join(differing)}."
            )
    elif (path / CHECKPOINTS).is_dir() and any((path / CHECKPOINTS).iterdir()):
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


def run_record(path: str | Path, config: ConfigDict, *, step: int = 0) -> None:
    """Adds this start to `run.json`: configuration, package versions, device, git commit and command line.

    Args:
        path: the directory of the run.
        config: its configuration.
        step: the step that this start goes on from.

    Raises:
        ConfigError: if the file cannot be written.
    """
    if jax.process_index() != 0:
        return
    file = Path(path) / RECORD_FILE
    starts = []
    if file.exists():
        try:
            starts = json.loads(file.read_text(encoding="utf-8"))["starts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{file} cannot be read ({error}) and is begun anew.", stacklevel=2)
    _write_or_refuse(file, {"starts": [*starts, _describe_start(config, step)]})


def _write_or_refuse(file: Path, value: Any) -> None:
    try:
        write_json(file, value)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}.") from error


def _describe_start(config: ConfigDict, step: int) -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "git": _git_state(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
            "cpus": os.cpu_count(),
        },
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "config": config_lib.to_dict(config),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Returns commit and whether tracked files differ from it; None where jaxseg runs from no repository of its own."""
    package = Path(jaxseg.__file__).parent
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return {"commit": _git(package, "rev-parse", "HEAD"), "changed": bool(_git(package, "status", "-s", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], check=True, capture_output=True, timeout=10)
    return done.stdout.decode(errors="replace").strip()
