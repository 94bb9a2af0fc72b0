"""Checks a whole data set: `jaxseg check FOLDER|FILE[:ARG] [--config.data.dir=DIR]`.

FOLDER holds images and masks, and is read as the recipe of folders does; FILE is the experiment whose data are read.

It reads every example of the training and validation split and prints what is wrong (files without a partner, masks of
another size, values outside the classes, unreadable files), what may be wrong (very rare classes, dark images, turned
images, images that are nearly the same in two splits, what may be frames of one video in two, masks that fit their
image better when they are mirrored or moved), the image sizes and values, and the share of each class. It also draws
masks over images in `check.png`, for a visual check. With --report FILE it writes a page with all that and with more
images, to sort and to filter; with --audit FILE the page shows what `jaxseg audit` holds for the likeliest wrong
labels. The exit code is 1 if anything is wrong.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict
from jaxseg.config.command import parse_command_line, run_command
from jaxseg.data.check_page import PROGRAM, check_page, suspects_of
from jaxseg.data.leaks import Place, about_leaks, find_leaks, name_of
from jaxseg.data.notes import collected
from jaxseg.data.survey import Report, about_classes, evenly_spaced, survey
from jaxseg.data.videos import about_videos
from jaxseg.data.weak.source import AnnotatedSource
from jaxseg.data.weak.weakened import WeakenedSource
from jaxseg.errors import ConfigError, counted, printable
from jaxseg.pages.frame import require_own_page, write_page
from jaxseg.pictures import noting_errors
from jaxseg.pictures.marks import require_own_figure

PICTURE = "check.png"
_SHOWN = 256  # rows up to which the table has every class


def describe(report: Report, config: ConfigDict) -> str:
    """Returns the sizes, values and class shares of a split as text."""
    if not report.images:
        return f"{report.split}: no image could be read."
    shown = report.sizes.most_common(5)
    sizes = ", ".join(f"{h} x {w} ({count})" for (h, w), count in shown)
    more = f" and {counted(len(report.sizes) - len(shown), 'other size')}" if len(report.sizes) > len(shown) else ""
    lines = [f"{report.split}: {counted(report.images, 'image')} read; height x width: {sizes}{more}"]
    mean, std = (", ".join(f"{v:.3f}" for v in values) for values in report.mean_and_std)
    found = report.largest.items()
    largest = ", ".join(f"{value} of {2**bits - 1}" if bits else f"{value:.3g}" for bits, value in found)
    given = f"data.mean {_numbers(config.data.mean)}, data.std {_numbers(config.data.std)}"
    lines.append(f"  images in [0, 1]: mean {mean}; std {std}; largest value {largest} ({given})")
    if report.unlabelled:
        lines.append(f"  {len(report.unlabelled)} of them without labels")
    if report.keeping is not None:
        lines.append(f"  {report.keeping} of them keep their labels (data.labelled={config.data.labelled})")
    if report.joining:
        lines.append(f"  {counted(report.joining, 'proposal')} of {config.data.proposals} join (data.proposals)")
    assert report.source is not None
    if isinstance(report.source, AnnotatedSource):
        lines.append(f"  {report.source.summary()}")
    if isinstance(report.source, AnnotatedSource | WeakenedSource):
        known = 1 - report.pixels[-1] / report.pixels.sum()
        lines.append(f"  {known:.2%} of the pixels have a label")
    without = ["(no class)"] if report.source.info.multilabel else []
    names = [*map(printable, report.source.info.classes), *without, "(ignored)"]
    values = [*range(len(names) - 1), -1]
    if len(names) > _SHOWN:
        occur = [(n, v) for n, v in zip(names, values) if report.pixels[v] or v < 0]
        lines.append(f"  {len(occur) - 1} of {counted(len(names) - 1, 'class')} occur, the others are not listed")
        names, values = [n for n, _ in occur], [v for _, v in occur]
    width = max(map(len, ["class", *names]))
    partly = report.source.info.partly  # then a class is counted among the pixels at which it is known
    total = sum(h * w * count for (h, w), count in report.sizes.items())
    more = f"  {'unknown':>13}" if partly else ""
    lines.append(f"  {'class':<{width}}  {'pixels':>13}  {'share':>7}  {'images':>7}{more}")
    for name, value in zip(names, values):
        pixels, among = report.pixels[value], report.among[value]
        share = f"{pixels / among:>7.2%}" if among else f"{'-':>7}"
        note = "" if pixels or value < 0 else "  never occurs" if among else "  never known"
        more = f"  {total - among:>13}" if partly else ""
        lines.append(f"  {name:<{width}}  {pixels:>13}  {share}  {report.present[value]:>7}{more}{note}")
    if partly:
        lines.append("  shares are of the pixels at which the class is known")
    return "\n".join(lines)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)


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
    indices = [report.readable[i] for i in evenly_spaced(report.images, count)]
    examples = [report.kept[i] if i in report.kept else report.source[i] for i in indices]
    info = report.source.info
    overlay_sheet(
        [e["image"] for e in examples],
        [e["label"] for e in examples],
        info.colors,
        info.classes,
        path,
        names=[f"{report.split}: {report.source.name(i)}" for i in indices],
        multilabel=info.multilabel,
    )


def about_splits(reports: Sequence[Report]) -> list[str]:
    """Returns sentences about images that are nearly the same as a training image, and videos that splits may share."""
    of_split = {report.split: report for report in reports if report.source is not None}

    def name(place: Place) -> str:
        report = of_split[place[0]]
        assert report.source is not None
        return name_of(report.source, report.readable[place[1]])

    names = {s: [r.source.name(i) for i in r.readable] for s, r in of_split.items() if r.source is not None}
    leaks = find_leaks({split: report.sketches for split, report in of_split.items()})
    return [
        *about_leaks(leaks, name),
        *about_videos(names, {split: report.sketches for split, report in of_split.items()}),
    ]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--splits", default="", metavar="A,B", help="splits to read (default: training and validation)")
    parser.add_argument(
        "--out", default=PICTURE, metavar="FILE", help=f"the picture, or its folder (default {PICTURE})"
    )
    parser.add_argument("--report", metavar="FILE", help="also write a page, FILE.html, to open in a browser")
    parser.add_argument(
        "--audit", metavar="FILE", help="of --report: audit.csv of jaxseg audit, whose likeliest wrong labels are shown"
    )
    parser.add_argument("--images", type=int, default=12, metavar="N", help="examples in the picture (default 12)")


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.data.check") -> int:
    """Runs the command line; returns the exit status, 0 if nothing is wrong and 1 otherwise.

    `program` is how the command is called.
    """
    return run_command(lambda: _check(sys.argv[1:] if argv is None else argv, program))


def _check(argv: Sequence[str], program: str) -> int:
    description = (__doc__ or "").partition("\n")[0]
    options, config = parse_command_line(argv, program, description, _add_options, workdir=False, data=True)
    out = expanded(options.out)
    if out.is_dir() or options.out.endswith("/"):
        out = out / PICTURE
    if options.images > 0:
        require_own_figure(out, "give another file with --out")
    page = None if options.report is None else expanded(options.report)
    if options.audit is not None and page is None:
        raise ConfigError("--audit shows likely wrong labels on the page; give --report FILE.html too.")
    suspects = {} if options.audit is None else suspects_of(expanded(options.audit))
    if page is not None and config.data.multilabel:
        raise ConfigError("--report shows the one class of each pixel, of which data.multilabel allows several.")
    if page is not None:
        require_own_page(page, PROGRAM, "give another file with --report")
    splits = [s for s in options.splits.split(",") if s] or [config.data.train_split, config.data.val_split]
    with collected() as notes:
        # The picture is of the first split that has images.
        reports = [survey(config, s, 0 if i else options.images) for i, s in enumerate(dict.fromkeys(splits))]
    for report in reports:
        if report.images:
            print(describe(report, config))
    drawn = next((report for report in reports if report.images), None)
    if drawn is not None and options.images > 0:
        try:
            with noting_errors(out):  # what was found wrong is still printed
                draw(drawn, out, options.images)
                print(f"Masks over images of {drawn.split}, to look at: {out}")
        except OSError as error:
            print(f"error: --out {out} cannot be written: {error.strerror or error}.", file=sys.stderr)
            return 1
    found = [remark for report in reports for remark in report.remarks]
    remarks = list(dict.fromkeys([*found, *notes, *about_classes(reports), *about_splits(reports)]))
    if page is not None:
        write_page(page, check_page(reports, config, remarks, suspects), PROGRAM, "give another file with --report")
        print(f"A page to open in a browser: {page}")
    if remarks:
        print("To look at:", *map(printable, group(remarks)), sep="\n  ")
    problems = list(dict.fromkeys(problem for report in reports for problem in report.problems))
    if problems:
        sys.stdout.flush()
        print(f"{counted(len(problems), 'problem')}:", *map(printable, group(problems)), sep="\n  ", file=sys.stderr)
        for report in reports:  # last, after their cause
            if not report.images:
                print(describe(report, config))
        return 1
    print("Nothing is wrong." if not remarks else "Every file can be used; look at the points above before training.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
