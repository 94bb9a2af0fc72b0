"""The text of a plan: an experiment file that a person reads, with the reason above each choice."""

import textwrap
from collections.abc import Mapping
from typing import Any

from jaxseg.config.values import literal
from jaxseg.errors import printable
from jaxseg.plan.planning import Plan

_WIDTH = 110

_HEADINGS = {
    "data": "The data.",
    "size": "How images get to the network.",
    "network": "The network.",
    "batch": "The batch.",
    "loss": "What training minimises.",
    "augmentation": "Random changes of the training images.",
    "length": "How long, and how fast.",
    "evaluation": "How the validation images are scored.",
}

_TITLE = '''"""A plan for a data set, which `jaxseg plan` wrote: read it, change it, and train with it.

    jaxseg check {name}
    jaxseg train {name}

The comment above each choice is its reason. Each key is described in docs/configure.md and by `jaxseg train --help`.
"""
'''


def text_of(plan: Plan, name: str) -> str:
    """Returns the text of a plan as the file `name`."""
    lines = [_TITLE.format(name=_plain(name)), "from jaxseg.config import ConfigDict, default_config, update", "", ""]
    if plan.notes:
        lines += ["# Look at this before a long training:"]
        lines += [line for note in plan.notes for line in _comment(note, "", "- ")]
        lines += ["", ""]
    lines += [
        "def get_config(arg: str | None = None) -> ConfigDict:",
        '    """Returns the configuration; there are no variants."""',
        "    config = default_config()",
    ]
    for heading, choices in plan.choices.items():
        lines += ["", f"    # {_HEADINGS[heading]}"]
        for choice in choices:
            lines += [*_comment(choice.reason, "    "), *_update(choice.keys)]
    if plan.given:
        lines += ["", "    # Given on the command line.", *_update(plan.given)]
    return "\n".join([*lines, "", "    return config", ""])


def _plain(name: str) -> str:
    """Returns a file name without what would end a docstring."""
    return printable(name).replace("\\", "/").replace('"', "'")


def _comment(text: str, indent: str, mark: str = "") -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(
        printable(text),
        _WIDTH,
        initial_indent=start + mark,
        subsequent_indent=start + " " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _update(keys: Mapping[str, Any]) -> list[str]:
    named = [f"{key.replace('.', '__')}={literal(value)}" for key, value in keys.items()]
    line = f"    update(config, {', '.join(named)})"
    if len(line) <= _WIDTH:
        return [line]
    return ["    update(", "        config,", *(f"        {each}," for each in named), "    )"]
