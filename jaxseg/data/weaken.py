"""Writes the training labels of few marks as masks, with the marks: from full masks, or from a file of annotations.

    python -m jaxseg.data.weaken --config FILE[:ARG] --config.data.dir=DIR --kind points|scribbles|boxes|tags --out OUT
    python -m jaxseg.data.weaken --config FILE[:ARG] --config.data.dir=DIR --config.data.annotations=FILE --out OUT

OUT gets masks/NAME.png (class indices, 255 where nothing is known), classes.json, and with --kind the marks themselves:
points.csv, scribbles.xml (CVAT), boxes.json (COCO) or tags.csv. With --crf a dense CRF refines the masks of boxes along
the edges of the image, and fills what lies between points or scribbles.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict, set_key
from jaxseg.config.command import parse_command_line, run_command
from jaxseg.config.parser import number_in
from jaxseg.data.base import Source
from jaxseg.data.classes_file import FILE, classes_text
from jaxseg.data.folders import drawing, with_annotations
from jaxseg.data.formats.writing import whole_folder
from jaxseg.data.images import PICTURES
from jaxseg.data.sources import make_source
from jaxseg.data.weak.made import Weaker
from jaxseg.data.weak.marks import AnnotatedImage
from jaxseg.data.weak.source import AnnotatedSource
from jaxseg.data.weak.weakened import WeakenedSource
from jaxseg.data.weak.writing import write_annotations
from jaxseg.errors import ArgumentError, ConfigError, counted
from jaxseg.files import write_text
from jaxseg.inference.crf import refine
from jaxseg.metrics import scores
from jaxseg.nn.crf import CRF
from jaxseg.pictures.images import save_image
from jaxseg.types import IGNORE

_CERTAINTY = 0.8


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.data.weaken") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    return run_command(lambda: _weaken(sys.argv[1:] if argv is None else argv, program))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write, which must not exist")
    parser.add_argument("--kind", choices=get_args(Weaker), help="the marks to make of full masks")
    parser.add_argument("--split", default="", help="the split (default: that of the training)")
    parser.add_argument("--seed", type=int, default=0, help="of what is random in the marks (default 0)")
    parser.add_argument("--images", action="store_true", help="write the images too, as PNG")
    parser.add_argument("--crf", metavar="CRF", default="", help="refine by a dense CRF: a preset or NAME=VALUE,...")
    parser.add_argument(
        "--certainty",
        type=number_in(0, 1, "a number between 0 and 1"),
        default=_CERTAINTY,
        metavar="P",
        help=f"probability of a label before the CRF (default {_CERTAINTY})",
    )


def _weaken(argv: Sequence[str], program: str) -> int:
    description = (__doc__ or "").partition("\n")[0]
    options, config = parse_command_line(argv, program, description, _add_options, workdir=False)
    out = expanded(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists already; give a folder that does not, so that no mask is replaced.")
    crf = _parsed(options.crf)
    compiler.keep_programs(config.compile.cache)
    source = _source(config, options)
    with whole_folder(out, "--out") as part:
        said = _write(part, source, options, crf)
    print(f"{said}\nwritten: {out}")
    return 0


def _parsed(crf: str) -> CRF | None:
    try:
        return CRF.parse(crf) if crf else None
    except ArgumentError as error:
        raise ConfigError(f"--crf: {error}") from error


def _source(config: ConfigDict, options: argparse.Namespace) -> WeakenedSource | AnnotatedSource:
    split = options.split or config.data.train_split
    data = config.data
    if data.multilabel:
        raise ConfigError("Marks are made of the one class of each pixel, and with data.multilabel there are several.")
    if options.images and (data.range or data.channels not in PICTURES):
        key = "data.range" if data.range else f"data.channels={data.channels}"
        raise ConfigError(f"--images writes pictures as PNG, and images of {key} are none; leave one of the two out.")
    annotated = bool(config.data.annotations)
    if annotated == bool(options.kind):
        raise ConfigError(
            "Give either --kind, for marks that are made of full masks, or --config.data.annotations=FILE, for those "
            "in a file."
        )
    if annotated and split != config.data.train_split:
        raise ConfigError(
            f"data.annotations is of the training split {config.data.train_split!r}, not of {split!r}; leave --split "
            "out."
        )
    for key in ("data.weaken", "data.fold"):
        set_key(config, key, "")
    if annotated:  # masks hold classes and 255 alone, whatever the loss can read
        return with_annotations(config, possible=False, unlabelled=False, strict=True)
    source = make_source(config, split)
    return WeakenedSource(source, options.kind, drawing(config, False), options.seed)


def _write(folder: Path, source: WeakenedSource | AnnotatedSource, options: argparse.Namespace, crf: CRF | None) -> str:
    """Writes everything into a folder; returns what there is to say about it."""
    listed, info = [], source.info
    k = len(info.classes)
    known = pixels = 0
    confusion = np.zeros((k, k), np.int64)
    for i in range(len(source)):
        weakened = isinstance(source, WeakenedSource)
        example = source.full[i] if weakened else source[i]
        image, full = example["image"], example["label"]
        label = source.weaker(i, full) if weakened else full
        if crf is not None:
            label = refined(image, label, k, crf, options.certainty, keep_background=source.how.outside)
        name = source.name(i)
        save_image(label, folder / "masks" / f"{name}.png")
        if options.images:
            save_image(_bytes(image), folder / "images" / f"{name}.png")
        known, pixels = known + int((label != IGNORE).sum()), pixels + label.size
        if weakened:
            size = (label.shape[0], label.shape[1])
            listed.append(AnnotatedImage(_file_of(source.full, i), size, source.marks(i, full)))
            both = (label != IGNORE) & (full != IGNORE)
            confusion += np.bincount(full[both].astype(int) * k + label[both], minlength=k * k).reshape(k, k)
    write_text(folder / FILE, classes_text(info.classes, info.colors))
    said = [f"{counted(len(source), 'mask')}, in which {known / max(pixels, 1):.2%} of the pixels have a label"]
    if isinstance(source, WeakenedSource):
        write_annotations(folder, source.kind, listed, info.classes)
        if known:
            right = np.trace(confusion) / confusion.sum()
            said.append(
                f"against the full masks: {right:.2%} of these are right, mIoU {scores(confusion).mean_iou:.2%}"
            )
    return "\n".join(said)


def refined(
    image: np.ndarray, label: np.ndarray, classes: int, crf: CRF, certainty: float, *, keep_background: bool
) -> np.ndarray:
    """Returns the labels u8[h,w] that a dense CRF makes of an image u8|u16[h,w,c] and few labels u8[h,w].

    A labelled pixel starts with the probability `certainty` of its class, the others sharing the rest, and an unknown
    one with equal probabilities of the classes that the image has.

    Args:
        image: the image.
        label: class indices or IGNORE.
        classes: k, at least 2.
        crf: the settings.
        certainty: between 0 and 1.
        keep_background: pixels of class 0 keep it, as those outside all boxes; False: all labelled pixels keep their
            class.
    """
    present = np.unique(label[label != IGNORE]).astype(int)
    if len(present) < 2:
        return np.where(label == IGNORE, present[0], label).astype(np.uint8) if len(present) else label
    shares = np.full((*label.shape, len(present)), 1 / len(present), np.float32)
    for place, c in enumerate(present):
        rest = (1 - certainty) / (len(present) - 1)
        shares[label == c] = np.where(np.arange(len(present)) == place, certainty, rest)
    found = present[refine(image, shares, crf).argmax(-1)]
    kept = label == 0 if keep_background else label != IGNORE
    return np.where(kept, label, found).astype(np.uint8)


def _file_of(source: Source, index: int) -> str:
    pairs = getattr(source, "pairs", None)  # the files of a folder keep their suffix
    return source.name(index) + (pairs[index].image.suffix if pairs else ".png")


def _bytes(image: np.ndarray) -> np.ndarray:
    image = (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image
    return image[..., 0] if image.shape[-1] == 1 else image


if __name__ == "__main__":
    sys.exit(main())
