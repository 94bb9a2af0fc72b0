"""Any folder of images and masks as a data set.

    DIR/images/a.jpg  DIR/masks/a.png                      one set: a share of it is held out for validation
    DIR/train/images/a.jpg  DIR/train/masks/a.png  DIR/val/...  DIR/test/...       a folder for each split
    DIR/classes.json                                       optional: names, values and colours of the classes

An image and its mask have the same name except for the suffix; sub-folders are part of the name.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from jaxseg.arguments import expanded, located
from jaxseg.data.base import Example
from jaxseg.data.classes import Labeller, check_palette, find_meaning, json_palette
from jaxseg.data.images import SUFFIXES, read_header, read_image, read_mask
from jaxseg.errors import DataError, nearest

_EXPECTED = "expected DIR/images and DIR/masks, or DIR/train/images, DIR/train/masks, DIR/val/images, DIR/val/masks"
_COLOR_MODES = ("RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")


class Pair(NamedTuple):
    """The files of one example, and the name that they share."""

    name: str
    image: Path
    mask: Path


class FolderSource:
    """One split of a folder; see the module's docstring for the layouts.

    Opening it reads the header of every file; an image is decoded and its mask checked when the example is read.

    Args:
        directory: the folder DIR.
        split: the name of a split folder; without split folders "train" or "val" (the held-out images).
        classes: names of the classes; empty: from `classes.json`, or from the values in the masks.
        ignore: value in the masks that is ignored, besides 255; -1: none.
        palette: RGB colour of each mask value, for masks that store colours.
        val_fraction: share of the images that is held out if there are no split folders, chosen by a hash of the names.
        channels: 1, 3 or 4; images are converted.
        strict: raise at the first error in the files. Otherwise `problems` lists the files without a partner, and an
            error inside a file is raised when its example is read.

    Raises:
        DataError: for a folder, split, file or class list that cannot be used.
    """

    def __init__(
        self,
        directory: str | Path,
        split: str,
        *,
        classes: Sequence[str] = (),
        ignore: int = -1,
        palette: Sequence[Sequence[int]] = (),
        val_fraction: float = 0.1,
        channels: int = 3,
        strict: bool = True,
    ):
        self.directory, self.split = _existing(directory), split
        # Without a palette, the colours of classes.json define masks of colours; palette files are read as indices.
        self.palette, self._keep_indices = check_palette(palette), not len(palette)
        self.palette = self.palette or json_palette(self.directory)
        folders = _find_folders(self.directory, split)
        self.pairs, self.problems = _match(folders[split])
        if strict and self.problems:
            more = f" ({len(self.problems) - 1} more such; python -m jaxseg.data.check lists them)"
            raise DataError(self.problems[0] + (more if len(self.problems) > 1 else ""))
        total = len(self.pairs)
        undivided = folders[split] == self.directory
        if undivided:
            self.pairs = _hold_out(self.pairs, split, val_fraction)
        if not self.pairs and self.problems:
            raise DataError(f"{self.problems[0]} No image of {self.directory} ({split}) has a mask of its name.")
        if not self.pairs:
            held_out = (
                f"; it has {total} in all and data.val_fraction={val_fraction} holds some out" if undivided else ""
            )
            raise DataError(f"The split {split!r} of {self.directory} has no images with masks{held_out}.")
        if strict:
            self._check_headers()
        masks = [pair.mask for folder in folders.values() for pair in _match(folder)[0]]
        meaning = find_meaning(
            self.directory,
            masks,
            classes=classes,
            ignore=ignore,
            palette=self.palette,
            keep_indices=self._keep_indices,
            channels=channels,
            strict=strict,
        )
        self.info, self._labeller = replace(meaning.info, values=tuple(meaning.values)), Labeller(meaning)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        """Returns image u8[h,w,c] or u16[h,w,c] and label u8[h,w]."""
        if not 0 <= index < len(self.pairs):
            raise IndexError(
                f"index {index} is outside the {len(self.pairs)} images of {self.directory} ({self.split})"
            )
        pair = self.pairs[index]
        image = read_image(pair.image, self.info.channels)
        mask = read_mask(pair.mask, self.palette, keep_indices=self._keep_indices)
        _check_sizes(pair, image.shape[:2], mask.shape)
        return {"image": image, "label": self._labeller(mask, pair.mask)}

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def label_size(self, index: int) -> tuple[int, int]:
        height, width = read_header(self.pairs[index].mask)[:2]
        return height, width

    def _check_headers(self) -> None:
        with ThreadPoolExecutor() as pool:
            for error in pool.map(self._header_error, self.pairs):
                if error is not None:
                    raise error

    def _header_error(self, pair: Pair) -> DataError | None:
        try:
            image, mask = read_header(pair.image), read_header(pair.mask)
            _check_sizes(pair, image[:2], mask[:2])
            if pair.mask.suffix.lower() in (".jpg", ".jpeg"):
                raise DataError(f"The mask {pair.mask} is a JPEG file. JPEG changes values: masks must be PNG.")
            if mask.mode in _COLOR_MODES and not self.palette:
                read_mask(pair.mask)  # raises an error that names the colours
        except DataError as error:
            return error
        return None


def _check_sizes(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    if tuple(image) != tuple(mask):
        raise DataError(
            f"The mask {pair.mask} is {mask[0]} x {mask[1]} (height x width), but its image {pair.image} is "
            f"{image[0]} x {image[1]} (after its EXIF orientation, if any); the same size was expected."
        )


def _existing(directory: str | Path) -> Path:
    if not str(directory):
        raise DataError(f"data.dir is empty; give the folder with --config.data.dir=DIR ({_EXPECTED}).")
    path = expanded(directory)
    if not path.is_dir():
        siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        kind = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"data.dir={located(path)} {kind}.{nearest(path.name, siblings, listing=False)}")
    return path


def _find_folders(directory: Path, split: str) -> dict[str, Path]:
    """Returns {split: folder with images/ and masks/}; only the requested split if one folder holds all splits."""
    if (directory / "images").is_dir() or (directory / "masks").is_dir():
        if split not in ("train", "val"):
            raise DataError(
                f"{directory} has no split folders, so its images are divided into train and val; for a split "
                f"{split!r} sort them into folders train/, val/, test/ with images/ and masks/ each."
                f"{nearest(split, ('train', 'val'), listing=False)}"
            )
        return {split: _complete(directory)}
    splits = sorted(p.name for p in directory.iterdir() if (p / "images").is_dir() or (p / "masks").is_dir())
    if not splits:
        inside = sorted(p.name for p in directory.iterdir())
        holds = f"holds {', '.join(inside[:6])}{', ...' if len(inside) > 6 else ''}" if inside else "is empty"
        raise DataError(f"data.dir={str(directory)!r} {holds}; {_EXPECTED}.")
    if split not in splits:
        raise DataError(
            f"{directory} has the splits {', '.join(splits)}, but no folder {split!r}.{nearest(split, splits)}"
        )
    return {name: _complete(directory / name) for name in splits}


def _complete(folder: Path) -> Path:
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise DataError(f"{folder} has no folder {part!r}; {_EXPECTED}.")
    return folder


def _match(folder: Path) -> tuple[list[Pair], tuple[str, ...]]:
    """Returns the pairs of a folder by name, and a sentence for each file without a partner."""
    images, problems = _list(folder / "images")
    masks, more = _list(folder / "masks")
    problems += more
    if not images and not masks:
        return [], (f"{folder} has no images: no {', '.join(SUFFIXES)} file in images/ and masks/.",)
    problems += [_no_mask(images[n], folder / "masks" / n) for n in images if n not in masks]
    problems += [f"The mask {masks[n]} has no image {folder / 'images' / n}.*." for n in masks if n not in images]
    return [Pair(n, images[n], masks[n]) for n in images if n in masks], tuple(problems)


def _no_mask(image: Path, mask: Path) -> str:
    """Returns the sentence for an image without a mask, which says too if the image itself cannot be read."""
    try:
        read_header(image)
    except DataError as error:
        return f"The image {image} has no mask {mask}.*, and {error}"
    return f"The image {image} has no mask {mask}.*."


def _list(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns {name without suffix: file}, sorted, and a sentence for each name that two files share."""
    files: dict[str, Path] = {}
    problems = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            problems.append(f"{files[name]} and {path} have the same name up to the suffix; keep one of them.")
        files.setdefault(name, path)
    return files, problems


def _hold_out(pairs: list[Pair], split: str, fraction: float) -> list[Pair]:
    """Returns the train or the held-out pairs. The smallest hashes are held out; each part has at least one pair."""
    ranked = sorted(pairs, key=lambda p: hashlib.blake2b(os.fsencode(p.name), digest_size=8).digest())
    count = round(len(pairs) * fraction)
    if 0 < fraction < 1 and len(pairs) > 1:
        count = min(max(count, 1), len(pairs) - 1)
    held_out = {p.name for p in ranked[:count]}
    return [p for p in pairs if (p.name in held_out) == (split != "train")]
