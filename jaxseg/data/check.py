"""Checks a whole data set: `python -m jaxseg.data.check --config FILE[:ARG] [--config.data.dir=DIR]`.

It reads every example of the training and validation split and prints what is wrong (files without a partner, masks of
another size, values outside the classes, unreadable files), the image sizes and the share of each class. It also draws
masks over images in `check.png`, for a visual check. The exit code is 1 if anything is wrong.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict
from jaxseg.config.command import parse_command_line, run_command
from jaxseg.data.base import Source
from jaxseg.data.folder import FolderSource
from jaxseg.data.sources import make_source
from jaxseg.errors import DataError, printable
from jaxseg.types import IGNORE


@dataclass
class Report:
    """The contents of a split.

    Attributes:
        split: its name.
        images: how many examples could be read.
        problems: one sentence for each thing that is wrong.
        sizes: how many images have each (height, width).
        pixels: i64[256], pixels of each label value; IGNORE at 255.
        present: i64[256], images in which each label value occurs.
        readable: indices of the examples that could be read.
        source: the split itself; None if it could not be opened.
    """

    split: str
    images: int = 0
    problems: list[str] = field(default_factory=list)
    sizes: Counter = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    present: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    readable: list[int] = field(default_factory=list)
    source: Source | None = None


def check_split(config: ConfigDict, split: str) -> Report:
    """Reads all examples of one split of the data of `config`."""
    report = Report(split)
    try:
        source = report.source = make_source(config, split, strict=False)
    except DataError as error:
        report.problems.append(str(error))
        return report
    if isinstance(source, FolderSource):
        report.problems.extend(source.problems)

    def read(index: int) -> tuple[tuple[int, ...], np.ndarray] | DataError:
        try:
            label = source[index]["label"]
        except DataError as error:
            return error
        return label.shape, np.bincount(label.ravel(), minlength=256)

    with ThreadPoolExecutor() as pool:
        for index, result in enumerate(pool.map(read, range(len(source)))):
            if isinstance(result, DataError):
                report.problems.append(str(result))
                continue
            size, counts = result
            report.readable.append(index)
            report.sizes[size] += 1
            report.pixels += counts
            report.present += counts > 0
            if counts[IGNORE] == counts.sum():
                report.problems.append(f"Every pixel of {source.name(index)} ({split}) is ignored.")
    report.images = len(report.readable)
    return report


def describe(report: Report) -> str:
    """Returns the sizes and class shares of a split as text."""
    if not report.images:
        return f"{report.split}: no image could be read"
    shown = report.sizes.most_common(5)
    sizes = ", ".join(f"{h} x {w} ({count})" for (h, w), count in shown)
    more = f" and {len(report.sizes) - len(shown)} other sizes" if len(report.sizes) > len(shown) else ""
    lines = [f"{report.split}: {report.images} images read; height x width: {sizes}{more}"]
    assert report.source is not None
    names = [*map(printable, report.source.info.classes), "(ignored)"]
    values = [*range(len(names) - 1), IGNORE]
    width = max(map(len, ["class", *names]))
    total = report.pixels.sum()
    lines.append(f"  {'class':<{width}}  {'pixels':>13}  {'share':>7}  {'images':>7}")
    for name, value in zip(names, values):
        share, note = report.pixels[value] / total, "" if report.pixels[value] or value == IGNORE else "  never occurs"
        lines.append(f"  {name:<{width}}  {report.pixels[value]:>13}  {share:>7.2%}  {report.present[value]:>7}{note}")
    return "\n".join(lines)


def group(problems: Sequence[str], shown: int = 3) -> list[str]:
    """Returns the problems grouped by cause: `shown` of each group and how many more there are.

    Sentences with the same cause differ only in the files and numbers that they name.
    """
    causes: dict[str, list[str]] = {}
    for problem in problems:
        causes.setdefault(re.sub(r"\S*[/\\]\S*|\d+", "", problem), []).append(problem)
    lines = []
    for sentences in causes.values():
        lines += sentences[:shown]
        if len(sentences) > shown:
            lines.append(f"... and {len(sentences) - shown} more of this kind")
    return lines


def draw(report: Report, path: str | Path, count: int) -> None:
    """Saves `count` examples, evenly spaced over the split, with their masks laid over them."""
    from jaxseg.pictures import overlay_sheet

    assert report.source is not None
    steps = np.linspace(0, report.images - 1, min(count, report.images)).round().astype(int)
    indices = [report.readable[i] for i in steps]
    examples = [report.source[i] for i in indices]
    info = report.source.info
    overlay_sheet(
        [e["image"] for e in examples],
        [e["label"] for e in examples],
        info.colors,
        info.classes,
        path,
        names=[f"{report.split}: {report.source.name(i)}" for i in indices],
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--splits", default="", metavar="A,B", help="splits to read (default: training and validation)")
    parser.add_argument("--out", default="check.png", metavar="FILE", help="the picture (default check.png)")
    parser.add_argument("--images", type=int, default=12, metavar="N", help="examples in the picture (default 12)")


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.data.check") -> int:
    """Runs the command line; returns the exit status, 0 if nothing is wrong and 1 otherwise.

    `program` is how the command is called.
    """
    return run_command(lambda: _check(sys.argv[1:] if argv is None else argv, program))


def _check(argv: Sequence[str], program: str) -> int:
    description = (__doc__ or "").partition("\n")[0]
    options, config = parse_command_line(argv, program, description, _add_options, workdir=False)
    splits = [s for s in options.splits.split(",") if s] or [config.data.train_split, config.data.val_split]
    reports = [check_split(config, split) for split in dict.fromkeys(splits)]
    for report in reports:
        print(describe(report))
    out = expanded(options.out)
    drawn = next((report for report in reports if report.images), None)
    if drawn is not None and options.images > 0:
        try:
            draw(drawn, out, options.images)
            print(f"Masks over images of {drawn.split}, to look at: {out}")
        except OSError as error:
            print(f"error: --out {out} cannot be written: {error}.", file=sys.stderr)
            return 1
        except Exception as error:  # whatever a drawing library raises; what was found wrong is still printed
            print(f"note: the picture {out} cannot be drawn: {error}.", file=sys.stderr)
    problems = list(dict.fromkeys(problem for report in reports for problem in report.problems))
    if problems:
        word = "problem" if len(problems) == 1 else "problems"
        print(f"{len(problems)} {word}:", *map(printable, group(problems)), sep="\n  ", file=sys.stderr)
        return 1
    print("Nothing is wrong.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
