"""Writes data of another form as a folder of images and masks: `jaxseg convert SOURCE DESTINATION [--format FORMAT]`.

    jaxseg convert SOURCE DESTINATION [--format auto|coco|labelme|cvat|labelstudio|via|supervisely|cityscapes|instances
                   |masks|rgb|csv|webdataset|tiffstack] [--images DIR] [--classes A,B,C] [--boxes]
                   [--outside background|ignore] [--ignore NAMES] [--palette FILE] [--tolerance 24]

SOURCE is a folder or a file. DESTINATION gets images/ and masks/ (in a folder for each split of the data) and
classes.json, unlabelled/ with the images that nobody has labelled, and not-converted.csv with everything that is not
in the masks, and why. The exit status is 1 if there is such a file. docs/formats.md has what is read of each form.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxseg.arguments import expanded
from jaxseg.config.command import run_command
from jaxseg.config.parser import CommandParser
from jaxseg.data.formats.collection import Collection, Options
from jaxseg.data.formats.forms import FORMS, read_form
from jaxseg.data.formats.writing import NOT_CONVERTED, UNLABELLED, Written, whole_folder, write_collection
from jaxseg.data.notes import collected
from jaxseg.errors import ConfigError, counted, printable, some
from jaxseg.pictures.opening import allow_pixels

_SHOWN = 5  # of what is not converted


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.data.convert") -> int:
    """Runs the command line; returns the exit status: 0 where everything was converted, else 1.

    `program` is how the command is called, for the usage line.
    """
    return run_command(lambda: _convert(_parser(program).parse_args(argv)))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(prog=program, description="Write data of another form as a folder of images and masks.")
    parser.add_argument("source", metavar="SOURCE", help="the folder or the file to read")
    parser.add_argument("destination", metavar="DESTINATION", help="the folder to write, which must not exist")
    parser.add_argument("--format", choices=FORMS, default="auto", help="the form of SOURCE (default auto: look)")
    parser.add_argument("--images", metavar="DIR", help="where the images are, if not beside the annotations")
    parser.add_argument("--classes", metavar="NAMES", default="", help="the classes in their order, with commas")
    parser.add_argument("--boxes", action="store_true", help="fill boxes with their class; else they are ignored")
    parser.add_argument(
        "--outside",
        choices=("background", "ignore"),
        default="background",
        help="what is outside all objects (default background, the class 0)",
    )
    parser.add_argument("--ignore", metavar="NAMES", default="__ignore__", help="classes that are ignored, with commas")
    parser.add_argument("--palette", metavar="FILE", help="table of the colours of the classes, for masks of colours")
    parser.add_argument(
        "--tolerance",
        metavar="D",
        type=_distance,
        default=24.0,
        help="distance in RGB up to which a colour stands for the nearest class (default 24; 0: exact)",
    )
    parser.add_argument("--max-pixels", metavar="N", type=int, default=0, help="largest number of pixels of an image")
    return parser


def _distance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 442:
        raise argparse.ArgumentTypeError(f"must be a distance from 0 to 442, got {text}")
    return value


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _convert(options: argparse.Namespace) -> int:
    source, out = expanded(options.source), expanded(options.destination)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"DESTINATION {out} exists already; give a folder that does not: nothing is replaced.")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"DESTINATION {out} lies in SOURCE {source}; give a folder elsewhere.")
    allow_pixels(options.max_pixels)
    how = Options(
        images=expanded(options.images) if options.images else None,
        classes=_words(options.classes),
        palette=expanded(options.palette) if options.palette else None,
        tolerance=options.tolerance,
        boxes=options.boxes,
        outside=options.outside,
        ignored=_words(options.ignore),
    )
    if how.images is not None and not how.images.is_dir():
        raise ConfigError(f"--images {how.images} is no folder.")
    with collected() as notes:
        collection = read_form(source, options.format, how)
        with whole_folder(out, "DESTINATION") as folder:
            written = write_collection(collection, folder)
    _say(collection, written, out, notes)
    return 1 if written.lost else 0


def _say(collection: Collection, written: Written, out: Path, notes: Sequence[str]) -> None:
    total = sum(written.images.values())
    by_split = ", ".join(f"{counted(n, 'image')} in {split}" for split, n in sorted(written.images.items()) if split)
    print(f"{collection.form}: {counted(total, 'image')} with masks{f' ({by_split})' if by_split else ''}.")
    print(printable(f"classes: {some(collection.classes)} ({counted(len(collection.classes), 'class')})"))
    if written.unlabelled:
        print(f"{counted(written.unlabelled, 'image')} without labels in {out / UNLABELLED} (data.unlabelled).")
    for sentence in (*collection.remarks, *notes):
        print(printable(sentence))
    print(f"written: {out}")
    if written.lost:
        print(f"{counted(len(written.lost), 'entry')} not converted, listed in {out / NOT_CONVERTED}:", file=sys.stderr)
        for lost in written.lost[:_SHOWN]:
            print(printable(f"  {lost.file}, {lost.what}: {lost.why}"), file=sys.stderr)
        if len(written.lost) > _SHOWN:
            print(f"  ... and {len(written.lost) - _SHOWN} more", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
