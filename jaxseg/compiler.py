"""Settings of the XLA compiler: its options on each backend, and the folder that keeps compiled programs.

`jit` compiles a function with options, and lets `nn.ops` know while it is traced which forms of convolutions suit them.
"""

import contextlib
import functools
import hashlib
import logging
import os
import platform
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, use_abstract_mesh

from jaxseg.arguments import expanded
from jaxseg.errors import ConfigError, first_line
from jaxseg.nn.ops.by_device import SPACE_AXIS
from jaxseg.nn.ops.forms import Forms, traced_for
from jaxseg.nn.ops.fused_attention import general_refusal

# Compiles convolutions on CPUs into calls of oneDNN. jaxlib 0.10 takes the option without having the library. A program
# with such calls cannot be stored: jaxlib 0.12 fails to serialise it, so that every process compiles it again. For that
# reason it is not among `OPTIONS`; a long run may set it in `compile.options`.
ONEDNN = "xla_cpu_experimental_onednn_custom_call"

# By default XLA compiles convolutions into calls of a library that is slower than XLA's own code. This value uses the
# library for dot products and reductions only.
_YNN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}

# By default XLA on CPUs (jaxlib 0.10) removes optimisation barriers before it fuses operations. It then merges the two
# computations of a rematerialised stage, and repeats operations that a barrier is to keep in one place.
_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}

# Options by backend that differ from XLA's defaults because they measured faster; `compile.options` changes them.
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {**_YNN, **_BARRIERS},
    "gpu": {},
    "tpu": {},
}

# Shorter compilation with the same bits, for a program that runs once, such as the initialisation.
_ONCE: dict[str, dict[str, Any]] = {"cpu": {"xla_backend_optimization_level": 1}}

# The same bits in every run of a program (`compile.deterministic`). Other backends have no operation without that.
DETERMINISTIC: dict[str, dict[str, Any]] = {"gpu": {"xla_gpu_deterministic_ops": True}}

_SAME_BITS = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops")

NO_CACHE = "off"
_CACHE_FOLDER = "jax_compilation_cache_dir"
# JAX removes the least recently used programs above this size; one training step takes a few million bytes.
_CACHE_BYTES = 4 * 2**30
_CACHE_SECONDS = 0.1  # programs that compile in less time are not kept

_logger = logging.getLogger("jaxseg")


def compiler_options(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the options for `jax.jit(..., compiler_options=)`: `OPTIONS` of this backend, updated with `changes`.

    Entries of `OPTIONS` that this version of XLA does not know are left out.

    Args:
        changes: {name of an XLA option: value}; the value None means XLA's own default.

    Raises:
        ConfigError: if XLA refuses an option of `changes` or its value.
    """
    changes = dict(changes or {})
    options = {name: value for name, value in (_known_options() | changes).items() if value is not None}
    try:
        if changes:
            _try(options)
    except Exception as error:  # versions of JAX raise different classes
        raise ConfigError(
            f"compile.options={changes}: XLA on {jax.default_backend()} refuses it: {first_line(error)}."
        ) from error
    return options


def jit(function: Callable[..., Any], options: Mapping[str, Any], mesh: Mesh | None = None, **arguments: Any) -> Any:
    """Returns `jax.jit(function, compiler_options=options, **arguments)`, with the forms that suit these options.

    Args:
        function: as of `jax.jit`; whatever of `jaxseg.nn` it calls takes its convolutions in the form that is fastest
            under the options, and its attention in one that keeps what they promise.
        options: the result of `compiler_options`.
        mesh: the devices that the batch is split over, if there are several; `nn.ops.by_device` reads it. One that
            splits images by rows asks for plain forms.
        arguments: further arguments of `jax.jit`.
    """
    rows = mesh is not None and SPACE_AXIS in mesh.shape and mesh.shape[SPACE_AXIS] > 1
    forms, cudnn = "plain" if rows else forms_for(options), not _has_same_bits(options)
    devices = mesh.abstract_mesh if mesh is not None and mesh.size > 1 else None

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with traced_for(forms, cudnn), contextlib.nullcontext() if devices is None else use_abstract_mesh(devices):
            return function(*args, **kwargs)

    return jax.jit(traced, compiler_options=dict(options), **arguments)


def forms_for(options: Mapping[str, Any]) -> Forms:
    """Returns the forms of convolutions that suit a program with these options, see `nn.ops.forms`.

    jaxlib without oneDNN (0.10) keeps the forms, and so the numbers, that it always had.
    """
    if not _has_onednn():
        return "usual"
    return "onednn" if calls_onednn(options) else "strips"


def attention_for(options: Mapping[str, Any], dtype: str, *, rows: bool = False) -> str:
    """Returns whether the attention of a program with these options may be a call of cuDNN, and else why not.

    Where it may, each size is asked for when it is traced, and a no is logged; see `nn.ops.fused_attention`.

    Args:
        options: the result of `compiler_options`.
        dtype: the compute dtype of the network.
        rows: whether the rows of an image are split over devices.
    """
    refusal = "images are split by rows" if rows else general_refusal(dtype, _has_same_bits(options))
    return f"usual: {refusal}" if refusal else "cudnn, where its numbers are right"


def _has_same_bits(options: Mapping[str, Any]) -> bool:
    """Returns whether these options (and not those in XLA_FLAGS) ask for the same bits in every run of a program."""
    return any(name in options and str(options[name]).lower() in ("true", "1") for name in _SAME_BITS)


def calls_onednn(options: Mapping[str, Any]) -> bool:
    """Returns whether a program compiled with these options (and those in XLA_FLAGS) calls oneDNN's convolutions.

    It compiles a tiny convolution, which takes about 25 ms, once for each set of options in a process.
    """
    return jax.default_backend() == "cpu" and _calls_onednn(tuple(sorted(options.items())))


@functools.cache
def _has_onednn() -> bool:
    """Whether jaxlib has oneDNN, whatever XLA_FLAGS says."""
    with contextlib.suppress(Exception):  # this version does not know the option
        return calls_onednn({ONEDNN: True, **_YNN})
    return False


@functools.cache
def _calls_onednn(options: tuple[tuple[str, Any], ...]) -> bool:
    image, kernel = jax.ShapeDtypeStruct((1, 4, 4, 8), jnp.float32), jax.ShapeDtypeStruct((3, 3, 8, 8), jnp.float32)

    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    program = jax.jit(convolve, compiler_options=dict(options)).lower(image, kernel).compile()
    return "__onednn$convolution" in (program.as_text() or "")


def deterministic_options() -> dict[str, Any]:
    """Returns the options with which a program on this backend gives the same bits in every run; {} if all do."""
    backend = jax.default_backend()
    return DETERMINISTIC[backend] if backend in DETERMINISTIC else {}


def options_for_once() -> dict[str, Any]:
    """Returns the options for a program that runs once and takes longer to compile than to run."""
    return _known(_ONCE)


@functools.cache
def _known_options() -> dict[str, Any]:
    return _known(OPTIONS)


def _known(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the options for this backend that this version of XLA knows and the variable XLA_FLAGS does not set."""
    known = {}
    backend = jax.default_backend()
    given = os.environ["XLA_FLAGS"] if "XLA_FLAGS" in os.environ else ""
    flags = {flag.partition("=")[0].lstrip("-") for flag in given.split()}
    for name, value in options[backend].items() if backend in options else ():
        if name in flags:
            continue
        with contextlib.suppress(Exception):  # this version does not know the option
            _try({name: value})
            known[name] = value
    return known


def _try(options: Mapping[str, Any]) -> None:
    """Compiles a trivial program with the options; raises the compiler's error if it refuses one."""
    if options:
        jax.jit(lambda x: x + 1, compiler_options=dict(options)).lower(0.0).compile()


def keep_programs(folder: str = "") -> Path | None:
    """Turns on JAX's cache of compiled programs on disk, so that later processes need not compile them again.

    If the user has set JAX_COMPILATION_CACHE_DIR, this setting stays. Call this function after `run.hosts.join_hosts`,
    when the devices are known.

    Args:
        folder: the folder; "": ~/.cache/jaxseg/xla; "off": no cache.

    Returns:
        The folder in use; None if there is no cache. It is a subfolder of `folder` for this backend, and on CPUs for
        this model of processor, since compiled programs may use instructions that other processors do not have.
    """
    # JAX says it for each program that calls oneDNN; `ONEDNN` says why it is not stored.
    warnings.filterwarnings("ignore", r"Error writing persistent compilation cache entry.*bad_alloc", UserWarning)
    chosen = getattr(jax.config, _CACHE_FOLDER)
    if chosen is not None:
        return Path(chosen)
    if folder == NO_CACHE:
        return None
    try:
        path = expanded(folder or "~/.cache/jaxseg/xla").absolute() / _machine()
    except ConfigError:
        _logger.warning("compiled programs are not kept: there is no home folder; compile.cache=DIR names another.")
        return None
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
    """Returns "gpu", "tpu", or "cpu-" and a digest of the processor's name and instruction sets."""
    backend = jax.default_backend()
    if backend != "cpu":
        return backend
    processor = f"{platform.machine()} {cpu_name()} {_cpu_info('flags') or _cpu_info('Features')}"
    return f"cpu-{hashlib.sha256(processor.encode()).hexdigest()[:12]}"


def cpu_name() -> str:
    """Returns the name of the processor; a run records it, since processors round sums differently."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def cpu_features() -> str:
    """Returns the instruction sets of the processor, by which XLA chooses its instructions; "" where unknown."""
    return " ".join(sorted((_cpu_info("flags") or _cpu_info("Features")).split()))


def _cpu_info(field: str) -> str:
    """Returns a field of the first processor in Linux's /proc/cpuinfo; "" if there is none."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}\s*: (.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        return found[1].strip() if found else ""
    return ""
