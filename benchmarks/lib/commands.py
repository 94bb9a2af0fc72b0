"""The command of a benchmark as its record holds it: where somebody keeps data and runs is theirs to know."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# Options and keys that name data, whose place a reader has elsewhere.
DATA = ("--data-dir", "--dir", "--cache", "--data", "--config.data.dir", "--config.data.cache")
RESULTS = Path(__file__).resolve().parents[1] / "results"


def this_command() -> str:
    """Returns the command of this process, with `shown` of its words."""
    program, *words = sys.argv or [""]
    return command_of(program, words)


def command_of(program: str, words: Sequence[str]) -> str:
    """Returns the command of a file of benchmarks/ with these words, as `shown` has them."""
    return shlex.join(["python", *shown(program, words)])


def shown(program: str, words: Sequence[str]) -> list[str]:
    """Returns a program of benchmarks/ and its words, with PATH for data and the end of every other outside path.

    Of a path in the results folder the whole relative path stays, of others the last two parts.
    """
    file = Path(program).resolve()
    found = [f"benchmarks/{file.name}" if file.parent == RESULTS.parent else shortened(program)]
    for word in words:
        key, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        value = "PATH" if key in DATA or (not equals and found[-1] in DATA) else shortened(value)
        found.append(f"{key}{equals}{value}" if equals or not key else key)
    return found


def shortened(path: str) -> str:
    """Returns the last two parts of a path that is absolute, begins at home or climbs; other text as it is.

    The whole path within the results folder stays, and nothing of where the home folder is.
    """
    parts, home = Path(os.path.normpath(path)).parts, Path.home()
    if not Path(path).is_absolute() and parts[:1] != ("~",) and ".." not in parts:
        return path
    place = Path(os.path.abspath(home.joinpath(*parts[1:]) if parts[0] == "~" else path))
    if place.is_relative_to(RESULTS):
        return f"benchmarks/results/{place.relative_to(RESULTS)}"
    if home.is_relative_to(place):
        return "PATH"
    return "/".join(place.relative_to(home if place.is_relative_to(home) else place.anchor).parts[-2:])
