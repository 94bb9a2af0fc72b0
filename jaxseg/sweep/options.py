"""Options that the commands of many runs share: which runs a call makes, and how many at a time."""

import argparse
from collections.abc import Callable
from typing import Annotated, Any

from jaxseg.arguments import Count, Where, check_value, describe

_Shard = Annotated[
    tuple[int, ...], Where(lambda v: len(v) == 2 and 1 <= v[0] <= v[1], instead="I/N with I from 1 to N")
]


def add_shares(parser: argparse.ArgumentParser) -> None:
    """Adds --shard and --jobs."""
    parser.add_argument(
        "--shard",
        metavar="I/N",
        type=option(_Shard, _split_shard),
        help="run the I-th of N parts, I from 1: one part a job of a cluster, all with the same workdir",
    )
    parser.add_argument(
        "--jobs", metavar="N", type=option(Count, int), help="runs at a time (default: one a GPU, or one)"
    )


def option(hint: Any, parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns the `type` of an option of argparse: its text as `parse` reads it, checked against an annotation."""

    def convert(text: str) -> Any:
        try:
            return check_value("The option", parse(text), hint)
        except ValueError as error:  # ArgumentError is one too
            raise argparse.ArgumentTypeError(f"must be {describe(hint)}, got {text!r}") from error

    return convert


def _split_shard(text: str) -> list[int]:
    return [int(part) for part in text.split("/")]
