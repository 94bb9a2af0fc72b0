"""What the devices of a compiled program exchange, and programs in the forms that other devices than a CPU get."""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

# An operation of a compiled program whose result comes from several devices, and the arrays of its result.
_EXCHANGE = re.compile(
    r" = (?P<result>\S.*?) (?P<kind>all-gather|all-reduce|all-to-all|ragged-all-to-all|collective-permute|"
    r"collective-broadcast|reduce-scatter)(?:-start)?\("
)
_ARRAY = re.compile(r"[a-z]+[0-9]*\[([0-9,]*)\]")


class Exchange(NamedTuple):
    """One operation: its kind, the number of values of its result, and whether it is inside a loop or a call."""

    kind: str
    size: int
    inside: bool


def exchanges(program: Any) -> list[Exchange]:
    """Returns the exchanges between devices in a result of `jax.jit(...).lower(...).compile()`."""
    found, entry = [], False
    for line in program.as_text().splitlines():
        if line.endswith("{"):
            entry = line.startswith("ENTRY")
        elif match := _EXCHANGE.search(line):
            arrays = [math.prod(map(int, filter(None, sizes.split(",")))) for sizes in _ARRAY.findall(match["result"])]
            found.append(Exchange(match["kind"], sum(arrays), inside=not entry))
    return found


def assert_only_sums(program: Any, values: int) -> None:
    """The devices exchange nothing but sums, outside of loops, of at most `values` values in all."""
    found = exchanges(program)
    assert {each.kind for each in found} <= {"all-reduce"}, found
    assert not any(each.inside for each in found), found
    assert sum(each.size for each in found) <= values, found


@contextlib.contextmanager
def forms_of_gpus(monkeypatch: Any) -> Iterator[None]:
    """Traces programs inside the `with` block as for a GPU, though a CPU compiles them."""
    with monkeypatch.context() as patch:
        patch.setattr(jax.lax, "platform_dependent", lambda *arrays, default, **others: default(*arrays))
        patch.setattr("jaxseg.compiler.forms_for", lambda options: "usual")
        yield
