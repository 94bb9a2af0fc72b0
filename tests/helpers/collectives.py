"""What the devices of a compiled program exchange, and programs in the forms that other devices than a CPU get."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from lib.exchanged import Exchange, exchanges

__all__ = ["Exchange", "assert_only_sums", "exchanges", "forms_of_gpus"]


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
