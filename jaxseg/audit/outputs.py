"""The files of an audit: the tables, the pictures, the suggested masks and the maps of pixels."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg import pictures
from jaxseg.audit.auditing import Audit, ImageRow
from jaxseg.audit.regions import Doubt, suggested_label
from jaxseg.audit.scores import ImageScores, PixelScores, pixel_scores
from jaxseg.errors import ConfigError, printable
from jaxseg.files import names_in_npz, write_atomically
from jaxseg.losses.possible import known_array
from jaxseg.pictures import marks

IMAGES, REGIONS, SHEET = "audit.csv", "regions.csv", "sheet.png"
MARK = "jaxseg audit"
"""The text under "Software" in the pictures, by which the command recognises its own."""
IMAGE_COLUMNS = ("image", *ImageScores._fields, "judges")
REGION_COLUMNS = (
    *("image", "score", "given", "suggested", "kind", "area", "probability"),
    *("top", "left", "bottom", "right"),
)
MAPS = ("probability", "margin", "odds", "doubted")
_LINES = 20
"""Regions that are outlined in a picture."""


class Shown(NamedTuple):
    """What is drawn and written of one image."""

    row: ImageRow
    doubts: list[Doubt]
    image: np.ndarray
    label: np.ndarray
    pixels: PixelScores


def write_audit(
    found: Audit, out: Path, *, top: int = 12, suggest: bool = False, maps: bool = False
) -> dict[str, Path]:
    """Writes an audit into a folder; returns {what: file or folder}.

    audit.csv and regions.csv have a line for each image and region, the likeliest wrong first; sheet.png shows the
    first `top` images, and pictures/ each of them alone.

    Args:
        found: the audit.
        out: the folder.
        top: how many images are drawn.
        suggest: also write the suggested mask of each image that is drawn, masks/NAME.png, with the values that the
            masks of the data have.
        maps: also write its maps of pixels, maps/NAME.npz with probability, margin, odds f16[h,w] and doubted u8[h,w].

    Raises:
        ConfigError: if a file cannot be written, or would replace one that no audit wrote.
    """
    chosen = found.images[:top]
    stems = {row.index: f"{i:04d}-{_file_name(row.name)}" for i, row in enumerate(chosen, 1)}
    folders = {"pictures": ".png", **({"masks": ".png"} if suggest else {}), **({"maps": ".npz"} if maps else {})}
    require_own(out, [out / kind / f"{stem}{suffix}" for kind, suffix in folders.items() for stem in stems.values()])
    written = {"images": out / IMAGES, "regions": out / REGIONS, "sheet": out / SHEET}
    try:
        _write_table(out / IMAGES, IMAGE_COLUMNS, _image_lines(found))
        _write_table(out / REGIONS, REGION_COLUMNS, _region_lines(found))
        drawn: list[list[np.ndarray]] = []
        captions, labels = [], []
        for shown in _shown(found, chosen):
            stem, cells = stems[shown.row.index], draw(found, shown)
            drawn.append(cells)
            captions.append(_captions(found, shown))
            labels.append(shown.label)
            picture = pictures.grid(cells, columns=len(cells), least=256)
            pictures.save_image(picture, out / "pictures" / f"{stem}.png", software=MARK)
            if suggest:
                mask = _stored(found, suggested_label(shown.pixels, shown.label))
                pictures.save_image(mask, out / "masks" / f"{stem}.png", software=MARK)
            if maps:
                _write_maps(out / "maps" / f"{stem}.npz", shown.pixels)
        run = found.judges.runs[0]
        pictures.doubt_sheet(drawn, captions, labels, run.colors, tuple(map(printable, run.classes)), out / SHEET)
    except OSError as error:
        raise ConfigError(f"The audit cannot be written to {out}: {error.strerror or error}.") from error
    return written | {kind: out / kind for kind in folders}


def draw(found: Audit, shown: Shown) -> list[np.ndarray]:
    """Returns the pictures u8[h,w,3] of an image: its doubted regions outlined, its label, and the label suggested."""
    colors, numbers = found.judges.runs[0].colors, np.zeros(shown.label.shape, np.int32)
    for i, doubt in enumerate(reversed(shown.doubts[:_LINES]), 1):  # the likeliest on top
        numbers[doubt.top : doubt.bottom, doubt.left : doubt.right][doubt.mask] = i
    suggested = suggested_label(shown.pixels, shown.label)
    return [
        pictures.outlines(shown.image, numbers),
        pictures.overlay(shown.image, shown.label, colors, 0.55),
        pictures.overlay(shown.image, suggested, colors, 0.55),
    ]


def require_own(out: Path, files: Sequence[Path]) -> None:
    """Raises ConfigError if a file of an audit would replace one that none wrote."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder.")
    tables = ((out / IMAGES, IMAGE_COLUMNS), (out / REGIONS, REGION_COLUMNS))
    foreign = [file for file, columns in tables if file.is_file() and not _is_table(file, columns)]
    for file in files:
        if file.is_file():
            own = _holds_maps(file) if file.suffix == ".npz" else marks.software(file) == MARK
            foreign += [] if own else [file]
    if foreign:
        raise ConfigError(
            f"The output {foreign[0]} would replace a file that jaxseg audit did not write; give another --out."
        )
    marks.require_own_figure(out / SHEET, "give another --out")


def _shown(found: Audit, rows: Sequence[ImageRow]) -> Iterator[Shown]:
    """Yields what is shown of some images, which are segmented once more."""
    doubts: dict[int, list[Doubt]] = defaultdict(list)
    for region in found.regions:
        doubts[region.index].append(region.doubt)
    for row in rows:
        example = found.source[row.index]
        image, label = (
            np.asarray(example["image"]),
            known_array(np.asarray(example["label"]), len(found.source.info.classes)),
        )
        shares = found.judges.probabilities(image, found.judges.of(row.name))
        yield Shown(row, doubts[row.index], image, label, pixel_scores(shares, label, found.thresholds))


def _captions(found: Audit, shown: Shown) -> list[str]:
    s = shown.row.scores
    what = found.words(shown.doubts[0]) if shown.doubts else ""
    moved = f"fits better moved by {s.down:+d}, {s.right:+d}" if s.shift > s.relabelling / 2 else ""
    return list(map(printable, (Path(shown.row.name).name, moved or what, f"score {s.score:.2f}")))


def _image_lines(found: Audit) -> Iterator[list[str]]:
    for row in found.images:
        yield [row.name, *map(_number, row.scores), str(row.judges)]


def _region_lines(found: Audit) -> Iterator[list[str]]:
    names = found.classes
    for row in found.regions:
        d = row.doubt
        box = (d.top, d.left, d.bottom, d.right)
        words = (names[d.given], names[d.suggested], d.kind)
        yield [row.name, _number(d.score), *words, str(d.area), _number(d.probability), *map(str, box)]


def _number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else "" if np.isnan(value) else f"{value:.6g}"


def _write_table(file: Path, columns: Sequence[str], lines: Iterator[list[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    write_atomically(file, lambda stream: stream.write(text.getvalue().encode("utf-8", "surrogateescape")))


def _write_maps(file: Path, pixels: PixelScores) -> None:
    maps: dict[str, Any] = {name: getattr(pixels, name) for name in MAPS}
    halves = {
        name: values.astype(np.float16) if values.dtype == np.float32 else values for name, values in maps.items()
    }
    write_atomically(file, lambda stream: np.savez_compressed(stream, **halves))


def _stored(found: Audit, label: np.ndarray) -> np.ndarray:
    """Returns a label in the values of the masks of the data, or in its colours."""
    info = found.source.info
    if info.color_masks:
        return pictures.colorize(label, info.colors)
    table = np.full(256, 255, np.uint8 if max(info.stored_values) < 256 else np.uint16)
    table[: len(info.stored_values)] = info.stored_values
    return table[label]


def _file_name(name: str) -> str:
    """Returns the last part of the name of an image, short enough for a file."""
    return Path(name).name[:120] or "image"


def _is_table(file: Path, columns: Sequence[str]) -> bool:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().rstrip("\n") == ",".join(columns)


def _holds_maps(file: Path) -> bool:
    return names_in_npz(file) == set(MAPS)
