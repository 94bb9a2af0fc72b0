"""How much memory a compiled program takes, and how much is free: known before the program runs."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxseg.arguments import Amount, check_value

NOT_CHECKED = "off"
"""The value of `compile.memory` with which programs run unchecked."""

_SHARE = 0.8  # of the free memory that a program may plan with: others use the machine too
_UNITS = {"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Room:
    """The memory that programs may take.

    Attributes:
        free: bytes on each device; with CPU devices those of the machine or of the control group, which they share.
        planned: bytes that a suggestion may plan with: less, where others use the memory too.
        source: where the number comes from, to complete "15.1 GB are ...".
    """

    free: int
    planned: int
    source: str

    @property
    def words(self) -> str:
        return f"{shown(self.free)} {self.source}"


def room_of(setting: str, *, agreed: bool = True) -> Room | None:
    """Returns the memory that there is by the key `compile.memory`; None where nothing is to be checked.

    Args:
        setting: "": what is free now; "off": None; else an amount, such as "6GB" or "500 MiB".
        agreed: of several processes, whether to return the least of all, so that they come to the same decision. All
            must then call this function equally often, as they do not for images that each has of its own.
    """
    if setting == NOT_CHECKED:
        return None
    if setting:
        given = parse_amount(setting)
        return Room(given, given, "are what compile.memory gives")
    free = free_memory(1.0)
    if agreed and jax.process_count() > 1:
        from jax.experimental.multihost_utils import process_allgather

        free = int(np.min(process_allgather(np.int32(free // 2**20)))) * 2**20
    return Room(free, int(_SHARE * free), "are free")


def parse_amount(text: str) -> int:
    """Returns the bytes of an amount, such as "6GB" or "500 MiB"; raises ArgumentError for another text."""
    check_value("An amount of memory", text, Amount)
    number, unit = re.sub(r"\s", "", text).rstrip("BiGMKk"), re.sub(r"[\d. ]", "", text)
    return int(float(number) * _UNITS[unit])


def shown(amount: float) -> str:
    """Returns bytes in words: "1.5 GB", "27 MB"."""
    for unit in ("GB", "MB", "kB"):
        value = amount / _UNITS[unit]
        if value >= 1:
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{amount:.0f} bytes"


def free_memory(share: float = _SHARE) -> int:
    """Returns the bytes that a program on the first device may plan with: a share of what is free there."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats and "bytes_in_use" in stats:
        return int(share * (stats["bytes_limit"] - stats["bytes_in_use"]))
    return int(share * _free_on_host())


class DeviceMemory(NamedTuple):
    """The memory of one device in bytes: in use, the most that was in use, and all that there is; 0: not known."""

    used: int
    peak: int
    limit: int


def device_memory() -> DeviceMemory | None:
    """Returns the memory of the fullest device of this process; None where the backend does not say, as on CPUs.

    It asks the allocator, and waits for no computation.
    """
    found = []
    for device in jax.local_devices():
        try:
            stats = device.memory_stats()
        except jax.errors.JaxRuntimeError:  # a backend without them
            stats = None
        if stats and "bytes_in_use" in stats:
            names = ("bytes_in_use", "peak_bytes_in_use", "bytes_limit")
            found.append(DeviceMemory(*(int(stats[name]) if name in stats else 0 for name in names)))
    return max(found, default=None)


def host_memory() -> int | None:
    """Returns the bytes that this process has in memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):  # no Linux
        return None


def program_memory(compiled: Any, *, with_arguments: bool = True) -> int:
    """Returns the bytes on one device of a compiled program's arguments, results and temporary arrays.

    Args:
        compiled: the program; 0 where XLA does not say.
        with_arguments: whether to count the arguments; not where they are in memory already.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    arguments = analysis.argument_size_in_bytes if with_arguments else 0
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return int(arguments + results + analysis.temp_size_in_bytes)


def sharing_devices() -> int:
    """Returns how many devices of this process share one memory: all CPU devices, one of another kind."""
    return jax.local_device_count() if jax.default_backend() == "cpu" else 1


def largest(bytes_of: Callable[[int], int], room: int, known: Mapping[int, int], most: int = 2**16) -> int:
    """Returns the largest count up to `most` with `bytes_of(count) <= room`; 0 if there is none.

    The bytes must not decrease with the count. They grow nearly along a line, so that a bisection whose next count is
    where the line through two known ones meets the room asks for few; every third halves the interval, so that it ends
    for any growth.

    Args:
        bytes_of: count -> bytes, such as those of a compiled program.
        room: the bytes that there are.
        known: counts whose bytes are known, two at least; 0 may be one of them.
        most: the largest count that is wanted.
    """
    sizes = dict(known)
    low = max((count for count, size in sizes.items() if size <= room and count <= most), default=0)
    high = min((count for count, size in sizes.items() if size > room and count), default=most + 1)
    turn = 0
    while high - low > 1:
        turn += 1
        guess = _meeting(sizes, room) if turn % 3 else (low + high) // 2
        guess = min(max(guess, low + 1), high - 1)
        sizes[guess] = bytes_of(guess)
        low, high = (guess, high) if sizes[guess] <= room else (low, guess)
    return low


def _meeting(sizes: Mapping[int, int], room: int) -> int:
    """Returns the count at which the line through the two known counts nearest the room meets it."""
    a, b = sorted(sorted(sizes, key=lambda count: abs(sizes[count] - room))[:2])
    slope = (sizes[b] - sizes[a]) / (b - a)
    return int(a + (room - sizes[a]) / slope) if slope > 0 else 2 * b


def _free_on_host() -> int:
    """Returns the bytes that the machine, the control groups of this process, and its limit of addresses have left."""
    return max(0, min([_available(), *_left_in_groups(), *_left_of_addresses()]))


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 8 * 2**30  # where the system does not say


def _left_in_groups(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Returns the bytes that each control group around this process has left; those of files count, which Linux drops.

    Args:
        groups: where Linux shows the control groups.
        own: the file with the names of this process's groups: "0::/NAME", or before version 2 "N:memory:/NAME".
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    left = []
    for _, kinds, name in (line for line in lines if len(line) == 3):
        if kinds == "":
            root, limit, used, prefix = groups, "memory.max", "memory.current", ""
        elif "memory" in kinds.split(","):
            root, limit, used = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            prefix = "total_"
        else:
            continue
        folder = root / name.lstrip("/")
        for each in (folder, *(parent for parent in folder.parents if parent.is_relative_to(root))):
            try:
                taken = int((each / used).read_text()) - _of_files(each / "memory.stat", prefix)
                left.append(int((each / limit).read_text()) - taken)
            except (OSError, ValueError):  # no such folder from here, or "max": no limit
                continue
    return left


def _of_files(stat: Path, prefix: str) -> int:
    """Returns the bytes of files that a control group keeps in memory."""
    values = dict(line.split() for line in stat.read_text().splitlines())
    names = (f"{prefix}active_file", f"{prefix}inactive_file")
    return sum(int(values[name]) for name in names if name in values)


def _left_of_addresses() -> list[int]:
    """Returns half of the addresses that `ulimit -v` leaves the process; [] without such a limit.

    The next step reserves its addresses while one still runs, and uses them after it.
    """
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return []
        return [(limit - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])) // 2]
    except (ImportError, OSError, ValueError):  # no Linux
        return []
