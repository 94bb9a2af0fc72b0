"""The images of a folder with their masks, matched by name, and a sentence for each file without a partner."""

import bisect
import contextlib
import hashlib
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxseg.config import WITHHELD
from jaxseg.data.folds import Groups
from jaxseg.data.images import read_header
from jaxseg.data.layout import Folders, Layout
from jaxseg.data.listing import ARRAYS, SUFFIXES, entries_of, is_folder, list_images, name_in, reading
from jaxseg.data.naming import find_renaming
from jaxseg.data.notes import note
from jaxseg.errors import DataError, counted, some


class Pair(NamedTuple):
    """The files of one example, and the name that they share; `mask` is None for an image without labels."""

    name: str
    image: Path
    mask: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        return (self.image,) if self.mask is None else (self.image, self.mask)


def match(folders: Folders, *, former: bool = False, advice: str = "") -> tuple[list[Pair], list[str]]:
    """Returns the pairs of two folders by name, and a sentence for each file without a partner.

    Args:
        folders: the folders of the images and of the masks.
        former: links to folders are not followed, and names are those of the images as the file system has them.
        advice: what else a user can do about an image without a mask; it ends the sentence of each.
    """
    images, problems = _by_name(folders.images, former, arrays=not former)
    masks, more = _by_name(folders.masks, former)
    problems += more
    if not images and not masks and not problems:
        return [], [f"{folders.images.parent} has no images: no {', '.join(SUFFIXES)} file in images/ and masks/."]
    pairs = [Pair(n, images[n], masks[n]) for n in images if n in masks]
    if len(pairs) < max(len(images), len(masks)):
        problems += _without_partner(folders, images, masks, advice)
    pairs = _once(pairs, folders.images)
    if former:
        pairs = [p._replace(name=p.image.relative_to(folders.images).with_suffix("").as_posix()) for p in pairs]
    return pairs, problems


def images_of(folder: Path) -> tuple[list[Pair], list[str]]:
    """Returns the images of a folder as pairs without a mask, and a sentence for each file that cannot be one."""
    files, problems = _by_name(folder, False, arrays=True)
    return [Pair(name, path, None) for name, path in files.items()], problems


def without_masks(folder: Path) -> tuple[list[Pair], list[str]]:
    """Returns the images of a folder, or of images/ in it, as pairs without a mask, named after the folder.

    Raises:
        DataError: if there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder} (data.unlabelled), which should hold images without masks.")
    with reading(folder):
        inside = folder / "images" if is_folder(folder / "images") else folder
    files, problems = _by_name(inside, False, arrays=True)
    if not files:
        raise DataError(f"{inside} (data.unlabelled) has no images: no {', '.join(SUFFIXES)} file.")
    return [Pair(f"{folder.name}/{name}", path, None) for name, path in files.items()], problems


def require_others(without: list[Pair], layout: Layout, directory: Path) -> None:
    """Raises DataError if images without masks are among those with masks, of which some are for validation."""
    parts = [*layout.splits.values(), *([layout.undivided] if layout.undivided is not None else [])]
    labelled = [part.images.resolve() for part in parts if part.exist]
    for pair in without:
        folder = pair.image.parent.resolve()
        if any(folder.is_relative_to(images) for images in labelled):
            raise DataError(
                f"data.unlabelled gives the image {pair.image}, which {directory} has with a mask; give a folder of "
                "other images, so that no validation image is trained on."
            )


def hold_out(
    pairs: list[Pair], split: str, fraction: float, *, former: bool = False, groups: Groups | None = None
) -> list[Pair]:
    """Returns the train or the held-out pairs; each part has at least one pair, or group, if there are two.

    The names whose hash, as a share of the largest, is below `fraction` are held out, so that pairs which are added or
    removed do not move others. `former`: the smallest hashes are held out, exactly `fraction` of the pairs. `groups`:
    the hash is that of the group of a pair, so that each group is on one side.

    Raises:
        DataError: if a pair has no group, or all are of one and some are to be held out, or the groups are withheld.
    """
    if groups is not None and groups.text == WITHHELD:
        raise DataError(
            "The published network does not say by which groups its training held images out, so that it is not known "
            "which of these images it was trained on. Give --config.data.val_group=, the data.group of its training, "
            "or a folder with a val/ folder."
        )
    side = {p.name: p.name if groups is None else groups.of(p.name) for p in pairs}
    names = set(side.values())
    if groups is not None and 0 < fraction < 1 and len(pairs) > 1 and len(names) == 1:
        raise DataError(
            f"{groups.key}={groups.text!r} gives all {counted(len(pairs), 'image')} the group {min(names)!r}, and "
            "data.val_fraction keeps each group on one side; give a val/ folder, another group, or "
            "data.val_group=names."
        )
    hashes = {name: hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest() for name in names}
    count = round(len(names) * fraction)
    if not former:
        count = sum(int.from_bytes(value, "big") < fraction * 2**64 for value in hashes.values())
    if 0 < fraction < 1 and len(names) > 1:
        count = min(max(count, 1), len(names) - 1)
    held_out = set(sorted(names, key=lambda name: hashes[name])[:count])
    if groups is not None:
        images = sum(name in held_out for name in side.values())
        note(
            f"data.val_fraction={fraction:g} holds out {count} of {counted(len(names), 'group')} of {groups.key}, "
            f"with {images} of {counted(len(pairs), 'image')}."
        )
    return [p for p in pairs if (side[p.name] in held_out) == (split != "train")]


def note_unused(groups: Groups | None, layout: Layout) -> None:
    """Notes that `data.val_group` holds nothing out of folders that have splits; `data.group` has other uses there."""
    if groups is not None and groups.key == "data.val_group" and groups.text != WITHHELD and layout.undivided is None:
        note(
            f"data.val_group={groups.text} has no effect: nothing is held out of a folder with the split folders "
            f"{', '.join(layout.splits)}."
        )


def _once(pairs: list[Pair], images: Path) -> list[Pair]:
    """Returns the pairs without those that a link to a folder gives a second time, under another name.

    One of two such pairs could be held out while the other is trained on.
    """
    folders = {file.parent for pair in pairs for file in (pair.image, pair.mask) if file is not None}
    real = {folder: folder.resolve() for folder in folders}
    if len(set(real.values())) == len(real):
        return pairs
    kept: dict[tuple[Path, ...], Pair] = {}
    for pair in sorted(pairs, key=lambda p: _links(p.image, images)):
        files = tuple(real[file.parent] / file.name for file in (pair.image, pair.mask) if file is not None)
        kept.setdefault(files, pair)
    once = set(kept.values())
    if len(once) < len(pairs):
        twice = counted(len(pairs) - len(once), "image")
        note(f"Links to folders lead a second time to {twice} in {images}; each is read once.")
    return [pair for pair in pairs if pair in once]


def _links(file: Path, root: Path) -> int:
    """Returns how many of the folders between `root` and a file are links."""
    return sum((root / folder).is_symlink() for folder in file.relative_to(root).parents if folder.name)


def _by_name(folder: Path, former: bool, *, arrays: bool = False) -> tuple[dict[str, Path], list[str]]:
    """Returns {name without suffix: file}, sorted, and a sentence for each name that two files share.

    `arrays`: also files of NumPy, where there is no picture of the name.
    """
    listing = list_images(folder, former=former, suffixes=(*SUFFIXES, *ARRAYS) if arrays else SUFFIXES)
    files: dict[str, Path] = {}
    problems = listing.problems
    pictures = {name_in(folder, path) for path in listing.files if path.suffix.lower() in SUFFIXES}
    for path in listing.files:
        name = name_in(folder, path)
        if path.suffix.lower() in ARRAYS and name in pictures:
            continue
        if name in files:
            problems.append(f"{files[name]} and {path} have the same name up to the suffix; keep one of them.")
        files.setdefault(name, path)
    return files, problems


def _without_partner(folders: Folders, images: Mapping[str, Path], masks: Mapping[str, Path], advice: str) -> list[str]:
    """Returns a sentence for each image without a mask and each mask without an image.

    Where one rule leads from the names of images to those of masks, one sentence stands for all of them, and so it does
    where the masks lie in folders of classes.
    """
    no_mask, no_image = [n for n in images if n not in masks], [n for n in masks if n not in images]
    problems = []
    lacking = set(no_mask)
    of_classes = {n: rest for n in no_image if (rest := n.partition("/")[2]) in lacking}
    if of_classes:
        inside = set(of_classes.values())
        classes = sorted({n.partition("/")[0] for n in of_classes})
        problems.append(
            f"{folders.masks} has the masks of {counted(len(inside), 'image')} in its folders "
            f"{some(classes)}: if each is a class, of which a pixel may have several, give data.multilabel=folders."
        )
        no_mask = [n for n in no_mask if n not in inside]
        no_image = [n for n in no_image if n not in of_classes]
    if renaming := find_renaming(no_mask, no_image):
        rule, found = renaming
        no_mask, mapped = [n for n in no_mask if n not in found], set(found.values())
        no_image = [n for n in no_image if n not in mapped]
        examples = [
            f"{images[n].relative_to(folders.images)} and {masks[m].relative_to(folders.masks)}"
            for n, m in found.items()
        ]
        problems.append(
            f"{len(found)} of {counted(len(images), 'image')} in {folders.images} have a mask of another name in "
            f"{folders.masks} ({some(examples, 3)}): {rule}. An image and its mask must have the same name up to the "
            "suffix; rename the files of one of the two folders, or let jaxseg convert write such a folder."
        )
    in_images, in_masks = _Neighbours(folders.images, masks), _Neighbours(folders.masks, images)
    problems += [_no_mask(images[n], folders.masks / n, in_masks.instead_of(n)) + advice for n in no_mask]
    problems += [f"The mask {masks[n]} has no image {folders.images / n}.*.{in_images.instead_of(n)}" for n in no_image]
    return problems


def _no_mask(image: Path, mask: Path, instead: str) -> str:
    """Returns the sentence for an image without `mask`, which says too if the image itself cannot be read."""
    sentence = f"The image {image} has no mask {mask}.*"
    try:
        read_header(image, paged=True)
    except DataError as error:
        return f"{sentence}, and {error}"
    return f"{sentence}.{instead}"


class _Neighbours:
    """Finds what there is in place of a missing file; it lists each folder once, since many files may be missing."""

    def __init__(self, folder: Path, partners: Container[str]):
        """`partners`: the names of the files in the other folder, whose own partners are not meant."""
        self._folder = folder
        self._partners = partners
        self._listed: dict[Path, tuple[dict[str, list[Path]], list[str]]] = {}

    def instead_of(self, name: str) -> str:
        """Returns a sentence about a file of a type that is not read, or of nearly that name; "" for neither."""
        for path in self._of_any_case(name):
            same = name_in(self._folder, path) == name
            if same and path.suffix.lower() not in SUFFIXES and path.is_file():
                return f" {path} is there, but files of this type are not read: save it as PNG."
            if not same and path.suffix.lower() in SUFFIXES:
                return f" {path} is there, but its name differs in capital letters."
        path = self._with_an_ending(name)
        return f" {path} is there, but an image and its mask must have the same name up to the suffix." if path else ""

    def _of_any_case(self, name: str) -> list[Path]:
        found, _ = self._beside(name)
        return found[name.casefold()] if name.casefold() in found else []

    def _with_an_ending(self, name: str) -> Path | None:
        """Returns a file as NAME_mask.png or NAME.jpg.png, or as NAME.png of the name NAME_mask; None without one."""
        (found, order), name = self._beside(name), name.casefold()
        longer = order[bisect.bisect_right(order, name) :][:8]
        shorter = [name[: match.start()] for match in re.finditer(r"[-_. ]", name)][::-1]
        near = [key for key in longer if re.match(r"[-_. ]", key[len(name) :]) and key.startswith(name)]
        paths = [path for key in (*near, *(key for key in shorter if key in found)) for path in found[key]]
        alone = (path for path in paths if name_in(self._folder, path) not in self._partners)
        return next((path for path in alone if path.suffix.lower() in SUFFIXES), None)

    def _beside(self, name: str) -> tuple[dict[str, list[Path]], list[str]]:
        """Returns {name without suffix, in lower case: files} of the folder that lacks `name`, and its sorted keys."""
        parent = (self._folder / name).parent
        if parent not in self._listed:
            by_name: dict[str, list[Path]] = {}
            with contextlib.suppress(DataError):  # the listing of this folder has said that it cannot be read
                for path in entries_of(parent) if parent.is_dir() else ():
                    by_name.setdefault(name_in(self._folder, path).casefold(), []).append(path)
            self._listed[parent] = by_name, sorted(by_name)
        return self._listed[parent]
