"""Segments images with a trained network.

    python -m jaxseg.predict --workdir DIR IMAGES... [--out preds/] [--probabilities] [--values classes|masks]
                             [--which best|last]

IMAGES are files, folders and globs. Each image gives, at its own size and upright as its EXIF tag says, NAME.png (class
indices, shown in the colours of the classes by its palette), NAME-overlay.png (those colours laid over the image) and
with --probabilities NAME.npz: `probabilities` f32[h,w,k] (k is 1, that of class 1, for a binary network) and `classes`.
The probabilities are those that the loss of the run trained: a softmax, or one sigmoid a class (binary_cross_entropy).
With --values masks NAME.png holds what the masks of the data set hold: the values of the classes, or their colours.

    python -m jaxseg.predict --workdir DIR --samples N [--seed SEED] [--out preds/] [--which best|last]

makes N images from noise, sample-00.png, sample-01.png, ..., with a network that generates images (dcgan).
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import get_args

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config.command import run_command
from jaxseg.errors import ConfigError, counted, printable
from jaxseg.inference.images import find_images, name_outputs, predict_files
from jaxseg.inference.samples import sample, samples_of_earlier_calls, write_samples
from jaxseg.run.load import Run, Which, load_run


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.predict") -> int:
    """Runs the command line; returns the exit status: 1 where an image failed or nothing could be done.

    `program` is how the command is called, for the usage line.
    """
    parser = argparse.ArgumentParser(
        prog=program, description="Segment images with a trained network.", allow_abbrev=False
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the workdir of the training run")
    parser.add_argument("images", metavar="IMAGES", nargs="*", help="files, folders and globs")
    parser.add_argument("--out", metavar="DIR", default="preds", help="where the pictures are written (default preds)")
    parser.add_argument("--probabilities", action="store_true", help="also write NAME.npz with those of every class")
    parser.add_argument(
        "--values",
        choices=("classes", "masks"),
        default="classes",
        help="what NAME.png holds: class indices from 0, or the values (or colours) of the masks of the data set",
    )
    parser.add_argument("--samples", metavar="N", type=int, help="make N images from noise instead, with a generator")
    parser.add_argument("--seed", metavar="SEED", type=int, help="of the noise of --samples (default 0)")
    parser.add_argument(
        "--which",
        choices=get_args(Which),
        help="checkpoint: best by validation mIoU, or last (default best; of --samples: last)",
    )
    options = parser.parse_intermixed_args(argv)
    if problem := _problem(options):
        parser.error(problem)
    return run_command(functools.partial(_sample if options.samples is not None else _predict, options))


def _problem(options: argparse.Namespace) -> str:
    """Returns what is wrong with the options together; "" if nothing is."""
    if options.samples is None:
        if options.seed is not None:
            return "--seed is that of the noise of --samples; give --samples N too"
        return "" if options.images else "the following arguments are required: IMAGES"
    if options.images or options.probabilities or options.values != "classes":
        return "--samples makes images from noise; it takes no IMAGES, --probabilities or --values"
    if options.samples < 1:
        return f"--samples must be at least 1, got {options.samples}"
    seeds = 2**32  # those of a run
    return "" if 0 <= (options.seed or 0) < seeds else f"--seed must be in [0, {seeds - 1}], got {options.seed}"


def _sample(options: argparse.Namespace) -> int:
    run = load_run(options.workdir, options.which or "last")
    compiler.keep_programs(run.config.compile.cache)
    files = write_samples(sample(run.parts, run.variables, options.samples, options.seed or 0), expanded(options.out))
    many = f"{files[0]} ... {files[-1].name}" if len(files) > 1 else str(files[0])
    print(f"{counted(len(files), 'image')} from noise by {_network(run)}: {many}")
    if earlier := samples_of_earlier_calls(files):
        print(f"The folder also has {counted(len(earlier), 'picture')} of earlier calls, such as {earlier[0]}.")
    return 0


def _predict(options: argparse.Namespace) -> int:
    out = expanded(options.out)
    paths, problems = find_images(options.images)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not paths:
        return 1
    names = name_outputs(paths, out, options.probabilities)
    for path, name in names.items():
        if name != path.stem:
            numbered = name.startswith(path.stem)
            reason = f"another image is named {path.stem}" if numbered else "its own name is too long"
            print(f"{path} gives {name}.png, since {reason}.")
    run = load_run(options.workdir, options.which or "best")
    compiler.keep_programs(run.config.compile.cache)
    in_masks = options.values == "masks"
    if in_masks and not run.values:
        raise ConfigError(
            f"--values masks: the run in {run.workdir} was trained by a version that did not keep the values of the "
            "masks; its training command records them, in a moment if the run has finished."
        )
    values = run.values if in_masks and not run.color_masks else ()
    failed = predict_files(run, names, out, options.probabilities, values, with_colors=in_masks and run.color_masks)
    done = len(paths) - failed
    print(f"{done} of {counted(len(paths), 'image')} segmented by {_network(run)}.")
    if done:
        print(f"classes:       {out / 'NAME.png'} ({_meaning(run, options.values)})")
        print(f"overlays:      {out / 'NAME-overlay.png'}")
    if done and options.probabilities:
        print(f"probabilities: {out / 'NAME.npz'}")
    return 1 if failed or problems else 0


def _network(run: Run) -> str:
    return f"{run.config.model.name} after {counted(run.step, 'step')}"


def _meaning(run: Run, values: str) -> str:
    """Returns what the files of classes hold; each class where the masks hold other numbers, or colours."""
    if run.color_masks:
        pairs = [(f"({','.join(map(str, color))})", printable(name)) for color, name in zip(run.colors, run.classes)]
        if values == "masks":
            return "the colours of the masks: " + ", ".join(f"{color} {name}" for color, name in pairs)
        stand = ", ".join(f"{i} {name} ({color} in the masks)" for i, (color, name) in enumerate(pairs))
        return f"class indices, coloured by a palette: {stand}; --values masks writes the colours of the masks"
    if not run.values or run.values == tuple(range(len(run.classes))):
        return "class indices, coloured by a palette"
    pairs = list(zip(run.values, run.classes))
    if values == "masks":
        return "the values of the masks: " + ", ".join(f"{value} {printable(name)}" for value, name in pairs)
    stand = ", ".join(f"{i} {printable(name)} ({value} in the masks)" for i, (value, name) in enumerate(pairs))
    return f"class indices, coloured by a palette: {stand}; --values masks writes the values of the masks"


if __name__ == "__main__":
    sys.exit(main())
