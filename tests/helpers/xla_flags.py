"""Flags of XLA with which programs compile quickly. This file must not import jax, which reads the flags."""

from jaxlib import version

# Compiling is most of the time of the tests, and each program runs only a few times. These compile a U-Net's training
# step in a fifth of the time, with differences in the last bits.
QUICK = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",  # the tests themselves run on all cores
}
# Flag -> the version of jaxlib that no longer has it.
REMOVED = {"xla_cpu_use_fusion_emitters": (0, 11)}


def quick_flags(devices: int, given: str = "") -> str:
    """Returns XLA_FLAGS for `devices` CPU devices and quick compilation; the flags in `given` take precedence."""
    flags = [f"--{name}={value}" for name, value in QUICK.items() if is_known(name)]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    return " ".join([*flags, given])


def is_known(name: str) -> bool:
    """Whether the installed XLA has a flag of this name: XLA ends a process that sets an unknown one."""
    return name not in REMOVED or version.__version_info__ < REMOVED[name]
