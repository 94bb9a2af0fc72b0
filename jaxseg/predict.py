"""Segments images with a trained network, or with several.

    python -m jaxseg.predict --workdir DIR [DIR ...] IMAGES... [--out preds/] [--format png|color|tiff|npz|folders]
                             [--tiles auto|none|HxW] [--overlap .5] [--max-pixels N] [--average flips,scales:.75-1-1.25]
                             [--probabilities] [--values classes|masks] [--no-overlay] [--recursive] [--skip-existing]
                             [--limit N] [--crf [CRF]] [--video FPS] [--space N]
                             [--regions [--min-area N] [--connectivity 4|8] [--fill-holes [N]]
                             [--split-touching [DEPTH]] [--region-classes NAMES] [--coco rle|polygons]]
                             [--uncertainty entropy|members|dropout[:N]] [--temperature] [--which best|last]

IMAGES are files, folders and globs. Each image gives, at its own size and upright as its EXIF tag says, NAME.png (class
indices, shown in the colours of the classes by its palette), NAME-overlay.png (those colours laid over the image) and
with --probabilities NAME.npz: `probabilities` f32[h,w,k] (k is 1, that of class 1, for a binary network) and `classes`.
The probabilities are those that the loss of the run trained: a softmax, or one sigmoid a class (binary_cross_entropy).
With --values masks NAME.png holds what the masks of the data set hold: the values of the classes, or their colours.
--format writes the classes as colours, as a TIFF file or as an array instead. predictions.csv lists the images, with
the share of each class. --limit N takes the first N files alone, to look at some.

An image that does not fit into memory is cut into overlapping tiles, whose predictions are blended (--tiles,
--overlap); a TIFF file of 67,108,864 pixels (2^26) or more is read and written by parts, and a call that was cut off
continues where it was. --space N splits the rows of an image over N devices instead, which segment it whole
(docs/scaling.md).
--average takes the mean of the probabilities of mirrored and resized images, and several DIRs that of several runs.
--crf refines the probabilities by a dense CRF over the image: the name of a preset (default deeplab-v1), or
NAME=VALUE,...; without a value it stands after the IMAGES. A video among IMAGES gives NAME-overlay.mp4, and --video 25
makes a video of the overlays of images that are its frames.

--regions also writes the connected regions of the classes: regions.csv and regions.json (COCO) for the call, and
NAME-regions.geojson for each image; see docs/regions.md. --uncertainty writes how sure the prediction is of each pixel,
NAME-uncertainty.png and NAME-uncertainty.npz, and uncertainty.csv with the least sure image first; see
docs/uncertainty.md. --temperature divides the logits by the number that `jaxseg.evaluate --fit-temperature` found.
--thresholds decides by those that --fit-thresholds found; see docs/many-classes.md.

    python -m jaxseg.predict --workdir DIR --samples N [--seed SEED] [--out preds/] [--which best|last]

makes N images from noise, sample-00.png, sample-01.png, ..., with a network that generates images (dcgan).
"""

import argparse
import functools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import jax

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config.command import run_command
from jaxseg.config.parser import CommandParser
from jaxseg.errors import ConfigError, counted, printable
from jaxseg.inference import readout, uncertainty_files, video
from jaxseg.inference.crf import refinement, require_memory
from jaxseg.inference.folder import FolderPrediction, Summary
from jaxseg.inference.images import find_images, name_outputs
from jaxseg.inference.large import is_large
from jaxseg.inference.options import (
    add_crf,
    add_options,
    add_space,
    add_workdirs,
    identity_of,
    predictor_of,
    require_distinct,
    split_workdirs,
    with_folds,
)
from jaxseg.inference.output_options import meaning, outputs_of
from jaxseg.inference.outputs import FORMATS, Extra, Outputs, digest, require_folder
from jaxseg.inference.predictions_table import images_of_table, require_own_table
from jaxseg.inference.regions import prediction as regions
from jaxseg.inference.samples import sample, samples_of_earlier_calls, write_samples
from jaxseg.nn.crf import CRF
from jaxseg.run.load import Run, Which, load_run, require_one_class

# Options that --samples has too; all others are for images.
_OF_SAMPLES = ("samples", "seed", "out", "which", "workdir", "images")
# Options that a video has too; what is written of its frames are the overlays alone.
_OF_VIDEOS = (
    *("out", "which", "workdir", "images", "recursive", "tiles", "overlap", "blending", "accumulate", "average"),
    *(
        "temperature",
        "thresholds",
        "max_pixels",
        "memory",
        "skip_existing",
        "seed",
        "samples",
        "video",
        "space",
        "limit",
    ),
)


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.predict") -> int:
    """Runs the command line; returns the exit status: 1 where an image failed or nothing could be done.

    `program` is how the command is called, for the usage line.
    """
    parser = _parser(program)
    options = parser.parse_intermixed_args(argv)
    options.workdir, options.images = split_workdirs(options.workdir, options.images)
    if problem := _problem(options):
        parser.error(problem)
    return run_command(functools.partial(_sample if options.samples is not None else _predict, options))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(prog=program, description="Segment images with a trained network.")
    add_workdirs(parser)
    parser.add_argument("images", metavar="IMAGES", nargs="*", help="files, folders and globs")
    parser.add_argument("--out", metavar="DIR", default="preds", help="where the pictures are written (default preds)")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="png",
        help="of the classes: png, indices with a palette (the default); color, their colours; tiff, indices in "
        "compressed tiles; npz, an array; folders, CLASS/NAME.png, where a pixel may have several classes",
    )
    parser.add_argument("--probabilities", action="store_true", help="also write NAME.npz with those of every class")
    parser.add_argument(
        "--values",
        choices=("classes", "masks"),
        default="classes",
        help="what NAME.png holds: class indices from 0, or the values (or colours) of the masks of the data set",
    )
    parser.add_argument("--no-overlay", action="store_true", help="do not write NAME-overlay.png")
    parser.add_argument("--recursive", action="store_true", help="enter sub-folders, and keep them in the outputs")
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out images, not videos, whose outputs an earlier call has written from the same content",
    )
    parser.add_argument("--limit", metavar="N", type=int, help="take the first N files alone, images or videos")
    add_options(parser, tiles="auto")
    add_space(parser)
    add_crf(parser)
    parser.add_argument(
        "--video",
        metavar="FPS",
        type=_rate,
        help="also write the overlays as a video, overlays.mp4, of this many frames a second: the images in order",
    )
    readout.add_options(parser)
    regions.add_options(parser)
    uncertainty_files.add_option(parser)
    parser.add_argument("--samples", metavar="N", type=int, help="make N images from noise instead, with a generator")
    parser.add_argument("--seed", metavar="SEED", type=int, help="of the noise of --samples (default 0)")
    parser.add_argument(
        "--which",
        choices=get_args(Which),
        help="checkpoint: best by validation mIoU, or last (default best; of --samples: last)",
    )
    return parser


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"must be a number of frames a second above 0, got {text}")
    return value


def _problem(options: argparse.Namespace) -> str:
    """Returns what is wrong with the options together; "" if nothing is."""
    if options.samples is None:
        if options.seed is not None:
            return "--seed is that of the noise of --samples; give --samples N too"
        if not options.images:
            return "the following arguments are required: IMAGES"
        if options.limit is not None and options.limit < 1:
            return f"--limit must be at least 1, got {options.limit}"
        if options.skip_existing and options.video is not None:
            return "--video shows all images of a call; it cannot be given with --skip-existing"
        return readout.problem(options) or regions.problem(options) or uncertainty_files.problem(options)
    if len(options.workdir) > 1:
        return "--samples takes one workdir"
    if options.images:
        return "--samples makes images from noise; it takes no IMAGES"
    if others := _given(options, _OF_SAMPLES):
        return f"--samples makes images from noise; it takes no {others[0]}"
    if options.samples < 1:
        return f"--samples must be at least 1, got {options.samples}"
    seeds = 2**32  # those of a run
    return "" if 0 <= (options.seed or 0) < seeds else f"--seed must be in [0, {seeds - 1}], got {options.seed}"


def _given(options: argparse.Namespace, but: Sequence[str]) -> list[str]:
    """Returns those of the options that were given, but for some, as they are written."""
    defaults = vars(_parser("").parse_args(["--workdir", "DIR"]))
    names = [name for name, default in defaults.items() if name not in but and getattr(options, name) != default]
    return [f"--{name.replace('_', '-')}" for name in names]


def _sample(options: argparse.Namespace) -> int:
    require_folder(expanded(options.out))
    run = load_run(options.workdir[0], options.which or "last")
    compiler.keep_programs(run.config.compile.cache)
    files = write_samples(sample(run.parts, run.variables, options.samples, options.seed or 0), expanded(options.out))
    many = f"{files[0]} ... {files[-1].name}" if len(files) > 1 else str(files[0])
    print(f"{counted(len(files), 'image')} from noise by {_network(run)}: {many}")
    if earlier := samples_of_earlier_calls(files):
        print(f"The folder also has {counted(len(earlier), 'picture')} of earlier calls, such as {earlier[0]}.")
    return 0


def _predict(options: argparse.Namespace) -> int:
    out = expanded(options.out)
    require_folder(out)
    options.workdir = with_folds(options.workdir)
    require_distinct(options.workdir)
    crf = CRF.parse(options.crf) if options.crf else None
    refine = [refinement(crf)] if crf is not None else []
    found = find_images(options.images, options.recursive, out)
    for sentence in found.left_out:
        print(printable(sentence))
    for problem in found.problems:
        print(f"error: {problem}", file=sys.stderr)
    if not found.paths:
        return 1
    if options.limit is not None and options.limit < len(found.paths):
        print(f"The first {options.limit} of {counted(len(found.paths), 'file')}, as --limit asks.")
        found = found._replace(paths=found.paths[: options.limit])
    runs = [load_run(workdir, options.which or "best") for workdir in options.workdir]
    run = runs[0]
    compiler.keep_programs(run.config.compile.cache)
    for name in ("crf", "regions", "uncertainty"):
        if getattr(options, name):
            require_one_class(run, f"--{name}")
    videos = [path for path in found.paths if path.suffix.lower() in video.SUFFIXES]
    found = found._replace(paths=[path for path in found.paths if path not in videos])
    if videos and (more := _given(options, _OF_VIDEOS)):
        raise ConfigError(f"{videos[0]} is a video, of which the overlays alone are written; leave out {more[0]}.")
    predictor = predictor_of(runs, options, options.space)
    predictor = readout.applied(predictor, runs, options)
    identity = identity_of(runs, options, readout.numbers(predictor))
    outputs = outputs_of(run, options, out, identity)
    extras: list[Extra] = []
    films: list[video.VideoOfFrames] = []
    if options.regions:
        extras.append(regions.region_files(run.classes, options))
    if options.uncertainty is not None:
        extras.append(
            uncertainty_files.uncertainty_files(options.uncertainty, runs, predictor, refined=bool(options.crf))
        )
    if options.video is not None:
        films.append(video.VideoOfFrames(out / "overlays.mp4", options.video, found.paths, run.colors))
        extras.extend(films)
    names = name_outputs(found.paths, outputs, found.roots, [suffix for extra in extras for suffix in extra.suffixes])
    require_own_table(out)
    for extra in extras:
        extra.require_own(out, names.values())
    for path, name in names.items():
        short = Path(name).name
        if short != path.stem:
            file = outputs.files(name)["classes"].relative_to(out)
            reason = (
                f"another image is named {path.stem}" if short.startswith(path.stem) else "its own name is too long"
            )
            print(f"{path} gives {file}, since {reason}.")
    earlier = images_of_table(out) if options.skip_existing else {}
    kept = {p: name for p, name in names.items() if options.skip_existing and _is_done(outputs, p, name, earlier)}
    batch = 1 if jax.default_backend() == "cpu" else run.config.eval.batch_size
    todo = {path: name for path, name in names.items() if path not in kept}

    def require(shape: tuple[int, ...]) -> None:
        if crf is not None:
            require_memory((1, *shape), run.num_classes, crf)

    prediction = FolderPrediction(
        predictor,
        outputs,
        refine=refine,
        extras=extras,
        probabilities=bool(refine),
        batch=batch,
        identity=identity,
        require=require,
    )
    if videos or options.video is not None:
        require_one_class(run, "A video of overlays")
    failed = video.segment_videos(predictor, videos, out, run.colors, _network(run))
    if not names:
        return 1 if failed or found.problems else 0
    try:
        summary = prediction(todo, kept)
    finally:
        for film in films:
            film.close()
    skipped = f" {counted(len(kept), 'image')} left out, which an earlier call has segmented." if kept else ""
    several = f" and {counted(len(runs) - 1, 'other run')}" if len(runs) > 1 else ""
    total = len(names) - len(kept)
    print(f"{summary.done} of {counted(total, 'image')} segmented by {_network(run)}{several}.{skipped}")
    if done := summary.done - summary.large:
        files = outputs.files("NAME")
        print(f"classes:       {files['classes']} ({meaning(run, options.values, options.format)})")
        if "probabilities" in files:
            print(f"probabilities: {files['probabilities']}")
    if summary.large:
        print(f"by parts:      {out / 'NAME.tif'} ({counted(summary.large, 'large image')})")
    if done or summary.large:
        for what, where in _further(outputs, extras, summary):
            print(f"{what + ':':<15}{where}")
    return 1 if summary.failed or found.problems or failed else 0


def _further(outputs: Outputs, extras: Sequence[Extra], summary: Summary) -> list[tuple[str, str]]:
    """Returns (what, where) of the overlays, the other files of each image, and the files of the whole call."""
    many = counted(summary.done, "image")
    ends = [("overlays", "-overlay.png")] if outputs.overlay else []
    ends += [(_kind(suffix), suffix) for extra in extras for suffix in extra.suffixes]
    of_images = [(what, f"{outputs.out / f'NAME{end}'} ({many})") for what, end in ends]
    return of_images + [(_kind(file.name), str(file)) for file in summary.files]


def _kind(file: str) -> str:
    kinds = {".csv": "table", ".json": "annotations", ".geojson": "outlines", ".mp4": "video"}
    kinds |= {"-uncertainty.png": "uncertainty", "-uncertainty.npz": "uncertainty"}
    return next((kind for end, kind in kinds.items() if file.endswith(end)), "file")


def _is_done(outputs: Outputs, path: Path, name: str, earlier: Mapping[str, Path]) -> bool:
    """Returns whether an earlier call has written the outputs of an image, and `earlier` names no other for them."""
    if name in earlier and earlier[name] != path.resolve():
        return False
    if is_large(path):
        file = outputs.out / f"{name}.tif"
        return file.is_file() and outputs.wrote(file, digest(path))
    return outputs.files(name)["classes"].is_file() and outputs.exists(name, digest(path))


def _network(run: Run) -> str:
    return f"{run.config.model.name} after {counted(run.step, 'step')}"


if __name__ == "__main__":
    sys.exit(main())
