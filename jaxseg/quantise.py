"""Writes a trained network in whole numbers of 8 bits, as a workdir of about a quarter of the size.

    python -m jaxseg.quantise --workdir DIR --out NEW_DIR [--activations 8] [--calibrate 32] [--split train]
                              [--shown evaluation|training] [--ranges average|min-max|percentile]
                              [--weights 8] [--skip REGEX ...]
                              [--which best|last] [--config.data.dir=PATH]

`jaxseg evaluate`, `jaxseg predict` and `jaxseg.load` take NEW_DIR like any run. With --activations, what convolutions
and dense layers read has few bits too; the ranges are those that images of the split show, or those that a run trained
with quantise.activations has learned.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from jaxseg.config.command import read_overrides, run_command
from jaxseg.config.parser import CommandParser
from jaxseg.errors import counted
from jaxseg.inference.quantised import CALIBRATION, Ranges, Shown, check_quantisation, quantise_run
from jaxseg.run.load import Which, load_run
from jaxseg.run.messages import commands_of_use


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.quantise") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    options, overrides = _parser(program).parse_known_args(argv)
    return run_command(lambda: _quantise(options, overrides, program))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description="Write a trained network in whole numbers of few bits, as a workdir that is used like any run.",
        epilog="--config.data.dir=PATH and the other keys that change nothing about what was trained can be given too.",
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the workdir of the training run")
    parser.add_argument("--out", metavar="NEW_DIR", required=True, help="the new workdir")
    parser.add_argument("--weights", metavar="BITS", type=int, help="bits of the kernels, 2 to 8 (default 8)")
    parser.add_argument(
        "--activations",
        metavar="BITS",
        type=int,
        nargs="?",
        const=8,
        help="what the layers read has 8 bits too, or the given number, 2 to 8",
    )
    parser.add_argument(
        "--calibrate",
        metavar="N",
        type=int,
        default=CALIBRATION,
        help="images whose values set the ranges (default %(default)s)",
    )
    parser.add_argument("--split", default="train", help="the split of these images (default %(default)s)")
    parser.add_argument(
        "--shown",
        choices=get_args(Shown),
        default="evaluation",
        help="how the network sees these images: whole as in evaluation, or in the crops and colours of training "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--ranges",
        choices=get_args(Ranges),
        default="average",
        help="average: the mean over images of the least and the greatest value of each; min-max: those of all images; "
        "percentile: as average, without the outermost 0.01 %% of the values (default %(default)s)",
    )
    parser.add_argument(
        "--skip", metavar="REGEX", nargs="+", help="layers that stay in float32, found anywhere in their path"
    )
    parser.add_argument(
        "--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last"
    )
    return parser


def _quantise(options: argparse.Namespace, overrides: Sequence[str], program: str) -> int:
    read_overrides(overrides)
    given = options.out, options.weights, options.activations, options.calibrate, options.ranges
    check_quantisation(*given, options.split, options.shown)
    run = load_run(options.workdir, options.which, overrides)
    done = quantise_run(
        run,
        options.out,
        weights=options.weights,
        activations=options.activations,
        skip=options.skip,
        images=options.calibrate,
        split=options.split,
        ranges=options.ranges,
        shown=options.shown,
    )
    has = done.quantisation
    print(f"{done.workdir}: {counted(done.kernels, 'kernel')} of {has.weights} bits, the other parameters in float32")
    origin = "learned in training"
    if done.ranges != "learned":
        seen = "in the crops and colours of training" if done.shown == "training" else "whole, as in evaluation"
        origin = f"calibrated with {counted(done.images, 'image')} of {done.split}, {seen} "
        origin += f"(--shown {done.shown} --ranges {done.rule})"
    print(f"activations: {f'{has.activations} bits, ranges {origin}' if has.activations else 'float32'}")
    print(f"checkpoint:  {done.bytes / 1e6:.2f} MB on disk; in float32 its numbers are {done.float_bytes / 1e6:.2f} MB")
    evaluate, predict = commands_of_use(done.workdir, program.removesuffix("quantise"))
    print(f"evaluate:    {evaluate}\npredict:     {predict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
