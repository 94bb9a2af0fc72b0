"""Proposes masks for images without labels, for a person to keep or reject; those first of which a look is worth most.

    python -m jaxseg.propose --workdir DIR [DIR ...] IMAGES... [--out proposals/] [--number 100]
                             [--order badge|core_set|entropy|margin|mutual_information|random] [--seed 0] [--draws 20]
                             [--labelled IMAGES] [--recursive] [--which best|last]
                             [--tiles auto|none|HxW] [--overlap .5] [--average flips] [--crf [CRF]]
                             [--config.data.dir=PATH]

IMAGES are files, folders and globs. Writes masks/NAME.png (class indices, in the colours of the classes by its
palette), confidence/NAME.png (the largest probability of each pixel, 255 is 1) and proposals.csv, the first to look at
first, and review.html: open it in a browser, keep or reject each mask, and save decisions.json beside it. Then

    python -m jaxseg.train ... --config.data.proposals=proposals/

trains with the images whose masks were kept. A second call with the same --out leaves what was decided as it is, and
proposes masks for the other images. See docs/propose.md.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict
from jaxseg.config.command import read_overrides, run_command
from jaxseg.config.parser import CommandParser, split_overrides
from jaxseg.data.base import Source, require_bytes
from jaxseg.data.labelled import labelled_indices
from jaxseg.data.proposals import DECISIONS, KEEP, PAGE, TABLE
from jaxseg.data.sources import training_source
from jaxseg.errors import ConfigError, DataError, counted
from jaxseg.inference import video
from jaxseg.inference.crf import refinement
from jaxseg.inference.images import find_images
from jaxseg.inference.options import (
    add_crf,
    add_options,
    add_workdirs,
    predictor_of,
    require_distinct,
    split_workdirs,
    whole_number,
)
from jaxseg.nn.crf import CRF
from jaxseg.propose.outputs import Earlier, name_proposals, read_earlier, require_own, write_proposals
from jaxseg.propose.proposing import DRAWS, ORDERS, Ranked, rank
from jaxseg.run.load import Which, load_run, require_one_class


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.propose") -> int:
    """Runs the command line; returns the exit status: 1 where an image failed or nothing could be done.

    `program` is how the command is called, for the usage line.
    """
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    options = _parser(program).parse_intermixed_args(words)
    options.workdir, options.images = split_workdirs(options.workdir, options.images)
    return run_command(lambda: _propose(options, overrides))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description="Propose masks for images without labels, for a person to keep or reject.",
        epilog="--config.data.dir=PATH, where --labelled train is of use, and the other keys that change nothing about "
        "what was trained can be given too.",
    )
    add = parser.add_argument
    add_workdirs(parser)
    add("images", metavar="IMAGES", nargs="*", help="files, folders and globs")
    add("--out", metavar="DIR", default="proposals", help="where the files are written (default proposals)")
    add("--number", metavar="N", type=whole_number(1), default=100, help="images that are proposed (default 100)")
    add(
        "--order",
        choices=ORDERS,
        default="badge",
        help="what a look is worth: badge or core_set, images that differ, by the first workdir alone and without "
        "--average; entropy or margin of the prediction; mutual_information of several runs or views, or of one run's "
        "dropout; random (default badge)",
    )
    add("--seed", metavar="SEED", type=whole_number(0), default=0, help="of random, badge and dropout (default 0)")
    add("--draws", metavar="N", type=whole_number(2), default=DRAWS, help=f"draws of dropout (default {DRAWS})")
    add(
        "--labelled",
        metavar="IMAGES",
        action="append",
        default=[],
        help="images that have labels already, for core_set and badge: a file, folder or glob, or train for the "
        "training images of the run; can be given several times",
    )
    add("--recursive", action="store_true", help="enter sub-folders, and keep them in the outputs")
    add("--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last")
    add_options(parser, tiles="auto")
    add_crf(parser)
    return parser


def _propose(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    out, failed = expanded(options.out), list[str]()

    def fail(sentence: str) -> None:
        failed.append(sentence)
        print(f"error: {sentence}", file=sys.stderr)

    read_overrides(overrides)
    refine = refinement(CRF.parse(options.crf)) if options.crf else None
    if not options.images:
        raise ConfigError("There are no IMAGES to propose masks for; give files, folders or globs.")
    if options.labelled and options.order not in ("core_set", "badge"):
        raise ConfigError(f"--labelled is of use to --order core_set and badge, got --order {options.order}.")
    found = find_images(options.images, options.recursive, out)
    for problem in found.problems:
        fail(problem)
    if films := [path for path in found.paths if path.suffix.lower() in video.SUFFIXES]:
        raise ConfigError(f"{films[0]} is a video; masks are proposed for images.")
    if not found.paths:
        return 1
    require_distinct(options.workdir)
    runs = [load_run(workdir, options.which, overrides) for workdir in options.workdir]
    compiler.keep_programs(runs[0].config.compile.cache)
    require_bytes("A proposal", len(runs[0].classes))
    require_one_class(runs[0], "A proposal")
    predictor = predictor_of(runs, options)
    earlier = read_earlier(out, runs[0].classes)
    paths = [path for path in found.paths if path.resolve() not in earlier.images]
    if not paths:
        print(f"All {counted(len(found.paths), 'image')} were decided about in {out / DECISIONS}: nothing is proposed.")
        return 1 if failed else 0
    taken = [row.name for row in earlier.rows]
    require_own(out, name_proposals([Ranked(path, None) for path in paths], found.roots, taken), found.paths)
    labelled = labelled_images(runs[0].config, options.labelled, options.recursive, fail)
    ranked = rank(
        paths,
        runs,
        predictor,
        options.order,
        number=options.number,
        seed=options.seed,
        draws=options.draws,
        labelled=itertools.chain(labelled, _kept(earlier)),
        fail=fail,
    )
    if not ranked:
        return 1
    names = name_proposals(ranked, found.roots, taken)  # of equal stems, by the order which has a number
    require_own(out, names, found.paths)
    title = f"{runs[0].config.model.name} after {counted(runs[0].step, 'step')}, by {options.order}"
    count = write_proposals(
        *(out, runs[0], predictor, ranked, names), earlier=earlier, refine=refine, title=title, fail=fail
    )
    kept = f"; {counted(len(earlier.rows), 'image')} decided about before" if earlier.rows else ""
    print(f"{counted(count, 'mask')} of {counted(len(found.paths), 'image')} proposed, by {options.order}{kept}.")
    print(f"table:  {out / TABLE}\nreview: {out / PAGE} (open it in a browser, and save {DECISIONS} beside it)")
    return 1 if failed else 0


def labelled_images(
    config: ConfigDict, words: Sequence[str], recursive: bool, fail: Callable[[str], object]
) -> Iterator[Path | np.ndarray]:
    """Returns the images of --labelled, of which those of the training split are read one at a time.

    Raises:
        ConfigError, DataError: if the training split cannot be opened.
    """
    parts: list[Iterable[Path | np.ndarray]] = []
    for word in words:
        if word == "train":
            parts.append(_of_training(training_source(config), fail))
            continue
        found = find_images([word], recursive)
        for problem in found.problems:
            fail(problem)
        parts.append(found.paths)
    return itertools.chain(*parts)


def _of_training(source: Source, fail: Callable[[str], object]) -> Iterator[np.ndarray]:
    """Yields the images that have labels."""
    for index in labelled_indices(source):
        try:
            yield np.asarray(source[index]["image"])
        except DataError as error:
            fail(str(error))


def _kept(earlier: Earlier) -> list[Path]:
    """Returns the images whose proposals were kept."""
    return [row.image for row in earlier.rows if earlier.decisions[row.name].decision == KEEP]


if __name__ == "__main__":
    sys.exit(main())
