"""Writes a page that compares runs on the same images: scores paired by image, and the images where they differ most.

    python -m jaxseg.compare RUN RUN [RUN ...] [--split val] [--which best|last] [--out compare.html]
                             [--tiles HxW] [--overlap .5] [--average flips] [--config.data.dir=PATH]

Each RUN is the workdir of a training run; all have the same classes. Each is compared with the first: the difference of
its mean IoU and of the IoU of each class, with the interval of a paired bootstrap over the images. --tiles, --average
and the keys hold for all of them. A file that the command did not write is refused. See docs/report.md.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config.command import run_command
from jaxseg.config.parser import split_overrides
from jaxseg.errors import ConfigError
from jaxseg.inference.options import load_runs, require_distinct
from jaxseg.pages.frame import require_own_page, write_page
from jaxseg.report.collecting import source_of
from jaxseg.report.options import make_parser, scored
from jaxseg.report.several_page import PROGRAM, require_same_images, several_page

_INSTEAD = "give another file with --out"


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.compare") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    argv = list(sys.argv[1:] if argv is None else argv)
    words, overrides = split_overrides(argv)
    options = _parser(program).parse_args(words)
    return run_command(lambda: _compare(options, overrides, shlex.join(["jaxseg", "compare", *argv])))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = make_parser(program, "Write a page that compares runs on the same images, paired by image.")
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="the workdirs of two runs or more; each is compared with the first")
    add("--out", metavar="FILE", default="compare.html", help="the page (default compare.html)")
    return parser


def _compare(options: argparse.Namespace, overrides: Sequence[str], again: str) -> int:
    if len(options.runs) < 2:
        raise ConfigError(f"A comparison needs two runs or more, got {options.runs[0]} alone; jaxseg report shows one.")
    require_distinct(options.runs)
    page = expanded(options.out)
    require_own_page(page, PROGRAM, _INSTEAD)
    runs = load_runs(options.runs, options, overrides)
    for run in runs[1:]:
        if run.classes != runs[0].classes:
            differing = sorted(set(run.classes) ^ set(runs[0].classes))
            what = f"one has {differing[0]!r} and the other has not" if differing else "they have another order"
            raise ConfigError(
                f"Runs are compared if they have the same classes, and those of {run.workdir} and {runs[0].workdir} "
                f"differ: {what}."
            )
    require_same_images([(str(run.workdir), source_of(run, options.split)) for run in runs])  # before any is scored
    compiler.keep_programs(runs[0].config.compile.cache)
    found = []
    for run in runs:
        found.append(scored(run, options))
        print(f"{run.workdir}: mIoU {100 * found[-1].evaluation.mean_iou:.2f} %", flush=True)
    write_page(page, several_page(found, again), PROGRAM, _INSTEAD)
    print(f"{'page:':<12}{page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
