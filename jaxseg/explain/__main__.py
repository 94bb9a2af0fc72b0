"""Shows what a trained network looks at, as a heat map over the image.

    python -m jaxseg.explain --workdir DIR IMAGES...
                             [--method grad-cam|saliency|smoothgrad|integrated-gradients|attention]
                             [--class NAME|INDEX] [--pixel Y,X | --box Y0,X0,Y1,X1] [--layer NAME] [--out explained/]
                             [--npz] [--faithfulness] [--sanity] [--which best|last]

explains the logits of a class over pixels: those predicted as the class, or --pixel, or --box (rows Y0 to Y1 - 1).
Without --class it is the class of the pixel, or the one that most pixels are predicted as. Each image gives
NAME-METHOD-CLASS.png, and with --npz the raw map f32[h,w] in NAME-METHOD-CLASS.npz. --faithfulness measures deletion
and insertion, --sanity how the map changes when the parameters of the network are randomised from the logits down.

    python -m jaxseg.explain --workdir DIR [IMAGES...] --method receptive-field [--pixel Y,X] [--samples N]

draws the effective receptive field of a pixel, by default the centre, beside the theoretical one: in each image, or
without IMAGES amid random inputs.

    python -m jaxseg.explain --workdir DIR --layers

lists the names for --layer.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config.command import run_command
from jaxseg.config.parser import CommandParser
from jaxseg.errors import DataError, OutOfMemoryError, printable
from jaxseg.explain.drawing import describe_field
from jaxseg.explain.explanation import Explanation, attention_modules, explain, faithfulness, layers, sanity
from jaxseg.explain.outputs import name_images, write_curves, write_explanation
from jaxseg.explain.question import METHODS
from jaxseg.inference.images import find_images
from jaxseg.run.load import Run, Which, load_run


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.explain") -> int:
    """Runs the command line; returns the exit status: 1 where an image failed or nothing could be done.

    `program` is how the command is called, for the usage line.
    """
    parser = _parser(program)
    options = parser.parse_intermixed_args(argv)
    if problem := _problem(options):
        parser.error(problem)
    return run_command(functools.partial(_list_layers if options.layers else _explain, options))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(prog=program, description="Show what a trained network looks at.")
    add = parser.add_argument
    add("--workdir", metavar="DIR", required=True, help="the workdir of the training run")
    add("images", metavar="IMAGES", nargs="*", help="files, folders and globs")
    add("--method", choices=METHODS, default="grad-cam", help="how it is explained (default grad-cam)")
    add("--class", dest="class_name", metavar="NAME|INDEX", help="the class (default: that of most pixels)")
    add("--pixel", metavar="Y,X", type=_numbers(2), help="row and column of one pixel of the image")
    add("--box", metavar="Y0,X0,Y1,X1", type=_numbers(4), help="rows Y0 to Y1 - 1 and columns X0 to X1 - 1")
    add("--layer", metavar="NAME", help="of grad-cam and attention; --layers lists them")
    add("--layers", action="store_true", help="list the names for --layer and end")
    add("--samples", metavar="N", type=int, default=25, help="of smoothgrad and receptive-field (default 25)")
    add("--steps", metavar="N", type=int, default=64, help="of integrated-gradients (default 64)")
    add("--seed", metavar="SEED", type=int, default=0, help="of everything random (default 0)")
    add("--out", metavar="DIR", default="explained", help="where the pictures are written (default explained)")
    add("--npz", action="store_true", help="also write the raw maps, NAME-METHOD-CLASS.npz")
    add("--faithfulness", action="store_true", help="also measure deletion and insertion, with their curves")
    add("--sanity", action="store_true", help="also randomise the parameters layer by layer, and compare the maps")
    add("--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last")
    return parser


def _numbers(count: int):
    def parse(text: str) -> tuple[int, ...]:
        try:
            values = tuple(int(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) != count:
            words = "row,column" if count == 2 else "top,left,bottom,right"
            raise argparse.ArgumentTypeError(f"{text!r} must be {count} whole numbers, {words}")
        return values

    return parse


def _problem(options: argparse.Namespace) -> str:
    """Returns what is wrong with the options together; "" if nothing is."""
    field = options.method == "receptive-field"
    if options.layers:
        return ""
    if not options.images and not field:
        return "the following arguments are required: IMAGES"
    if field and (options.class_name is not None or options.box is not None or options.layer is not None):
        return "--method receptive-field is about one pixel and all classes; it takes no --class, --box or --layer"
    if field and (options.faithfulness or options.sanity):
        return "--faithfulness and --sanity judge the explanation of a class; --method receptive-field explains none"
    return ""


def _list_layers(options: argparse.Namespace) -> int:
    run = load_run(options.workdir, options.which)
    if options.method != "attention":
        print("layers of --method grad-cam, with height x width x channels at the size of training:")
        for name, shape in layers(run).items():
            print(f"  {name:40} {' x '.join(map(str, shape))}")
    modules = attention_modules(run)
    print("layers of --method attention:" if modules else "The network has no attention over places.")
    for name in modules:
        print(f"  {name}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    out = expanded(options.out)
    found = find_images(options.images)
    paths, problems = found.paths, found.problems
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if options.images and not paths:
        return 1
    run = load_run(options.workdir, options.which)
    compiler.keep_programs(run.config.compile.cache)
    failed = 0
    images: list[tuple[Path | None, str]] = [*name_images(paths).items()] or [(None, "")]
    for path, name in images:
        try:
            _explain_one(run, path, name, out, options)
        except (DataError, OutOfMemoryError) as error:
            failed += 1
            where = "" if path is None or str(path) in str(error) else f"{path}: "
            print(printable(f"error: {where}{error}"), file=sys.stderr)
    return 1 if failed or problems else 0


def _explain_one(run: Run, path: Path | None, name: str, out: Path, options: argparse.Namespace) -> None:
    explanation = explain(
        run,
        path,
        method=options.method,
        class_name=options.class_name,
        pixel=options.pixel,
        box=options.box,
        layer=options.layer,
        samples=options.samples,
        steps=options.steps,
        seed=options.seed,
    )
    file = write_explanation(explanation, out, name, raw=options.npz)
    print(f"{file}: {_summary(explanation)}")
    if options.faithfulness:
        measured = faithfulness(run, explanation)
        drawn = write_curves(explanation, measured, out, name)
        print(
            f"  deletion area {measured.deletion_area:.3f} (lower is better), insertion area "
            f"{measured.insertion_area:.3f} (higher is better): {drawn}"
        )
    if options.sanity:
        found = sanity(run, explanation, seed=options.seed + 1, samples=options.samples, steps=options.steps)
        print("  rank correlation with the map of randomised parameters, from the logits down (near 0: it passes):")
        for group, correlation in found.items():
            print(f"    {group:30} {correlation:6.2f}")


def _summary(explanation: Explanation) -> str:
    question, numbers = explanation.question, explanation.numbers
    if question.method == "receptive-field":
        side = f"{numbers['effective']:.0f}"
        return f"{question.words}, effective {side} x {side} pixels, theoretical {describe_field(numbers)}"
    layer = f", layer {question.layer}" if question.layer else ""
    text = f"class {printable(question.class_name)}, {question.words}{layer}"
    if question.method == "integrated-gradients":
        off = abs(numbers["sum"] - numbers["difference"]) / max(abs(numbers["difference"]), 1e-12)
        text += f", attributions sum to the difference of the scores to {100 * off:.2g} %"
    if not explanation.map.any():
        text += "; the map is 0 everywhere: nothing in this layer speaks for the class"
    return text


if __name__ == "__main__":
    sys.exit(main())
