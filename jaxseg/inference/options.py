"""The options with which commands choose how networks see images: in tiles, in several views, several networks."""

import argparse
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxseg.arguments import expanded
from jaxseg.data.folds import HELD_OUT
from jaxseg.errors import ArgumentError, ConfigError, counted
from jaxseg.inference.predictor import Predictor, make_predictor
from jaxseg.memory import parse_amount
from jaxseg.nn.crf import CRF_PRESETS
from jaxseg.pictures.opening import allow_pixels
from jaxseg.run.fold_folder import FOLDS_FILE, fold_workdirs
from jaxseg.run.load import Run, load_run
from jaxseg.run.published import is_on_hub
from jaxseg.run.workdir import CONFIG_FILE, holds_checkpoint
from jaxseg.state import by_path

# The options of prediction by which the classes of an image differ, and those by which their files do.
_OF_CLASSES = ("tiles", "overlap", "blending", "accumulate", "average", "crf", "temperature", "thresholds")
_OF_FILES = ("format", "values", "probabilities", "top_k")


def add_workdirs(parser: argparse.ArgumentParser) -> None:
    """Adds --workdir, with one run or several."""
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        nargs="+",
        required=True,
        help="the workdir of the training run; of several runs, or of a folder of jaxseg train --folds, the "
        "probabilities are averaged",
    )


def add_crf(parser: argparse.ArgumentParser) -> None:
    """Adds --crf; without a value it is the preset that DeepLab v1 published."""
    parser.add_argument(
        "--crf",
        metavar="CRF",
        nargs="?",
        const="deeplab-v1",
        help=f"refine by a dense CRF: {', '.join(CRF_PRESETS)}, or NAME=VALUE,... (default deeplab-v1)",
    )


def add_options(parser: argparse.ArgumentParser, tiles: str | None) -> None:
    """Adds --tiles, --overlap, --blending, --accumulate, --average, --max-pixels and --memory.

    The default of --tiles is `tiles`; None: the `eval.tiles` and `eval.overlap` of the run.
    """
    default = "what eval.tiles of the run says" if tiles is None else tiles
    parser.add_argument(
        "--tiles",
        metavar="auto|none|HxW|N",
        default=tiles,
        help="auto: cut images that do not fit into memory into overlapping tiles; none: never; HxW: cut every image "
        f"into tiles of this height and width; N: into squares of N pixels a side (default {default})",
    )
    parser.add_argument("--overlap", type=float, help="the share of a tile's side that is in the next too (default .5)")
    parser.add_argument(
        "--blending",
        choices=("gaussian", "nearest"),
        default="gaussian",
        help="gaussian: overlapping tiles are averaged, with most weight at their centres; nearest: each pixel is that "
        "of the nearest tile",
    )
    parser.add_argument(
        "--accumulate",
        choices=("float32", "float16"),
        default="float32",
        help="what the scores of tiles are added in; float16 takes half of the memory",
    )
    parser.add_argument(
        "--average",
        metavar="VIEWS",
        default="",
        help="average the probabilities of several views of an image: flips, flips:v, flips:hv, scales:.75-1-1.25, or "
        "both with a comma",
    )
    parser.add_argument(
        "--memory",
        metavar="AMOUNT",
        type=_amount,
        help="the memory that there is for a network and its image, such as 6GB (default: what is free)",
    )
    add_max_pixels(parser)


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Adds --max-pixels, which holds from the moment that it is parsed."""

    def allow(text: str) -> int:
        most = whole_number(1)(text)
        allow_pixels(most)
        return most

    parser.add_argument(
        "--max-pixels",
        metavar="N",
        type=allow,
        help="the largest number of pixels of an image that is decoded at once, against files made to fill the memory "
        "(default 178956970)",
    )


def _amount(text: str) -> int:
    try:
        return parse_amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole_number(least: int) -> Callable[[str], int]:
    """Returns the type, for argparse, of an option that is a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or len(text) > 18 or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text}")
        return int(text)

    return parse


def add_space(parser: argparse.ArgumentParser) -> None:
    """Adds --space."""
    parser.add_argument(
        "--space",
        metavar="N",
        type=whole_number(1),
        default=1,
        help="split the rows of each image over N devices, which segment it whole together (default 1)",
    )


def predictor_of(runs: Sequence[Run], options: argparse.Namespace, space: int = 1) -> Predictor:
    """Returns the predictor of runs with the options of a command; `space` is that of --space."""
    tiles, overlap = tiles_of(runs[0], options)
    if space > 1 and tiles == "auto":
        tiles = "none"
    return make_predictor(
        runs,
        tiles=tiles,
        overlap=overlap,
        blending=options.blending,
        dtype=options.accumulate,
        average=options.average,
        space=space,
        memory=options.memory,
    )


def identity_of(runs: Sequence[Run], options: argparse.Namespace, fitted: Sequence[float] = ()) -> str:
    """Returns twelve letters that differ where networks, or options that change the classes of an image, differ.

    Behind a hyphen, four more differ where options of the files of these classes do.

    `fitted` are the numbers that options read from the workdirs of the runs.
    """
    given, of_files = ([(name, getattr(options, name)) for name in names] for names in (_OF_CLASSES, _OF_FILES))
    digest = hashlib.sha256(f"{given} {list(map(float, fitted))}".encode())
    for run in runs:
        seen = [getattr(run.config.data, name) for name in ("size", "fit", "channels", "mean", "std")]
        later = [(name, getattr(run.config.data, name)) for name in ("range", "multilabel")]
        seen += [pair for pair in later if pair[1]]  # where they are empty, files of earlier versions are the same
        digest.update(f"{run.config.model.to_dict()} {seen} {run.parts.loss.one_vs_rest}".encode())
        for path, leaf in by_path(run.variables).items():
            digest.update(path.encode())
            digest.update(np.ascontiguousarray(leaf).data)
    return f"{digest.hexdigest()[:12]}-{hashlib.sha256(str(of_files).encode()).hexdigest()[:4]}"


def tiles_of(run: Run, options: argparse.Namespace) -> tuple[str, float]:
    """Returns the tiles and the overlap of the options, or else those that a run is evaluated with.

    Raises:
        ArgumentError: for an overlap of images that are not cut.
    """
    if options.tiles is None and run.config.eval.tiles:
        return run.config.eval.tiles, run.config.eval.overlap if options.overlap is None else options.overlap
    if options.overlap is not None and options.tiles in (None, "none"):
        raise ArgumentError(
            f"--overlap {options.overlap:g} is that of tiles, and images are not cut into any: give --tiles HxW too."
        )
    return options.tiles or "none", 0.5 if options.overlap is None else options.overlap


def require_distinct(workdirs: Sequence[str]) -> None:
    """Raises ConfigError if a workdir is given twice, whose run would count twice in an average."""
    seen: dict[Path, str] = {}
    for word in workdirs:
        place = expanded(word).resolve()
        if place in seen:
            other = "twice" if seen[place] == word else f"a second time as {seen[place]}"
            raise ConfigError(f"The run in {word} is given {other}; give each run once.")
        seen[place] = word


def load_runs(workdirs: Sequence[str], options: argparse.Namespace, overrides: Sequence[str]) -> list[Run]:
    """Returns the runs in workdirs with the checkpoint of --which and the memory of --memory.

    Raises:
        ConfigError, CheckpointError: as `load_run` does.
    """
    limit = [] if options.memory is None else [f"--config.compile.memory={options.memory / 1000:.3f}kB"]
    return [load_run(workdir, options.which, [*overrides, *limit]) for workdir in workdirs]


def with_folds(workdirs: Sequence[str]) -> list[str]:
    """Returns the workdirs of runs, with those of its folds in place of a folder of `jaxseg train --folds`.

    Raises:
        ConfigError: if a fold has no checkpoint yet.
    """
    found: list[str] = []
    for word in workdirs:
        folder = expanded(word)
        if not (folder / FOLDS_FILE).is_file():
            found.append(word)
            continue
        own = fold_workdirs(folder)
        lacking = [path for path in own if not holds_checkpoint(path)]
        if lacking:
            raise ConfigError(
                f"{word} has {counted(len(own), 'fold')}, of which {lacking[0].name} has no checkpoint yet; the "
                "command that started them trains it, or give the workdirs of single folds."
            )
        found += map(str, own)
    return found


def average_of(workdirs: Sequence[str], runs: Sequence[Run]) -> Run:
    """Returns the run that stands for several: the first, but in a folder of folds, if that is given first.

    So what is written about the average does not lie in the workdir of a fold.

    Args:
        workdirs: as on the command line, before `with_folds`.
        runs: those in them, after it.
    """
    folder = expanded(workdirs[0])
    if not (folder / FOLDS_FILE).is_file():
        return runs[0]
    return dataclasses.replace(runs[0], workdir=folder, members=tuple(runs))


def require_unseen(workdirs: Sequence[str], split: str) -> None:
    """Raises ConfigError for the images that a run leaves out, if other runs, which saw them, are given too.

    Args:
        workdirs: as on the command line, before `with_folds`.
        split: the split to score.
    """
    folders = [word for word in workdirs if (expanded(word) / FOLDS_FILE).is_file()]
    if split == HELD_OUT and folders:
        folder = expanded(folders[0])
        raise ConfigError(
            f"--split {HELD_OUT} of {folder} would score all its runs on the images of one fold, on which the others "
            f"were trained: the out-of-fold scores of all images are in {folder / 'table.md'} and "
            f"{folder / 'scores.json'}, and --workdir {folder / 'fold-1'} scores one fold."
        )
    if split == HELD_OUT and len(workdirs) > 1:
        raise ConfigError(
            f"--split {HELD_OUT} takes one run, got {counted(len(workdirs), 'run')}: the others may be trained on the "
            f"images that {workdirs[0]} leaves out; the folder of jaxseg train --folds has the out-of-fold scores of "
            "all folds in its table.md and scores.json, and --workdir RUN/fold-1 scores one of them."
        )


def split_workdirs(workdirs: Sequence[str], images: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns (workdirs, images) of the words after --workdir: all but the first may be images too."""
    first, *rest = workdirs
    runs = [word for word in rest if is_on_hub(word) or _holds_run(word)]
    return [first, *runs], [*(word for word in rest if word not in runs), *images]


def _holds_run(word: str) -> bool:
    return any((expanded(word) / file).is_file() for file in (CONFIG_FILE, FOLDS_FILE))
