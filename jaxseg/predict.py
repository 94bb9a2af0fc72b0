"""Segments images with a trained network.

    python -m jaxseg.predict --workdir DIR IMAGES... [--out preds/] [--probabilities] [--which best|last]

IMAGES are files, folders and globs. Each image gives, at its own size and upright as its EXIF tag says, NAME.png (class
indices, shown in the colours of the classes by its palette), NAME-overlay.png (those colours laid over the image) and
with --probabilities NAME.npz: `probabilities` f32[h,w,k] (k is 1, that of class 1, for a binary network) and `classes`.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config.command import run_command
from jaxseg.inference.images import find_images, name_outputs, predict_files
from jaxseg.run.load import Which, load_run


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.predict") -> int:
    """Runs the command line; returns the exit status: 1 where an image failed or nothing could be done.

    `program` is how the command is called, for the usage line.
    """
    parser = argparse.ArgumentParser(
        prog=program, description="Segment images with a trained network.", allow_abbrev=False
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the workdir of the training run")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="files, folders and globs")
    parser.add_argument("--out", metavar="DIR", default="preds", help="where the pictures are written (default preds)")
    parser.add_argument("--probabilities", action="store_true", help="also write NAME.npz with those of every class")
    parser.add_argument(
        "--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last"
    )
    options = parser.parse_intermixed_args(argv)
    return run_command(lambda: _predict(options))


def _predict(options: argparse.Namespace) -> int:
    out = expanded(options.out)
    paths, problems = find_images(options.images)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not paths:
        return 1
    names = name_outputs(paths, out)
    for path, name in names.items():
        if name != path.stem:
            print(f"{path} gives {name}.png, since another image is named {path.stem}.")
    run = load_run(options.workdir, options.which)
    compiler.keep_programs(run.config.compile.cache)
    failed = predict_files(run, names, out, options.probabilities)
    done = len(paths) - failed
    print(f"{done} of {len(paths)} images segmented by {run.config.model.name} after {run.step} steps.")
    if done:
        print(f"classes:       {out / 'NAME.png'} (class indices, coloured by a palette)")
        print(f"overlays:      {out / 'NAME-overlay.png'}")
    if done and options.probabilities:
        print(f"probabilities: {out / 'NAME.npz'}")
    return 1 if failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
