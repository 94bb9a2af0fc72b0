"""Writes a trained network to one file that runs without jaxseg.

    python -m jaxseg.export --workdir DIR --out FILE [--format stablehlo|onnx] [--probabilities] [--which best|last]
                            [--dtype float32|float16|int8] [--size HxW | --tiles HxW [--overlap X]]

    python -m jaxseg.export --workdir DIR --out FILE --format smp|torchvision|transformers [--which best|last]

FILE ends in .stablehlo or .onnx. Its program takes `image` u8[b,h,w,c] of any batch, height and width, and returns
`classes` u8[b,h,w] and with --probabilities `probabilities` f32[b,h,w,k] at the size of the image, as
`jaxseg.predict` does. The names and colours of the classes are inside.

With the name of a library FILE, which ends in .safetensors or .pth, holds the weights of its network of the same form:
the `state_dict` that segmentation_models.pytorch, torchvision or transformers loads.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import get_args

from jaxseg.config.command import run_command
from jaxseg.config.parser import CommandParser
from jaxseg.errors import ConfigError, counted
from jaxseg.export.peer import PEERS, export_peer
from jaxseg.export.writing import CALIBRATION, FORMATS, Dtype, export_run
from jaxseg.run.load import Which, load_run


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.export") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    options = _parser(program).parse_args(argv)
    return run_command(lambda: _export(options))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description="Write a trained network to one file that runs without jaxseg.",
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the workdir of the training run")
    parser.add_argument("--out", metavar="FILE", required=True, help="the file: .stablehlo or .onnx, or .safetensors")
    parser.add_argument(
        "--format",
        choices=(*FORMATS, *PEERS),
        help="the format (default: by the suffix of FILE); a library: the weights alone, as its network loads them",
    )
    parser.add_argument("--probabilities", action="store_true", help="the program also returns those of every class")
    parser.add_argument(
        "--dtype",
        choices=get_args(Dtype),
        help="what the network computes in (default: as the run, with ONNX float32); int8 is of ONNX alone and reads "
        f"{CALIBRATION} images of the validation split",
    )
    parser.add_argument(
        "--which", choices=get_args(Which), default="best", help="checkpoint: best by validation mIoU, or last"
    )
    parser.add_argument(
        "--size",
        metavar="HxW",
        type=_size,
        help="for a network whose layers depend on the size of the image (data.fit=crop): the size that the program "
        "resizes every image to before the network",
    )
    parser.add_argument(
        "--tiles",
        metavar="HxW",
        help="the network sees every image in overlapping tiles of this height and width, at the image's own scale",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.5,
        metavar="X",
        help="the share of the side of a tile that is in the next too (default: %(default)s)",
    )
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH in pixels, such as 512x512, got {text!r}")
    return int(match[1]), int(match[2])


def _export(options: argparse.Namespace) -> int:
    if options.format in PEERS:
        return _export_peer(options)
    run = load_run(options.workdir, options.which)
    written = export_run(
        run,
        options.out,
        format=options.format,
        probabilities=options.probabilities,
        size=options.size,
        tiles=options.tiles,
        overlap=options.overlap,
        dtype=options.dtype,
    )
    about = written.about
    seen = "at the size of the image"
    if about["resized_to"] is not None:
        seen = f"at {'x'.join(map(str, about['resized_to']))}, to which the image is resized"
    elif about["tiles"] is not None:
        seen = f"in tiles of {'x'.join(map(str, about['tiles']))}, every {'x'.join(map(str, about['steps']))} pixels"
    more = f", probabilities f32[b,h,w,{run.num_classes}]" if options.probabilities else ""
    print(f"{written.path}: {about['model']} after {counted(about['step'], 'step')}, {written.bytes / 1e6:.1f} MB")
    kind = "u8" if about["image_type"] == "uint8" else "f32"
    print(f"input:   image {kind}[b,h,w,{about['channels']}] of any batch, height and width")
    print(f"network: in {about['dtype']}, {seen}")
    print(f"output:  classes u8[b,h,w]{more}")
    return 0


def _export_peer(options: argparse.Namespace) -> int:
    for name in ("probabilities", "dtype", "size", "tiles"):
        if getattr(options, name):
            raise ConfigError(f"--{name} is for a program; --format {options.format} writes weights alone.")
    run = load_run(options.workdir, options.which)
    written = export_peer(run, options.out, options.format)
    config, library = run.config, PEERS[options.format]
    print(f"{written.path}: {counted(written.entries, 'entry')} for {library}, {written.bytes / 1e6:.1f} MB")
    print(f"network: its {config.model.name} of {counted(run.num_classes, 'class')}")
    if written.settings:
        print(f"sizes:   other than its defaults, in our words: {', '.join(written.settings)}")
    print(f"images:  in [0, 1], minus {tuple(config.data.mean)}, divided by {tuple(config.data.std)}")
    if not written.strict:
        print("load:    with strict=False, since its encoder keeps stages that the network does not use")
    return 0


if __name__ == "__main__":
    sys.exit(main())
