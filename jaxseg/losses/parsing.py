"""The text that names the terms of a loss, and the options of these terms."""

import re
from collections.abc import Mapping
from typing import Any

from jaxseg.arguments import check
from jaxseg.errors import ArgumentError, nearest
from jaxseg.losses.pixels import ClassShifts, ClassWeights, checked_shifts, checked_weights
from jaxseg.losses.table import LOSSES

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"\s*(?:(?P<weight>{_NUMBER})\s*\*\s*)?(?P<name>[A-Za-z_]\w*)\s*(?P<more>\+|$)")


def parse_terms(text: str) -> dict[str, float]:
    """Parses "a + 0.5 * b" as {a: 1.0, b: 0.5}."""
    weights: dict[str, float] = {}
    position, more = 0, True
    while more:
        match = _TERM.match(text, position)
        if match is None:
            raise ArgumentError(f'The loss {text!r} cannot be read; write a sum such as "cross_entropy + 0.5 * dice".')
        name = match["name"]
        if name not in LOSSES:
            raise ArgumentError(f"There is no loss {name!r}.{nearest(name, LOSSES)}")
        if name in weights:
            raise ArgumentError(f"The loss {text!r} names {name} twice; give it one factor.")
        weights[name] = float(match["weight"] or 1.0)
        position, more = match.end(), match["more"] == "+"
    return weights


def checked_options(name: str, values: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """Returns the options of one term, converted to the types of their annotations."""
    hints = LOSSES[name].options
    options = check(f"the loss {name}", values, hints, prefix=f"{name}.")
    checks = [(ClassWeights, checked_weights), (ClassShifts, checked_shifts)]
    given = [
        (key, test)
        for key, value in options.items()
        for kind, test in checks
        if hints[key] == kind and value is not None
    ]
    return options | {key: test(options[key], classes) for key, test in given}


def require_taken(
    terms: str, weights: Mapping[str, float], common: Mapping[str, Any], args: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raises ArgumentError for arguments of a term that is not there, or options that no term takes."""
    for name in args:
        if name not in weights:
            raise ArgumentError(f"The loss {terms!r} has no term {name!r}, which args names.{nearest(name, weights)}")
    for option in common:
        if not any(option in LOSSES[name].options for name in weights):
            named = "logit_adjustment" if option == "logit_shift" else option
            raise ArgumentError(f"No term of the loss {terms!r} takes {named}.")
