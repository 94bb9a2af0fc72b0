"""Ranks the images and regions of a split by how likely their label is wrong.

    python -m jaxseg.audit --workdir DIR [DIR ...] [--split train] [--out audit/] [--top 12] [--regions 1000]
                           [--suggest] [--maps] [--no-gradient] [--which best|last]
                           [--tiles HxW] [--overlap .5] [--average flips] [--config.data.dir=PATH]

Labels are best judged by networks that were not trained on them. So train several runs, each without one fold of the
training images:

    for FOLD in 1 2 3; do
        python -m jaxseg.train --config FILE --workdir runs/fold$FOLD --config.data.fold=$FOLD/3
    done
    python -m jaxseg.audit --workdir runs/fold1 runs/fold2 runs/fold3 --out audit/

Each image is then judged by the run that was trained without it. A run without a fold judges all images, too, and has
learnt some of the wrong labels. Writes audit.csv (images) and regions.csv (regions), the likeliest wrong first, and
sheet.png and pictures/ of the first --top images; with --suggest masks/ and with --maps maps/ of these. See
docs/audit.md.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.audit.auditing import audit
from jaxseg.audit.judges import make_judges
from jaxseg.audit.outputs import require_own, write_audit
from jaxseg.config.command import run_command
from jaxseg.config.parser import CommandParser
from jaxseg.data.sources import split_of_data
from jaxseg.inference.options import add_options, predictor_of, require_distinct, whole_number, with_folds
from jaxseg.run.load import Which, load_run


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.audit") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    parser = _parser(program)
    options, overrides = parser.parse_known_args(argv)
    return run_command(lambda: _audit(options, overrides))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description="Rank the images and regions of a split by how likely their label is wrong.",
        epilog="--config.data.dir=PATH and the other keys that change nothing about what was trained can be given too.",
    )
    add = parser.add_argument
    add(
        "--workdir",
        metavar="DIR",
        nargs="+",
        required=True,
        help="the workdir of a run, or of several that were each trained without a fold (data.fold)",
    )
    add("--split", default="train", help="train, val or test (default train)")
    add("--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last")
    add("--out", metavar="DIR", default="audit", help="where the files are written (default audit)")
    add("--top", metavar="N", type=whole_number(1), default=12, help="images that are drawn (default 12)")
    add("--regions", metavar="N", type=whole_number(1), default=1000, help="regions that are kept (default 1000)")
    add("--suggest", action="store_true", help="also write the suggested masks of the images that are drawn")
    add("--maps", action="store_true", help="also write their maps of pixels as npz")
    add("--no-gradient", action="store_true", help="leave out the norm of the gradient, which takes half of the time")
    add_options(parser, tiles=None)
    return parser


def _audit(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    out = expanded(options.out)
    require_own(out, [])
    options.workdir = with_folds(options.workdir)
    require_distinct(options.workdir)
    runs = [load_run(workdir, options.which, overrides) for workdir in options.workdir]
    compiler.keep_programs(runs[0].config.compile.cache)
    predictor = predictor_of(runs, options)
    judges = make_judges(runs, predictor, options.split)
    if not judges.folds and split_of_data(runs[0].config, options.split) == runs[0].config.data.train_split:
        print(
            "note: the images are judged by networks that were trained on them; runs without a fold each "
            "(--config.data.fold=1/3) find more.",
            file=sys.stderr,
        )
    found = audit(runs, options.split, predictor=predictor, regions=options.regions, gradient=not options.no_gradient)
    print(found, flush=True)
    for name, path in write_audit(found, out, top=options.top, suggest=options.suggest, maps=options.maps).items():
        print(f"{name + ':':<12}{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
