"""Finds the settings of a dense CRF with which a trained network scores best on a split of the data.

    python -m jaxseg.crf --workdir DIR [--split val] [--grid appearance_weight=2-4-8,appearance_xy=30-50-80]
                         [--start deeplab-v1] [--images 100] [--which best|last] [--config.data.dir=PATH]

Every combination of the grid is scored on images of the split, each at its own size. Prints the table, the network
alone first, and writes it to crf-SPLIT.json in the workdir; of another folder than that of the training
it is crf-SPLIT-on-NAME.json. A split that is used for this is no test of the result.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from jaxseg import compiler
from jaxseg.config.command import run_command
from jaxseg.config.parser import CommandParser
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.inference.crf_search import GRID, grid_settings, parse_grid, require_own, search_crf, write_table
from jaxseg.inference.options import whole_number
from jaxseg.nn.crf import CRF
from jaxseg.run.load import Which, load_run


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.crf") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    options, overrides = _parser(program).parse_known_args(argv)
    return run_command(lambda: _search(options, overrides))


def _parser(program: str) -> argparse.ArgumentParser:
    grid = ",".join(f"{name}={'-'.join(f'{value:g}' for value in values)}" for name, values in GRID.items())
    parser = CommandParser(
        prog=program,
        description="Find the settings of a dense CRF with which a trained network scores best on a split.",
        epilog="--config.data.dir=PATH and the other keys that change nothing about what was trained can be given too.",
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the workdir of the training run")
    parser.add_argument("--split", default="val", help="train, val, test or another split of the data (default val)")
    parser.add_argument("--grid", default=grid, help=f"numbers of the CRF, each with its values (default {grid})")
    parser.add_argument(
        "--start",
        metavar="CRF",
        default="deeplab-v1",
        help="preset or NAME=VALUE,... for the rest (default deeplab-v1)",
    )
    parser.add_argument("--images", metavar="N", type=whole_number(1), default=100, help="images scored (default 100)")
    parser.add_argument(
        "--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last"
    )
    return parser


def _search(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    try:
        grid, start = parse_grid(options.grid), CRF.parse(options.start)
        grid_settings(start, grid)
    except ArgumentError as error:
        raise ConfigError(str(error)) from error
    run = load_run(options.workdir, options.which, overrides)
    require_own(run, options.split)
    compiler.keep_programs(run.config.compile.cache)
    found = search_crf(run, options.split, grid, start=start, images=options.images)
    print(found, flush=True)  # first: the scores are not lost if they cannot be written
    print(f"table: {write_table(run, found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
