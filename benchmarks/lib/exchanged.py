"""What the devices of a compiled program exchange: the operations and the values and bytes of their results."""

import math
import re
from typing import Any, NamedTuple

# An operation of a compiled program whose result comes from several devices, and the arrays of its result.
_EXCHANGE = re.compile(
    r" = (?P<result>\S.*?) (?P<kind>all-gather|all-reduce|all-to-all|ragged-all-to-all|collective-permute|"
    r"collective-broadcast|reduce-scatter)(?:-start)?\("
)
_ARRAY = re.compile(r"([a-z]+)([0-9]*)\w*\[([0-9,]*)\]")


class Exchange(NamedTuple):
    """One operation: its kind, the number of values of its result and their bytes, and whether it is inside a loop or a
    call."""

    kind: str
    size: int
    inside: bool
    bytes: int


def exchanges(program: Any) -> list[Exchange]:
    """Returns the exchanges between devices in a result of `jax.jit(...).lower(...).compile()`."""
    found, entry = [], False
    for line in program.as_text().splitlines():
        if line.endswith("{"):
            entry = line.startswith("ENTRY")
        elif match := _EXCHANGE.search(line):
            arrays = [
                (math.prod(map(int, filter(None, sizes.split(",")))), max(1, int(bits or 8) // 8))
                for _, bits, sizes in _ARRAY.findall(match["result"])
            ]
            size, total = sum(count for count, _ in arrays), sum(count * width for count, width in arrays)
            found.append(Exchange(match["kind"], size, not entry, total))
    return found
