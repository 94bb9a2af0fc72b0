"""Shares a trained network: as a folder, or as a repository of the Hugging Face Hub.

    python -m jaxseg.publish WORKDIR hf://OWNER/NAME|FOLDER --licence LICENCE [--which best|last]
                             [--export stablehlo,onnx] [--data TEXT] [--use TEXT] [--limits TEXT] [--dataset NAME ...]
                             [--private] [--replace] [--dry-run]

It writes the weights (safetensors), the configuration and the classes (JSON) and a card (README.md), without any place
of this machine. `jaxseg.load("hf://OWNER/NAME")`, `jaxseg predict --workdir hf://OWNER/NAME` and
`model.weights=hf://OWNER/NAME` read them back.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from jaxseg.config.command import run_command
from jaxseg.config.parser import CommandParser
from jaxseg.publish.card import Words
from jaxseg.publish.publishing import check_exports, check_licence, check_target, publish_run
from jaxseg.run.load import Which, load_run


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.publish") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    options = _parser(program).parse_args(argv)
    return run_command(lambda: _publish(options))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description="Share a trained network: weights, configuration, classes and a card, as a folder or on the Hub.",
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="the workdir of the training run")
    parser.add_argument("target", metavar="hf://OWNER/NAME|FOLDER", help="the repository of the Hub, or a folder")
    parser.add_argument("--licence", help="of the weights, as the Hub names it: apache-2.0, cc-by-4.0, other, ...")
    parser.add_argument(
        "--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last"
    )
    parser.add_argument(
        "--export", metavar="FORMATS", default="", help="programs of the network beside: stablehlo,onnx"
    )
    parser.add_argument("--data", metavar="TEXT", help="for the card: which data, and where they come from")
    parser.add_argument("--use", metavar="TEXT", help="for the card: what the network is meant for")
    parser.add_argument("--limits", metavar="TEXT", help="for the card: what it is not meant for, or fails at")
    parser.add_argument("--dataset", metavar="NAME", nargs="+", default=[], help="for the card: data sets of the Hub")
    parser.add_argument("--private", action="store_true", help="a new repository is seen by its owner alone")
    parser.add_argument("--replace", action="store_true", help="also where another network, or something else, is")
    parser.add_argument("--dry-run", action="store_true", help="make and check the files, list them, publish none")
    return parser


def _publish(options: argparse.Namespace) -> int:
    check_licence(options.licence)
    check_target(options.target)
    exports = [name.strip() for name in options.export.split(",") if name.strip()]
    check_exports(exports)
    done = publish_run(
        load_run(options.workdir, options.which),
        options.target,
        licence=options.licence,
        words=Words(options.data, options.use, options.limits, tuple(options.dataset)),
        exports=exports,
        private=options.private,
        replace=options.replace,
        dry_run=options.dry_run,
    )
    print(f"{done.place}: {'published' if done.done else 'nothing is published, a dry run'}")
    for name, size in done.files:
        print(f"  {name:20} {size:>12,} bytes")
    for name in done.removed:
        print(f"  {name:20} {'removed' if done.done else 'would be removed':>12}")
    print(f'load: jaxseg.load("{done.place}")')
    return 0


if __name__ == "__main__":
    sys.exit(main())
