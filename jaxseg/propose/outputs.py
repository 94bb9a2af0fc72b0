"""The files of a proposal: masks, confidence maps, the table and the page on which a person decides."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxseg import pictures
from jaxseg.data.images import read_image
from jaxseg.data.proposals import (
    COLUMNS,
    DECISIONS,
    MADE_BY,
    PAGE,
    TABLE,
    Decision,
    Row,
    digest_of,
    read_decisions,
    read_proposed,
)
from jaxseg.data.proposals import read_table as read_rows
from jaxseg.errors import ConfigError, DataError
from jaxseg.files import write_atomically, write_text
from jaxseg.inference.images import cut_stem
from jaxseg.inference.outputs import labels_picture
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.segment import Segmentation
from jaxseg.pages.frame import is_page
from jaxseg.pictures import marks
from jaxseg.propose.page import PROGRAM, Card, make_page
from jaxseg.propose.proposing import Ranked
from jaxseg.run.load import Run


@dataclass(frozen=True)
class Earlier:
    """What earlier calls left in the folder.

    Attributes:
        rows: the lines of the table whose proposals were kept or rejected: these stay as they are.
        decisions: all that was decided.
    """

    rows: tuple[Row, ...] = ()
    decisions: Mapping[str, Decision] = field(default_factory=dict)

    @property
    def images(self) -> set[Path]:
        """The images that were decided about."""
        return {row.image.resolve() for row in self.rows}


def read_earlier(out: Path, classes: Sequence[str]) -> Earlier:
    """Returns what earlier calls left in a folder.

    Raises:
        ConfigError: if the folder is a file, it holds files that `jaxseg propose` did not write, or decisions about
            masks of other classes.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder.")
    if (out / PAGE).is_file() and not is_page(out / PAGE, PROGRAM):
        raise _foreign(out / PAGE)
    if not (out / TABLE).is_file():
        if (out / DECISIONS).exists():
            raise ConfigError(
                f"{out} holds {DECISIONS}, but no {TABLE} that it decides about; give another --out, or delete it."
            )
        return Earlier()
    try:
        rows = read_rows(out)
    except DataError as error:
        raise _foreign(out / TABLE) from error
    if not (out / DECISIONS).exists():
        return Earlier()
    try:
        of_masks, decisions = read_decisions(out)
    except DataError as error:
        raise ConfigError(f"{error} Move it away, or give another --out.") from error
    if of_masks != tuple(classes):
        raise ConfigError(
            f"{out / DECISIONS} is about masks of the classes {', '.join(of_masks)}, and the run has "
            f"{', '.join(classes)}; give another --out."
        )
    return Earlier(tuple(row for row in rows if row.name in decisions and decisions[row.name].decision), decisions)


def name_proposals(ranked: Iterable[Ranked], roots: Mapping[Path, Path], taken: Iterable[str]) -> list[str]:
    """Returns the NAME of each: its stem, with the sub-folders below its root; STEM-2, ... where another has it."""
    used, names = {name.lower() for name in taken}, []
    for path, _ in ranked:
        within = path.parent.relative_to(roots[path]) if path in roots else Path()
        stem = (within / cut_stem(path.stem)).as_posix()
        name, number = stem, 1
        while name.lower() in used:
            number += 1
            name = f"{stem}-{number}"
        used.add(name.lower())
        names.append(name)
    return names


def files_of(name: str) -> tuple[str, str]:
    """Returns the mask and the confidence map of a proposal, as paths in the folder."""
    return f"masks/{name}.png", f"confidence/{name}.png"


def require_own(out: Path, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Raises ConfigError if a file would replace an image, or a file that `jaxseg propose` did not write."""
    read = {path.resolve() for path in inputs}
    for file in (out / part for name in names for part in files_of(name)):
        if file.resolve() in read:
            raise ConfigError(f"The output {file} would replace an image to propose a mask for; give another --out.")
        if file.exists() and marks.software(file) != MADE_BY:
            raise _foreign(file)


def write_proposals(
    out: Path,
    run: Run,
    predictor: Predictor,
    ranked: Sequence[Ranked],
    names: Sequence[str],
    *,
    earlier: Earlier = Earlier(),
    refine: Callable[[np.ndarray, Segmentation], Segmentation] | None = None,
    title: str = "",
    fail: Callable[[str], object] = lambda sentence: None,
) -> int:
    """Writes masks, confidence maps, the table and the page; returns how many proposals there are now to look at.

    The table and the page have the new proposals first, and after them those that were decided about.

    Args:
        out: the folder.
        run: the (first) run, for classes and colours.
        predictor: segments the images.
        ranked: the images in their order.
        names: of each.
        earlier: what stays.
        refine: changes the prediction, such as `inference.crf.refinement`.
        title: says in the page what made the proposals.
        fail: called with a sentence for each image, and each mask that stays, that cannot be read.

    Raises:
        ConfigError: if a file cannot be written.
    """
    rows: list[Row] = []
    cards: list[Card] = []
    channels = run.config.data.channels
    earlier_cards: list[Card] = []
    for row in earlier.rows:  # before anything is written
        try:
            earlier_cards.append(_earlier_card(out, row, run))
        except DataError as error:  # its line stays, for training to say so
            fail(f"The proposal {row.name!r}, which was decided about, is not on the page: {error}")
    try:
        for (path, score), name in zip(ranked, names):
            try:
                image = read_image(path, channels, run.config.data.range)
                found = predictor(image, True)
            except DataError as error:
                fail(str(error))
                continue
            found = found if refine is None else refine(image, found)
            sure = confidence_of(np.asarray(found.probabilities))
            mask, sure_file = files_of(name)
            picture = labels_picture(found.classes, run.colors, range(len(run.colors)))
            pictures.save_image(picture, out / mask, software=MADE_BY)
            pictures.save_image(np.round(255 * sure).astype(np.uint8), out / sure_file, software=MADE_BY)
            mean = float(sure.mean(dtype=np.float64))
            rows.append(Row(len(rows) + 1, name, path.resolve(), mask, sure_file, mean, score))
            cards.append(_card(out, rows[-1], run, image, found.classes, sure))
        rows += [row._replace(rank=rank) for rank, row in enumerate(earlier.rows, len(rows) + 1)]
        cards += earlier_cards
        _write_table(out / TABLE, rows)
        page = make_page(cards, run.classes, run.colors, earlier.decisions, title, str(out.resolve()))
        write_text(out / PAGE, page)
    except OSError as error:
        raise ConfigError(f"The proposals cannot be written to {out}: {error.strerror or error}.") from error
    return len(rows) - len(earlier.rows)


def confidence_of(probabilities: np.ndarray) -> np.ndarray:
    """Returns the largest probability f32[h,w] of f32[h,w,k]; of a binary network that of the likelier class."""
    p = probabilities
    return np.maximum(p, 1 - p)[..., 0] if p.shape[-1] == 1 else p.max(-1)


def _card(out: Path, row: Row, run: Run, image: np.ndarray, classes: np.ndarray, sure: np.ndarray) -> Card:
    return Card.of(row, digest_of(out / row.mask), image, classes, sure, run.colors)


def _earlier_card(out: Path, row: Row, run: Run) -> Card:
    data = run.config.data
    found = read_proposed(row.image, out / row.mask, data.channels, len(run.colors), data.range)
    confidence = read_image(out / row.confidence_map, 1)[..., 0].astype(np.float32) / 255
    return _card(out, row, run, found["image"], found["label"], confidence)


def _write_table(file: Path, rows: Iterable[Row]) -> None:
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for row in rows:
        score = "" if row.score is None else f"{row.score:.6g}"
        names = (str(row.image), row.mask, row.confidence_map)
        lines.writerow((row.rank, row.name, *names, f"{row.confidence:.6g}", score))
    content = text.getvalue().encode("utf-8", "surrogateescape")
    write_atomically(file, lambda stream: stream.write(content))


def _foreign(file: Path) -> ConfigError:
    return ConfigError(f"The output {file} would replace a file that jaxseg propose did not write; give another --out.")
