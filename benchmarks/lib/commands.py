"""The command of a benchmark as its record holds it: where somebody keeps data and runs is theirs to know."""

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
    """Returns a program of benchmarks/ and its words, with PATH for data and the end of every other absolute path.

    Of a path in the results folder the whole relative path stays, of others the last two parts.
    """
    file = Path(program).resolve()
    found = [f"benchmarks/{file.name}" if file.parent == RESULTS.parent else _short(program)]
    for word in words:
        key, equals, value = word.rpartition("=")
        value = "PATH" if key in DATA or (not equals and found[-1] in DATA) else _short(value)
        found.append(f"{key}{equals}{value}")
    return found


def _short(path: str) -> str:
    if not Path(path).is_absolute():
        return path
    if Path(path).is_relative_to(RESULTS):
        return f"benchmarks/results/{Path(path).relative_to(RESULTS)}"
    return "/".join(Path(path).parts[-2:])
