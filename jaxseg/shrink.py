"""Removes channels of a trained network: a smaller network of the same architecture, in a workdir of its own.

    python -m jaxseg.shrink --workdir DIR --out NEW --channels SHARE [--criterion l1|scale|taylor|random]
                            [--batches 8] [--seed 0] [--which best|last] [--config.model.args.NAME=VALUE ...]

SHARE is that of the channels of every layer that is kept; --config.model.args.NAME=VALUE sets the fields of the smaller
network themselves, such as widths. `jaxseg evaluate`, `predict` and `export` take NEW as any run, and `jaxseg train`
fine-tunes it by model.weights=NEW.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from jaxseg import compiler
from jaxseg.config import LAYOUT_KEYS
from jaxseg.config.command import read_overrides, run_command
from jaxseg.config.parser import CommandParser
from jaxseg.pruning.removal import Criterion
from jaxseg.run.load import Which, load_run
from jaxseg.run.shrinking import check_shrinking, shrink_run

_FIELDS = "model.args."


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.shrink") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    options, overrides = _parser(program).parse_known_args(argv)
    return run_command(lambda: _shrink(options, overrides))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description="Remove channels of a trained network; the result is a run of a smaller network.",
        epilog="--config.model.args.NAME=VALUE sets a field of the smaller network; --config.data.dir=PATH and the "
        "other keys that change nothing about what was trained can be given too.",
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the workdir of the training run")
    parser.add_argument("--out", metavar="NEW", required=True, help="the workdir to write, new or empty")
    parser.add_argument("--channels", metavar="SHARE", type=float, help="share of the channels of each layer to keep")
    parser.add_argument(
        "--criterion",
        choices=get_args(Criterion),
        default="l1",
        help="keep the channels of the largest filters (l1) or norm scales (scale), those that change the loss most "
        "(taylor, on training images), or any (random); default %(default)s",
    )
    parser.add_argument("--batches", metavar="N", type=int, default=8, help="batches for taylor (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of random, and of the batches (default %(default)s)")
    parser.add_argument(
        "--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last"
    )
    return parser


def _shrink(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    given = dict(read_overrides(overrides))
    fields = {key: value for key, value in given.items() if key.startswith(_FIELDS) and key not in LAYOUT_KEYS}
    check_shrinking(options.out, options.channels, fields, options.criterion, options.batches, options.seed)
    run = load_run(options.workdir, options.which, {key: x for key, x in given.items() if key not in fields})
    compiler.keep_programs(run.config.compile.cache)
    shrunk = shrink_run(
        run,
        options.out,
        share=options.channels,
        fields={key.removeprefix(_FIELDS): value for key, value in fields.items()},
        criterion=options.criterion,
        batches=options.batches,
        seed=options.seed,
    )
    print(shrunk)
    return 0


if __name__ == "__main__":
    sys.exit(main())
