"""What the commands `jaxseg report` and `jaxseg compare` share: their parser, and how they score a run."""

import argparse
from typing import get_args

from jaxseg.config.parser import CommandParser
from jaxseg.inference.options import add_options, predictor_of, tiles_of
from jaxseg.report.collecting import Collected, collect
from jaxseg.run.load import Run, Which


def make_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Returns a parser with --split, --which and the options of prediction."""
    parser = CommandParser(
        prog=program,
        description=description,
        epilog="--config.data.dir=PATH and the other keys that change nothing about what was trained can be given too.",
    )
    add = parser.add_argument
    add("--split", default="val", help="of a run: train, val or test (default val)")
    add("--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last")
    add_options(parser, tiles=None)
    return parser


def scored(run: Run, options: argparse.Namespace) -> Collected:
    """Returns what is said of a run on the split of the options, segmented as they ask for; raises as `collect`."""
    asked = options.average or tiles_of(run, options)[0] != "none"
    return collect(run, options.split, predictor_of([run], options) if asked else None)
