"""What XLA is told: its options on each backend, and where compiled programs are kept from one run to the next."""

import contextlib
import functools
import hashlib
import logging
import platform
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxseg.errors import ConfigError

# What differs from XLA's own defaults because it measured faster, by backend. `compile.options` changes it for a run.
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        # XLA hands convolutions to a library fusion that is slower than its own code; this keeps the library for dot
        # products and reductions only.
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    },
    "gpu": {},
    "tpu": {},
}

# Without it XLA takes the barriers of `jax.checkpoint` away on CPUs and then finds what is computed twice; measured, a
# step with rematerialised stages needs as much memory there as one without.
_REMAT: dict[str, dict[str, Any]] = {"cpu": {"xla_disable_hlo_passes": "cse_barrier_expander"}}
# Quicker to compile, and the same bits: for a program that runs once, such as the initialisation.
_ONCE: dict[str, dict[str, Any]] = {"cpu": {"xla_backend_optimization_level": 1}}

NO_CACHE = "off"
_CACHE_FOLDER = "jax_compilation_cache_dir"
# The least recently used programs go when there are more bytes; a training step takes a few million.
_CACHE_BYTES = 4 * 2**30
_CACHE_SECONDS = 0.1  # what compiles faster is not kept

_logger = logging.getLogger("jaxseg")


def compiler_options(changes: Mapping[str, Any] | None = None, *, remat: bool = False) -> dict[str, Any]:
    """Returns the options for `jax.jit(..., compiler_options=)`: `OPTIONS` of this backend, changed by `changes`.

    Those of `OPTIONS` that this version of XLA does not know are left out.

    Args:
        changes: {name of an XLA option: value}; None as the value leaves an option to XLA's own default.
        remat: whether they are for a step with rematerialised stages, see `step.make_train_step`.

    Raises:
        ConfigError: if XLA does not know an option of `changes`, or not with this value.
    """
    changes, usual = dict(changes or {}), _known_options() | (_remat_options() if remat else {})
    options = {name: value for name, value in (usual | changes).items() if value is not None}
    try:
        if changes:
            _try(options)
    except Exception as error:  # there is no narrower class that all versions raise
        first = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(f"compile.options={changes}: XLA on {jax.default_backend()} says: {first}.") from error
    return options


@functools.cache
def _remat_options() -> dict[str, Any]:
    return _known(_REMAT)


def options_for_once() -> dict[str, Any]:
    """Returns the options for a program that runs once, and whose compilation is most of its time."""
    return _known(_ONCE)


@functools.cache
def _known_options() -> dict[str, Any]:
    return _known(OPTIONS)


def _known(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns those for this backend that this version of XLA knows."""
    known = {}
    backend = jax.default_backend()
    for name, value in options[backend].items() if backend in options else ():
        with contextlib.suppress(Exception):  # unknown to this version, see above
            _try({name: value})
            known[name] = value
    return known


def _try(options: Mapping[str, Any]) -> None:
    """Compiles next to nothing, which fails where an option does."""
    if options:
        jax.jit(lambda x: x + 1, compiler_options=dict(options)).lower(0.0).compile()


def keep_programs(folder: str = "") -> Path | None:
    """Has every program that this process compiles from now on kept on disk, for the next that needs the same.

    A setting of the user's own (JAX_COMPILATION_CACHE_DIR) is left as it is. Call it once the devices are known, after
    `parallel.join_hosts`.

    Args:
        folder: where; "" is ~/.cache/jaxseg/xla, "off" keeps nothing.

    Returns:
        The folder that is used, a part of `folder` for this backend (and kind of processor, for the CPU's programs may
        use instructions that another has not); None where nothing is kept.
    """
    chosen = getattr(jax.config, _CACHE_FOLDER)
    if chosen is not None:
        return Path(chosen)
    if folder == NO_CACHE:
        return None
    path = Path(folder or "~/.cache/jaxseg/xla").expanduser().absolute() / _machine()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        _logger.warning("compiled programs are not kept: %s: %s.", path, error.strerror or error)
        return None
    jax.config.update(_CACHE_FOLDER, str(path))
    jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _CACHE_SECONDS)
    return path


def _machine() -> str:
    """Returns "gpu", "tpu" or "cpu-" and a digest of what the processor can do."""
    backend = jax.default_backend()
    if backend != "cpu":
        return backend
    abilities = f"{platform.machine()} {cpu_name()} {_cpu_info('flags') or _cpu_info('Features')}"
    return f"cpu-{hashlib.sha256(abilities.encode()).hexdigest()[:12]}"


def cpu_name() -> str:
    """Returns what the processor is called: its instructions decide how sums are rounded."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_info(field: str) -> str:
    """Returns what Linux says of the first processor; "" where it says nothing."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}\s*: (.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        return found[1].strip() if found else ""
    return ""
