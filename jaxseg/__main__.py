"""The command `jaxseg`, also `python -m jaxseg`: one word for each program that `python -m jaxseg.X` starts too.

A further command is one line in `COMMANDS`. Its module has `main(argv, program) -> exit status`, where `program` is how
it is called, for its usage line; it is imported when it is asked for, so that `--help` and `--version` answer at once.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from jaxseg import __version__
from jaxseg.errors import nearest

# Name -> (module, what it does).
COMMANDS = {
    "plan": ("jaxseg.plan.__main__", "read a folder of images and masks, and write a configuration for it"),
    "train": ("jaxseg.train", "train a network from an experiment file, or resume its run"),
    "fit": ("jaxseg.fit", "say what a training step takes of the memory, and which steps fit"),
    "evaluate": ("jaxseg.evaluate", "score a split of the data with a trained network"),
    "predict": ("jaxseg.predict", "segment images with a trained network"),
    "report": ("jaxseg.report.__main__", "write a page about a run or a sweep: numbers, curves and images"),
    "compare": ("jaxseg.compare", "write a page that compares runs, paired by image"),
    "crf": ("jaxseg.crf", "find the settings of a dense CRF on a split of the data"),
    "explain": ("jaxseg.explain.__main__", "show what a trained network looks at, as a map over the image"),
    "audit": ("jaxseg.audit.__main__", "rank images and regions by how likely their label is wrong"),
    "propose": ("jaxseg.propose.__main__", "propose masks for images without labels, for a person to keep or reject"),
    "export": ("jaxseg.export.__main__", "write a trained network to one file: StableHLO or ONNX"),
    "publish": ("jaxseg.publish.__main__", "share a trained network: a folder or a repository, with a card"),
    "quantise": ("jaxseg.quantise", "write a trained network in whole numbers of 8 bits"),
    "sweep": ("jaxseg.sweep.__main__", "train and compare the variants of an ablation"),
    "reproduce": ("jaxseg.reproduce", "start a run again elsewhere and compare the curves"),
    "shrink": ("jaxseg.shrink", "remove channels of a trained network: a smaller one in a workdir of its own"),
    "models": ("jaxseg.models.__main__", "list the networks and encoders, or show what one costs"),
    "weaken": ("jaxseg.data.weaken", "write points, scribbles or boxes in place of full masks"),
    "convert": ("jaxseg.data.convert", "write data of other tools as a folder of images and masks"),
    "check": ("jaxseg.data.check", "read a whole data set and report what is wrong in it"),
}

FOLDS = "jaxseg.folds.__main__"
"""`jaxseg train --folds N`: many runs, on a floor above that of a single one."""

_OPTIONS = ("-h", "--help", "--version")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: that of the command, 2 where there is no such command."""
    parser = _parser()
    # Options after the command belong to it: they are not parsed here.
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    name, *rest = arguments
    if name == "help":
        name, *rest = [*rest, "--help"]
    if name.startswith("-"):
        if name not in _OPTIONS:
            print(f"error: There is no option {name}.{nearest(name, _OPTIONS)}", file=sys.stderr)
            return 2
        parser.parse_args([name])  # ends here
    if name not in COMMANDS:
        print(f"error: There is no command {name!r}.{nearest(name, COMMANDS)}", file=sys.stderr)
        return 2
    module = COMMANDS[name][0]
    if name == "train" and any(word.partition("=")[0] == "--folds" for word in rest):
        module = FOLDS
    return importlib.import_module(module).main(rest, f"jaxseg {name}")


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="jaxseg",
        usage="jaxseg COMMAND [ARGUMENT ...]",
        description="Semantic image segmentation in JAX and Flax.",
        epilog="\n".join(["commands:", *lines, "", "jaxseg COMMAND --help describes a command."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jaxseg {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
