"""The images of a folder with their masks, matched by name, and a sentence for each file without a partner."""

from pathlib import Path
from typing import NamedTuple

from jaxseg.data.images import read_header
from jaxseg.data.layout import Folders
from jaxseg.data.listing import SUFFIXES, list_images, name_in
from jaxseg.errors import DataError


class Pair(NamedTuple):
    """The files of one example, and the name that they share; `mask` is None for an image without labels."""

    name: str
    image: Path
    mask: Path | None


def match(folders: Folders, *, former: bool = False) -> tuple[list[Pair], list[str]]:
    """Returns the pairs of two folders by name, and a sentence for each file without a partner.

    `former`: links to folders are not followed, and names are those of the images as the file system has them.
    """
    images, problems = _by_name(folders.images, former)
    masks, more = _by_name(folders.masks, former)
    problems += more
    if not images and not masks and not problems:
        return [], [f"{folders.images.parent} has no images: no {', '.join(SUFFIXES)} file in images/ and masks/."]
    problems += [_no_mask(images[n], folders.masks, n) for n in images if n not in masks]
    problems += [
        f"The mask {masks[n]} has no image {folders.images / n}.*.{_beside(folders.images, n)}"
        for n in masks
        if n not in images
    ]
    pairs = [Pair(n, images[n], masks[n]) for n in images if n in masks]
    if former:
        pairs = [p._replace(name=p.image.relative_to(folders.images).with_suffix("").as_posix()) for p in pairs]
    return pairs, problems


def without_masks(folder: Path) -> tuple[list[Pair], list[str]]:
    """Returns the images of a folder, or of images/ in it, as pairs without a mask, named after the folder.

    Raises:
        DataError: if there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder} (data.unlabelled), which should hold images without masks.")
    inside = folder / "images" if (folder / "images").is_dir() else folder
    files, problems = _by_name(inside, False)
    if not files:
        raise DataError(f"{inside} (data.unlabelled) has no images: no {', '.join(SUFFIXES)} file.")
    return [Pair(f"{folder.name}/{name}", path, None) for name, path in files.items()], problems


def _by_name(folder: Path, former: bool) -> tuple[dict[str, Path], list[str]]:
    """Returns {name without suffix: file}, sorted, and a sentence for each name that two files share."""
    listing = list_images(folder, follow=not former)
    files: dict[str, Path] = {}
    problems = listing.problems
    for path in listing.files:
        name = name_in(folder, path)
        if name in files:
            problems.append(f"{files[name]} and {path} have the same name up to the suffix; keep one of them.")
        files.setdefault(name, path)
    return files, problems


def _no_mask(image: Path, masks: Path, name: str) -> str:
    """Returns the sentence for an image without a mask, which says too if the image itself cannot be read."""
    sentence = f"The image {image} has no mask {masks / name}.*"
    try:
        read_header(image)
    except DataError as error:
        return f"{sentence}, and {error}"
    return f"{sentence}.{_beside(masks, name)}"


def _beside(folder: Path, name: str) -> str:
    """Returns what there is in place of a missing file: one of a type that is not read, or of other capital letters."""
    wanted = folder / name
    if not wanted.parent.is_dir():
        return ""
    for path in sorted(wanted.parent.iterdir()):
        same = name_in(folder, path)
        if same == name and path.suffix.lower() not in SUFFIXES and path.is_file():
            return f" {path} is there, but files of this type are not read: save it as PNG."
        if same != name and same.casefold() == name.casefold() and path.suffix.lower() in SUFFIXES:
            return f" {path} is there, but its name differs in capital letters."
    return ""
