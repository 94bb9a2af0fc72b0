"""The parser of a command line: errors are one sentence, and a misspelt option is named with the nearest right one."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jaxseg.errors import nearest


class CommandParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` without abbreviations, whose errors are one sentence in place of the usage.

    Words that begin with "--config." are left to `config.command.read_overrides`.
    """

    def __init__(self, **arguments: Any):
        super().__init__(allow_abbrev=False, **arguments)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Returns (options, the other words), as the method of the base class, by which its other methods parse."""
        known = {name for action in self._actions for name in action.option_strings}
        words = sys.argv[1:] if args is None else list(args)
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            if name.startswith("--") and not name.startswith("--config.") and name not in known:
                self.error(f"There is no option {name}.{nearest(name, known, listing=False)}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Prints the message as one sentence, and where the options are described; exits with 2."""
        sentence = f"{message[:1].upper()}{message[1:]}"
        end = "" if sentence.endswith((".", "?")) else "."
        self.exit(2, f"error: {sentence}{end} {self.prog} --help describes the options.\n")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the words of a command line without "--config.KEY=VALUE" and "--config.KEY VALUE", and these.

    For a command with words that are no options, among which VALUE would be lost.
    """
    rest, others, overrides = list(words), list[str](), list[str]()
    while rest:
        word = rest.pop(0)
        if not word.startswith("--config."):
            others.append(word)
            continue
        overrides.append(word)
        if "=" not in word and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return others, overrides


def add_experiment(parser: argparse.ArgumentParser, data: bool = False) -> None:
    """Adds the experiment file, which stands alone or after --config; with `data` a folder may stand for it."""
    name, folder = "FILE[:ARG]", "a folder of images and masks, or an " if data else ""
    place = f"FOLDER|{name}" if data else name
    parser.add_argument("file", metavar=place, nargs="?", help=f"{folder}experiment file and its variant")
    parser.add_argument("--config", metavar=place, help="the same, as an option")


def experiment_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """Returns the experiment file of a command line; the parser ends the program where there are none or two."""
    given = [each for each in (options.file, options.config) if each is not None]
    if len(given) > 1:
        parser.error(f"There are two experiment files, {given[0]} and --config {given[1]}; give one.")
    if not given:
        parser.error("An experiment file is missing: give FILE.py or --config FILE.py.")
    return given[0]


def number_in(low: float, high: float, expected: str) -> Callable[[str], float]:
    """Returns the type, for argparse, of an option that is a number above `low` and below `high`.

    `expected` says so in words: "a number between 0 and 1".
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low < value < high:
            raise argparse.ArgumentTypeError(f"must be {expected}, got {text}")
        return value

    return parse
