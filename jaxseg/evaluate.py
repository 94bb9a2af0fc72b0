"""Scores a split of the data with a trained network, each image at its native size.

    python -m jaxseg.evaluate --workdir DIR [DIR ...] [--split val|test|train] [--which best|last]
                              [--boundary [PIXELS]] [--tiles HxW] [--overlap .5] [--average flips,scales:.75-1-1.25]
                              [--crf [CRF]]
                              [--objects [--instances DIR] [--min-area N] [--fill-holes [N]] ...]
                              [--corruptions all|NAME ... [--strengths 1 3 5] [--seed N] [--baseline DIR]]
                              [--fit-temperature] [--fit-thresholds] [--thresholds] [--config.data.dir=PATH]

The keys of `jaxseg.config.FREE_KEYS` can be changed, for data in another place or another machine. So can the output
stride of the encoder and the atrous rates (`LAYOUT_KEYS`), where they change no parameter, to score a network at
another output stride than it was trained at: --config.model.args.encoder_args.output_stride=8. Prints the table of
classes and the calibration error, with --boundary also a table of distances between boundaries, and writes
evaluate-SPLIT.json and confusion-SPLIT.png into the workdir (of several runs: the first, or the folder of a
cross-validation); files of these names that it did not write are refused. The scores on another folder than that of the
training, of the same classes, are evaluate-SPLIT-on-NAME.json and so on; see docs/corruptions.md.

--tiles, --average and several DIRs segment the images as `jaxseg.predict` does with the same options, and --crf refines
them by a dense CRF. What is averaged or refined is compared with each run alone, in its mean IoU and its time. The
files then are evaluate-SPLIT-average.json, evaluate-SPLIT-crf.json and so on.

--objects matches the connected regions of the predictions with true objects, and writes F1, AP and panoptic quality to
objects-SPLIT.json; see docs/regions.md. --corruptions scores the split under noise, blur, other light, JPEG and more,
and writes corruptions-SPLIT.json; see docs/corruptions.md. --fit-temperature writes temperature.json; see
docs/uncertainty.md. --fit-thresholds writes thresholds.json, and --thresholds scores with it; see docs/many-classes.md.
"""

import argparse
import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import get_args

from jaxseg import compiler
from jaxseg.config import LAYOUT_KEYS
from jaxseg.config.command import read_overrides, run_command
from jaxseg.config.parser import CommandParser
from jaxseg.data.corruptions import CORRUPTIONS, STRENGTHS
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.inference import corrupted, corruption_files, surface, temperature, thresholds
from jaxseg.inference.crf import with_crf
from jaxseg.inference.evaluation import Evaluation, evaluate, report_name, require_own_report
from jaxseg.inference.options import (
    add_crf,
    add_options,
    add_workdirs,
    average_of,
    load_runs,
    predictor_of,
    require_distinct,
    require_unseen,
    tiles_of,
    whole_number,
    with_folds,
)
from jaxseg.inference.other_data import about_other
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.regions import settings as region_settings
from jaxseg.inference.split_objects import objects_file, require_instances, require_own, score_objects
from jaxseg.nn.crf import CRF
from jaxseg.run.load import Run, Which, require_one_class


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.evaluate") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    parser = _parser(program)
    options, overrides = parser.parse_known_args(argv)
    if problem := region_settings.problem(options, "--objects", ["instances"]):
        parser.error(problem)
    given = [name for name in ("strengths", "seed", "baseline") if getattr(options, name) is not None]
    if given and not options.corruptions:
        parser.error(f"--{given[0]} is for --corruptions, which is not given.")
    return run_command(lambda: _evaluate(options, overrides))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description="Score a split of the data with a trained network, each image at its native size.",
        epilog="--config.data.dir=PATH and the other keys that change nothing about what was trained can be given too.",
    )
    add_workdirs(parser)
    parser.add_argument(
        "--split", default="val", help="train, val or test; also another split of the data, such as test[:100] of TFDS"
    )
    parser.add_argument(
        "--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last"
    )
    parser.add_argument(
        "--boundary",
        metavar="PIXELS",
        nargs="?",
        type=_pixels,
        const=True,
        help="score boundaries too: F1, surface Dice, Hausdorff 95; PIXELS: how far apart they match, by default "
        f"{100 * surface.TOLERANCE:g} %% of the diagonal",
    )
    add_options(parser, tiles=None)
    add_crf(parser)
    parser.add_argument(
        "--objects", action="store_true", help="score objects too: regions of the predictions against true objects"
    )
    parser.add_argument(
        "--instances",
        metavar="DIR",
        help="of --objects: pictures of the number of the object of each pixel (default: the folder instances beside "
        "images, or else the connected components of the masks)",
    )
    region_settings.add_options(parser, "--objects")
    _add_corruptions(parser)
    parser.add_argument(
        "--fit-temperature",
        action="store_true",
        help="fit the temperature of the first run on the split, print the calibration error of each class before and "
        "after, and write temperature.json, which predict --temperature uses",
    )
    parser.add_argument(
        "--fit-thresholds",
        action="store_true",
        help="find for each class of the first run, with one sigmoid a class, the threshold of the best IoU on the "
        "split, print it, and write thresholds.json, which predict --thresholds uses",
    )
    parser.add_argument(
        "--thresholds",
        action="store_true",
        help="also score each class of the first run against all others with its threshold in thresholds.json",
    )
    return parser


def _add_corruptions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corruptions",
        metavar="NAME",
        nargs="+",
        help=f"score the images under corruptions too: all, or some of {', '.join(CORRUPTIONS)}",
    )
    parser.add_argument(
        "--strengths",
        metavar="N",
        nargs="+",
        type=whole_number(1),
        help="of --corruptions: which of the strengths 1 to 5 (default: all)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), help="of --corruptions: another one gives other noise (default 0)"
    )
    parser.add_argument(
        "--baseline",
        metavar="DIR",
        help="of --corruptions: the workdir of another run with such scores, to which the errors are related",
    )


def _pixels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of pixels of at least 0, got {text}")
    return value


def _evaluate(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    crf = CRF.parse(options.crf) if options.crf else None
    require_unseen(options.workdir, options.split)
    words = options.workdir
    options.workdir = with_folds(words)
    require_distinct(options.workdir)
    runs = load_runs(options.workdir, options, overrides)
    run, whole = runs[0], average_of(words, runs)  # what is fitted is that of the first; the average is scored
    compiler.keep_programs(run.config.compile.cache)
    for given, name in ((options.fit_temperature, "temperature"), (options.fit_thresholds, "thresholds")):
        if given and _changed(overrides):
            raise ConfigError(
                f"--fit-{name} keeps the {name} of the network as it was trained; leave out the changes to it."
            )
    for name in ("boundary", "objects", "crf", "fit_temperature"):
        if getattr(options, name):
            require_one_class(run, f"--{name.replace('_', '-')}")
    if options.fit_temperature:
        temperature.require_own(run)
    if options.fit_thresholds:
        thresholds.require_sigmoids(run)
        thresholds.require_own(run)
    if options.thresholds and not options.fit_thresholds:
        thresholds.read(run)  # raises before anything is computed
    asked = len(runs) > 1 or options.average or tiles_of(run, options)[0] != "none" or crf is not None
    predictor = predictor_of(runs, options) if asked else None
    if predictor is not None and crf is not None:
        predictor = with_crf(predictor, crf)
    require_own_report(whole, options.split, predictor)
    report = report_name(whole, options.split, predictor)
    score_corrupted = _corruptions_of(whole, predictor, options) if options.corruptions else None
    settings = None
    if options.objects:
        settings = region_settings.settings_of(run.classes, options)
        if options.instances is not None:
            require_instances(options.instances)
        require_own(objects_file(whole.workdir, report), about_other(whole))
    evaluation = evaluate(whole, options.split, boundary=options.boundary, predictor=predictor)
    print(f"{evaluation}{_changed(overrides)}", flush=True)  # first: the scores are not lost if they cannot be written
    for name, path in evaluation.write_report().items():
        print(f"{name + ':':<12}{path}")
    if settings is not None:
        objects = score_objects(whole, options.split, settings, instances=options.instances, predictor=predictor)
        print(f"\n{objects}", flush=True)
        path = objects._replace(split=report).write(whole.workdir)
        print(f"{'objects:':<12}{path}")
    if score_corrupted is not None:
        scores = score_corrupted(evaluation)
        print(f"\n{scores}", flush=True)
        print(f"{'corruptions:':<12} {scores.write()}")
    if options.fit_temperature:
        scaling = temperature.fit(run, options.split)
        print(f"\n{scaling}", flush=True)
        print(f"{'scaling:':<12}{scaling.write()}")
    if options.fit_thresholds:
        found = thresholds.fit(run, options.split)
        print(f"\n{found}", flush=True)
        print(f"{'thresholds:':<12}{found.write()}")
    elif options.thresholds:
        print(f"\n{thresholds.score(run, options.split)}")
    return 0


def _corruptions_of(
    run: Run, predictor: Predictor | None, options: argparse.Namespace
) -> Callable[[Evaluation], corrupted.CorruptedScores]:
    """Returns what scores a run under the corruptions of the options; raises ConfigError for those that are wrong."""
    seed, strengths = options.seed or 0, STRENGTHS if options.strengths is None else options.strengths
    try:
        names = corrupted.chosen(options.corruptions, run.config.data.channels)
        strengths = corrupted.require_strengths(strengths)
    except ArgumentError as error:
        raise ConfigError(str(error)) from error
    corruption_files.require_own(corruption_files.file_of(run, options.split, predictor), run, names, strengths, seed)
    baseline = None
    if options.baseline is not None:
        file = corruption_files.baseline_file(options.baseline, run, options.split, predictor)
        words = _in_the_same_way(run, options)
        baseline = corruption_files.read_baseline(options.baseline, file, names, strengths, seed, words)
    corrupted.require_8_bits(run, options.split)
    return functools.partial(corrupted.score_corrupted, names=names, strengths=strengths, seed=seed, baseline=baseline)


def _in_the_same_way(run: Run, options: argparse.Namespace) -> list[str]:
    """Returns the words with which another run is scored on the same images, segmented as here."""
    words = ["--split", options.split]
    for name in ("tiles", "overlap", "average", "crf"):
        words += [f"--{name}", str(value)] if (value := getattr(options, name)) else []
    return [*words, *([f"--config.data.dir={run.config.data.dir}"] if run.config.data.source == "folder" else [])]


def _changed(overrides: Sequence[str]) -> str:
    """A line that says in what the scored network is not the trained one, or nothing."""
    layout = [f"{key}={value}" for key, value in read_overrides(overrides) if key in LAYOUT_KEYS]
    return f"\nscored with {', '.join(layout)}, not as it was trained" if layout else ""


if __name__ == "__main__":
    sys.exit(main())
