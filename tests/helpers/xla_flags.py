"""Flags of XLA with which programs compile quickly. This file must not import jax, which reads the flags."""

import importlib.util
import mmap
from pathlib import Path

# Compiling is most of the time of the tests, and each program runs only a few times. These compile the same arithmetic
# in a quarter of the time.
QUICK = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
}


def quick_flags(devices: int, given: str = "") -> str:
    """Returns XLA_FLAGS for `devices` CPU devices and quick compilation; the flags in `given` take precedence."""
    flags = [f"--{name}={value}" for name, value in QUICK.items() if is_known(name)]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    return " ".join([*flags, given])


def is_known(name: str) -> bool:
    """Whether the installed XLA has a flag of this name: XLA ends a process that sets an unknown one."""
    spec = importlib.util.find_spec("jaxlib")
    assert spec is not None and spec.origin is not None
    library = max(Path(spec.origin).parent.glob("*.so"), key=lambda path: path.stat().st_size)
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(name.encode()) >= 0
