"""Records every start of a run in `run.json`, with everything that may have an effect on its numbers."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import shlex
import sys
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from jaxseg import config as config_lib
from jaxseg.build import step_options
from jaxseg.compiler import attention_for, compiler_options, cpu_features, cpu_name, forms_for
from jaxseg.config import ConfigDict
from jaxseg.errors import first_line
from jaxseg.files import read_json
from jaxseg.nn.ops.fused_attention import SWITCH
from jaxseg.run.revision import git_diff, git_state
from jaxseg.run.workdir import write_or_refuse

RECORD_FILE = "run.json"
_PACKAGES = (
    *("jaxseg", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy"),
    *("ml_dtypes", "scipy", "pillow", "opencv-python-headless", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu"),
)
# Environment variables that may have an effect on the numbers of a run.
_NUMERIC = re.compile(
    r"XLA_\w*FLAGS|JAX_(?!COMPILATION|PERSISTENT|PLATFORMS)\w+|NVIDIA_TF32_OVERRIDE|(OMP|MKL|OPENBLAS)_NUM_THREADS|"
    r"LIBTPU_INIT_ARGS|CUBLAS_WORKSPACE_CONFIG|CUDA_VISIBLE_DEVICES|NCCL_(ALGO|PROTO)|TF_\w*DETERMINISTIC\w*|" + SWITCH
)


def run_record(
    path: str | Path,
    config: ConfigDict,
    *,
    step: int = 0,
    weights: Iterable[Mapping[str, Any]] = (),
    command: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Adds this start to `run.json`: command line, configuration, commit and changes to it, versions and the build of
    XLA, device, compiler options, environment and data.

    Args:
        path: the directory of the run.
        config: its configuration.
        step: the number of steps made before this start.
        weights: the weights that a new run starts from: source, file, digest.
        command: what started the run; None: the shell command of this process.
        data: {split: `data.fingerprint.fingerprint` of it}.

    Raises:
        ConfigError: if the file cannot be written.
    """
    if jax.process_index() == 0:
        command = command_line() if command is None else command
        about = {"weights": [dict(origin) for origin in weights], "data": {} if data is None else dict(data)}
        start = {**describe_start(config, step, command), **about}
        _write_starts(path, [*read_starts(path), start])


def end_record(path: str | Path, *, step: int, seconds: float, mean_iou: float, early: str = "") -> None:
    """Adds the end of the run to the newest start in `run.json`.

    Args:
        path: the directory of the run.
        step: the last step of the run.
        seconds: wall time since the start, including compilation.
        mean_iou: of the last evaluation, in [0, 1]; NaN is written as null.
        early: why the run ended before its last step; empty: it did not.

    Raises:
        ConfigError: if the file cannot be written.
    """
    starts = read_starts(path)
    if jax.process_index() != 0 or not starts:
        return
    quality = mean_iou if math.isfinite(mean_iou) else None
    starts[-1]["end"] = {"time": _now(), "step": step, "seconds": round(seconds, 1), "mean_iou": quality}
    if early:
        starts[-1]["end"]["early"] = early
    _write_starts(path, starts)


def early_end(path: str | Path) -> int | None:
    """Returns the step at which `stop.patience` ended the run in the directory `path`; None if it did not."""
    for start in reversed(read_starts(path)):
        if "end" in start:
            return int(start["end"]["step"]) if "early" in start["end"] else None
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_starts(path: str | Path) -> list[dict[str, Any]]:
    """Returns the starts in `run.json` of the run in the directory `path`, oldest first; [] if there is no file."""
    file = Path(path) / RECORD_FILE
    if not file.exists():
        return []
    try:
        starts = read_json(file)["starts"]
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise ValueError("'starts' is no list of objects")
        return starts
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{file} cannot be read ({first_line(error)[:200]}); its record starts again.", stacklevel=3)
        return []


def _write_starts(path: str | Path, starts: list[dict[str, Any]]) -> None:
    write_or_refuse(Path(path) / RECORD_FILE, {"starts": starts})


def describe_start(config: ConfigDict, step: int, command: str) -> dict[str, Any]:
    """Returns what a start of a run records, but for its weights and its data."""
    device = jax.devices()[0]
    by_jit = config.strategy == "jit"
    options = compiler_options(step_options(config)) if by_jit else {}
    return {
        "time": _now(),
        "step": step,
        "command": command,
        "git": git_state(),
        "diff": git_diff(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
            "cpus": os.cpu_count(),
            "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "cpu": cpu_name(),
            "cpu_features": cpu_features(),
        },
        # Of the training step. The forms of its convolutions sum in different orders.
        "compiler_options": options,
        "convolutions": forms_for(options) if by_jit else "usual",
        "attention": attention_for(options, config.dtype, rows=config.mesh.space > 1),
        "python": platform.python_version(),
        "packages": package_versions(),
        "xla": {"platform": device.client.platform_version, "jaxlib": jaxlib_build()},
        "environment": {name: os.environ[name] for name in sorted(os.environ) if _NUMERIC.fullmatch(name)},
        "config": config_lib.to_dict(config),
    }


def command_line() -> str:
    """Returns the shell command that started this process.

    It is "" if the process runs neither a file nor a module, or a session of IPython or Jupyter, whose command says
    nothing about the run.
    """
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        return ""
    # The console script `jaxseg` is a file of the Python environment, which another machine has elsewhere.
    program, *arguments = sys.argv or [""]
    spec = sys.modules["__main__"].__spec__
    if Path(program).name in ("jaxseg", "jaxseg.exe"):
        words = ["-m", "jaxseg"]
    elif spec is not None and spec.origin == program:
        words = ["-m", spec.name.removesuffix(".__main__")]
    elif Path(program).is_file():
        words = [program]
    elif importlib.util.find_spec(program.partition(".")[0] or "-"):  # `jaxseg.sweep.worker` sets argv[0] to its sweep
        words = ["-m", program]
    else:
        return ""
    return shlex.join(["python", *words, *arguments])


def jaxlib_build() -> str | None:
    """Returns a digest of the compiled libraries of jaxlib, whose wheels of one version may differ; None if unknown."""
    try:
        record = importlib.metadata.distribution("jaxlib").read_text("RECORD")
    except importlib.metadata.PackageNotFoundError:
        return None
    libraries = sorted(line for line in (record or "").splitlines() if re.search(r"\.(so|pyd|dylib)\b", line))
    return hashlib.sha256("\n".join(libraries).encode()).hexdigest()[:16] if libraries else None


def package_versions() -> dict[str, str | None]:
    """Returns the version of each package that the numbers of a run may depend on; None if it is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(_PACKAGES)
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
