"""How much memory a compiled program takes, and how much is free: known before the program runs."""

from pathlib import Path
from typing import Any

import jax

_SHARE = 0.8  # of the free memory that a program may plan with: others use the machine too
_LIMITS = (  # files with the memory limit of this process's control group, and with what its members use
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory() -> int:
    """Returns the bytes that a program on the first device may plan with: a share of what is free there."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats and "bytes_in_use" in stats:
        return int(_SHARE * (stats["bytes_limit"] - stats["bytes_in_use"]))
    return int(_SHARE * _free_on_host())


def program_memory(compiled: Any) -> int:
    """Returns the bytes of a compiled program's arguments, results and temporary arrays; 0 where XLA does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def _free_on_host() -> int:
    """Returns the bytes that the machine, and the control group of this process, have left."""
    free = [_available()]
    for limit, used in _LIMITS:
        try:
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # another version of control groups, or "max": no limit
            continue
    return max(0, min(free))


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 8 * 2**30  # where the system does not say
