"""Writes report.html of a run: the numbers, the curves and the images on one page, to open in any browser.

    jaxseg report WORKDIR [WORKDIR ...] [--split val] [--which best|last] [--out FILE]
                  [--tiles HxW] [--overlap .5] [--average flips] [--config.data.dir=PATH]

A WORKDIR is that of a run, or the folder of a sweep, of a search or of a cross-validation (`jaxseg train --folds`). The
page is report.html inside it, and with --split another than val report-SPLIT.html; --out names another file for a
single WORKDIR. A file that the command did not write is refused. The page of a run needs a checkpoint and the data;
that of a sweep or a search is made of the files in its folder, and so is that of a cross-validation, but for its
pictures. See docs/report.md.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config.command import run_command
from jaxseg.config.parser import split_overrides
from jaxseg.data.folds import HELD_OUT
from jaxseg.errors import ConfigError
from jaxseg.folds.page import folds_page
from jaxseg.inference.options import load_runs, require_distinct
from jaxseg.pages.frame import require_own_page, write_page
from jaxseg.report.options import make_parser, scored
from jaxseg.report.run_page import PROGRAM, run_page
from jaxseg.run.fold_folder import FOLDS_FILE
from jaxseg.sweep.outputs import PLAN_FILE
from jaxseg.sweep.page import sweep_page
from jaxseg.sweep.search.page import search_page
from jaxseg.sweep.search.plan import SEARCH_FILE

_INSTEAD = "give another file with --out, or move it away"


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.report") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    argv = list(sys.argv[1:] if argv is None else argv)
    words, overrides = split_overrides(argv)
    options = _parser(program).parse_args(words)
    return run_command(lambda: _report(options, overrides, shlex.join(["jaxseg", "report", *argv])))


def _parser(program: str) -> argparse.ArgumentParser:
    description = "Write one page about a run, a sweep, a search or a cross-validation: numbers, curves and images."
    parser = make_parser(program, description)
    add = parser.add_argument
    add(
        "workdir",
        metavar="WORKDIR",
        nargs="+",
        help="the workdir of a run, or the folder of a sweep, a search or folds",
    )
    add("--out", metavar="FILE", help="the page (default report.html in the WORKDIR)")
    return parser


def _report(options: argparse.Namespace, overrides: Sequence[str], again: str) -> int:
    if options.out is not None and len(options.workdir) > 1:
        raise ConfigError("--out is the page of a single WORKDIR; leave it out for several.")
    require_distinct(options.workdir)
    for word in options.workdir:
        workdir = expanded(word)
        swept, searched, divided = ((workdir / file).is_file() for file in (PLAN_FILE, SEARCH_FILE, FOLDS_FILE))
        if divided and options.split not in ("val", HELD_OUT):
            raise ConfigError(
                f"The page of the folds in {workdir} has the images that each was trained without; leave out --split, "
                f"or give a fold, such as {workdir / 'fold-1'}."
            )
        suffix = (
            ""
            if options.split == "val" or swept or searched or divided
            else "-" + re.sub(r"[^\w.-]+", "_", options.split)
        )
        page = expanded(options.out) if options.out is not None else workdir / f"report{suffix}.html"
        require_own_page(page, PROGRAM, _INSTEAD)
        if swept:
            text = sweep_page(workdir, PROGRAM, again)
        elif searched:
            text = search_page(workdir, PROGRAM, again)
        elif divided:
            text = folds_page(workdir, PROGRAM, again, overrides)
        else:
            text = _of_run(workdir, options, overrides, again)
        write_page(page, text, PROGRAM, _INSTEAD)
        print(f"{'report:':<12}{page}", flush=True)
    return 0


def _of_run(workdir: Path, options: argparse.Namespace, overrides: Sequence[str], again: str) -> str:
    (run,) = load_runs([str(workdir)], options, overrides)
    compiler.keep_programs(run.config.compile.cache)
    found = scored(run, options)
    print(f"{found.evaluation}", flush=True)
    return run_page(found, again)


if __name__ == "__main__":
    sys.exit(main())
