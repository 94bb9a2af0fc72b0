"""Masks that a network proposed and a person kept: the folder of `jaxseg propose`, as part of the training split.

The folder has a table of the proposals, their masks (class indices), and decisions.json, which its review page writes.
"""

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxseg.arguments import expanded
from jaxseg.data.base import DataInfo, Example, Source, require_bytes
from jaxseg.data.folder import FolderSource
from jaxseg.data.folds import WithoutFold
from jaxseg.data.images import read_header, read_image, read_mask
from jaxseg.data.joined import Joined
from jaxseg.data.labelled import PartlyLabelled, labelled_indices
from jaxseg.data.weak.source import AnnotatedSource
from jaxseg.data.weak.weakened import WeakenedSource
from jaxseg.errors import DataError, counted, first_line
from jaxseg.files import read_json
from jaxseg.types import IGNORE

TABLE, DECISIONS, PAGE = "proposals.csv", "decisions.json", "review.html"
COLUMNS = ("rank", "name", "image", "mask", "confidence_map", "confidence", "score")
"""The columns of the table: `name` is that of the files, `image` the path of the image, and the next two are paths in
the folder; `confidence` is the mean of the largest probability, and `score` what the order says."""
MADE_BY = "jaxseg propose"
KEEP, REJECT = "keep", "reject"


class Row(NamedTuple):
    """A line of the table, see `COLUMNS`; `score` is None where the order gives none."""

    rank: int
    name: str
    image: Path
    mask: str
    confidence_map: str
    confidence: float
    score: float | None


class Decision(NamedTuple):
    """What a person said of a proposal: "keep", "reject" or "" (a note alone), a note, and the digest of its mask."""

    decision: str
    note: str
    mask: str


class Proposal(NamedTuple):
    """A kept proposal: its name, image and mask, and the digest of the mask."""

    name: str
    image: Path
    mask: Path
    digest: str


def digest_of(file: Path) -> str:
    """Returns sixteen letters that differ where the bytes of two files do."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def read_table(folder: Path) -> list[Row]:
    """Returns the lines of the table of a folder.

    Raises:
        DataError: if there is none, or it is not one that `jaxseg propose` wrote.
    """
    file = folder / TABLE
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            read = csv.DictReader(lines)
            if tuple(read.fieldnames or ()) != COLUMNS:
                raise DataError(f"{file} is not a table that jaxseg propose wrote: it lacks the columns {COLUMNS}.")
            return [_row(line) for line in read]
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no proposals: there is no {TABLE} in it, which jaxseg propose writes."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is not a table that jaxseg propose wrote: {first_line(error)[:200]}.") from error


def _row(line: dict[str, str]) -> Row:
    score = float(line["score"]) if line["score"] else None
    names = (line["mask"], line["confidence_map"])
    return Row(int(line["rank"]), line["name"], Path(line["image"]), *names, float(line["confidence"]), score)


def read_decisions(folder: Path) -> tuple[tuple[str, ...], dict[str, Decision]]:
    """Returns the classes of the masks that were looked at, and {name: decision}.

    Raises:
        DataError: if there are no decisions, or the file is not one that the review page wrote.
    """
    file = folder / DECISIONS
    try:
        content = read_json(file)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} has no {DECISIONS}: open {folder / PAGE} in a browser, keep or reject each proposal, and save "
            f"{DECISIONS}, which it offers, into that folder."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}.") from error
    try:
        if content["made_by"] != MADE_BY:
            raise ValueError(f"made_by is {content['made_by']!r}")
        decisions = {str(name): _decision(value) for name, value in content["decisions"].items()}
        return tuple(map(str, content["classes"])), decisions
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        if isinstance(error, (TypeError, AttributeError)):
            why = "its values have other types"
        raise DataError(f"{file} is not one that the review page of jaxseg propose wrote: {why}.") from error


def _decision(value: dict[str, Any]) -> Decision:
    found = Decision(value["decision"], str(value["note"]), str(value["mask"]))
    if found.decision not in (KEEP, REJECT, ""):
        raise ValueError(f"a decision is {KEEP!r}, {REJECT!r} or empty, got {found.decision!r}")
    return found


def read_kept(folder: str | Path, classes: Sequence[str]) -> tuple[Proposal, ...]:
    """Returns the proposals that a person kept, in the order of their names.

    Args:
        folder: the folder of `jaxseg propose`.
        classes: the names of the classes of the data, which the masks must have.

    Raises:
        DataError: if the folder has no table or no decisions, they do not belong together, a mask changed after it was
            looked at, no proposal is kept, or the classes are others.
    """
    place = expanded(folder)
    rows = {row.name: row for row in read_table(place)}
    of_masks, decisions = read_decisions(place)
    what = f"data.proposals={str(folder)!r}"
    if of_masks != tuple(classes):
        raise DataError(
            f"{what}: the masks have the classes {', '.join(of_masks)}, and the training data {', '.join(classes)}."
        )
    kept = sorted(name for name, found in decisions.items() if found.decision == KEEP)
    # A note alone may be about a mask that a later call took out of the table.
    if strangers := [name for name, found in decisions.items() if found.decision and name not in rows]:
        raise DataError(
            f"{what}: {DECISIONS} decides about {strangers[0]!r}, which {TABLE} does not have; it belongs to another "
            f"folder. Save the {DECISIONS} of this folder's {PAGE}."
        )
    if not kept:
        raise DataError(f"{what}: {DECISIONS} keeps none of the {counted(len(rows), 'proposal')}, so that none joins.")
    proposals = []
    for name in kept:
        row, mask = rows[name], place / rows[name].mask
        for file, which in ((row.image, "image"), (mask, "mask")):
            if not os.path.isfile(file):  # unlike that of pathlib, it takes any text for a path
                raise DataError(f"{what}: there is no file {file}, the {which} of the proposal {name!r}.")
        digest = digest_of(mask)
        if digest != decisions[name].mask:
            raise DataError(
                f"{what}: the mask {mask} is not the one that was kept; it changed afterwards. Put a mask that you "
                f"corrected beside the other masks of your data with its image, and reject the proposal, or decide "
                f"about it again in {PAGE} after another jaxseg propose."
            )
        proposals.append(Proposal(name, row.image, mask, digest))
    return tuple(proposals)


def read_proposed(
    image_file: Path, mask_file: Path, channels: int, classes: int, limits: Sequence[float] = ()
) -> Example:
    """Returns image u8|u16|f32[h,w,c] and label u8[h,w] of a proposal; `limits` as of `images.read_image`.

    Raises:
        DataError: if a file cannot be read, they differ in size, or the mask holds another value than the indices of
            so many classes and IGNORE.
    """
    image, label = read_image(image_file, channels, limits), read_mask(mask_file)
    if label.shape != image.shape[:2]:
        raise DataError(
            f"The mask {mask_file} has {label.shape[0]}x{label.shape[1]} pixels, and its image {image_file} "
            f"{image.shape[0]}x{image.shape[1]}."
        )
    wrong = label[(label >= classes) & (label != IGNORE)]
    if wrong.size:
        raise DataError(f"The mask {mask_file} holds {wrong[0]}, and there are {counted(classes, 'class')}.")
    return {"image": image, "label": label}


@dataclass(frozen=True, eq=False)
class ProposedMasks:
    """The proposals that a person kept, as a source.

    Attributes:
        proposals: the proposals.
        info: the classes of the data that they join.
    """

    proposals: tuple[Proposal, ...]
    info: DataInfo

    def __len__(self) -> int:
        return len(self.proposals)

    def __getitem__(self, index: int) -> Example:
        """Returns image u8[h,w,c] or u16[h,w,c] and label u8[h,w]."""
        proposal = self.proposals[index]
        info = self.info
        return read_proposed(proposal.image, proposal.mask, info.channels, len(info.classes), info.range)

    def name(self, index: int) -> str:
        return self.proposals[index].name

    def label_size(self, index: int) -> tuple[int, int]:
        height, width = read_header(self.proposals[index].mask)[:2]
        return height, width


def with_proposals(source: Source, folder: str | Path) -> Joined:
    """Returns a training split, and after it the proposals of a folder that were kept.

    An image of a kept proposal that the split has without labels is left out there.

    Raises:
        DataError: as `read_kept`, and if an image of a kept proposal has labels in the split already, or in the fold
            that it leaves out.
    """
    require_bytes("data.proposals", len(source.info.classes))
    proposals = read_kept(folder, source.info.classes)
    places, having, left_out = image_places(source), set(labelled_indices(source)), _labelled_left_out(source)
    replaced = set()
    for proposal in proposals:
        image = proposal.image.resolve()
        if image in left_out or (image in places and places[image] in having):
            where = ", in the fold that data.fold leaves out" if image in left_out else ""
            raise DataError(
                f"data.proposals={str(folder)!r}: the image {proposal.image} of the proposal {proposal.name!r} is in "
                f"the training split with labels already{where}; reject the proposal."
            )
        replaced |= {places[image]} if image in places else set()
    kept = tuple(i for i in range(len(source)) if i not in replaced)
    labelled = [i for i, place in enumerate(kept) if place in having]
    every = (*labelled, *range(len(kept), len(kept) + len(proposals)))
    return Joined(source, kept, ProposedMasks(proposals, source.info), every)


def _labelled_left_out(source: Source) -> set[Path]:
    """Returns the paths of the images with labels in the fold that a training split leaves out."""
    if isinstance(source, PartlyLabelled):
        return _labelled_left_out(source.source)
    if not isinstance(source, WithoutFold):
        return set()
    left_out = set(labelled_indices(source.whole)).difference(source.kept)
    return {path for path, place in image_places(source.whole).items() if place in left_out}


def proposals_of(train: Source) -> tuple[Proposal, ...]:
    """Returns the proposals that joined a training split."""
    return train.added.proposals if isinstance(train, Joined) and isinstance(train.added, ProposedMasks) else ()


def require_apart(train: Source, val: Source) -> None:
    """Raises DataError if an image of a kept proposal is one that validation scores."""
    proposals = proposals_of(train)
    places = image_places(val) if proposals else {}
    for proposal in proposals:
        if proposal.image.resolve() in places:
            raise DataError(
                f"The image {proposal.image} of the proposal {proposal.name!r} is in the validation split, which must "
                "not teach; reject the proposal."
            )


def image_places(source: Source) -> dict[Path, int]:
    """Returns {path of the image: index} of a source that reads image files; {} of another."""
    if isinstance(source, PartlyLabelled):
        places = image_places(source.source)
        if source.others:
            return places
        index = {place: i for i, place in enumerate(source.kept)}
        return {path: index[place] for path, place in places.items() if place in index}
    if isinstance(source, WithoutFold):
        index = {place: i for i, place in enumerate(source.kept)}
        return {path: index[place] for path, place in image_places(source.whole).items() if place in index}
    if isinstance(source, WeakenedSource):
        return image_places(source.full)
    if isinstance(source, AnnotatedSource):
        return {pair.image.resolve(): i for i, (pair, _) in enumerate(source.examples)}
    if isinstance(source, FolderSource):
        return {pair.image.resolve(): i for i, pair in enumerate(source.pairs)}
    return {}
