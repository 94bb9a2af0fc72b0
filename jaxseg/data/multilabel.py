"""A folder of images whose pixels may have several classes at once, or none, as a data set (`data.multilabel`).

    DIR/images/a.jpg  DIR/masks/a.png              bits: bit i of a value says that class i is there
    DIR/images/a.jpg  DIR/masks/CLASS/a.png        folders: a picture a class, 0 for absent and 1 or 255 for present

with the folders of splits as `jaxseg.data.folder` has them. In classes.json the index of a class is its bit.
"""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jaxseg.data.base import DataInfo, Example
from jaxseg.data.classes_file import FILE, read_classes_file
from jaxseg.data.contents import lossy_mask
from jaxseg.data.folds import Groups
from jaxseg.data.headers import damage_of, require_same_size
from jaxseg.data.images import Header, opened, read_header, read_image, read_mask
from jaxseg.data.layout import Folders, Layout, choose, existing, find_layout
from jaxseg.data.listing import sub_folders
from jaxseg.data.notes import note
from jaxseg.data.pairs import Pair, hold_out, images_of, match
from jaxseg.data.reading import files_at, note_skipped, raise_first
from jaxseg.data.stamps import require_unchanged, stamps_of
from jaxseg.errors import DataError, nearest
from jaxseg.pictures import default_colors

_BITS = 32  # of the largest numbers of a file


class Files(NamedTuple):
    """The files of one example, and the name that they share: a mask of bits, or one of each class or None."""

    name: str
    image: Path
    masks: tuple[Path | None, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        return (self.image, *(mask for mask in self.masks if mask is not None))


class MultilabelSource:
    """One split of a folder; see the module's docstring for its masks.

    Opening it reads the header of every file; a mask is decoded, and its values checked, when the example is read.

    Args:
        directory: the folder DIR.
        split: the name of a split folder; without split folders "train" or "val" (the held-out images).
        form: "bits" or "folders".
        classes: names of the classes, that of bit 0 first; empty: those of classes.json, or of the folders in masks/.
        ignore: the value that says that a pixel is unknown; -1: none. In bits it is also the largest number of the
            file (255, 65535), where that is no set of the classes.
        unknown: what follows from it in the picture of one class. "pixel": the pixel is unknown altogether. "class":
            this class is unknown there, and the others are as their pictures say. "file": as "class", and a class
            without a picture is unknown in the whole image, in place of absent.
        val_fraction: share of the images that is held out if there are no split folders.
        groups: what is held out whole, see `held_out_groups`; None: every image by itself.
        channels: of the images; pictures are converted to 1, 3 or 4.
        limits: `data.range`, the values in the files that become 0 and 1; (): those of their type.
        damaged: what follows from a file whose header cannot be read, or whose size is not that of its partner. "stop":
            it is an error. "skip": it is noted, and reading its example raises the error.
        strict: raise at the first error in the files; otherwise `problems` lists files without a partner.

    Raises:
        DataError: for a folder, split, file or class list that cannot be used.
    """

    def __init__(
        self,
        directory: str | Path,
        split: str,
        *,
        form: str,
        classes: Sequence[str] = (),
        ignore: int = -1,
        unknown: Literal["pixel", "class", "file"] = "pixel",
        val_fraction: float = 0.1,
        groups: Groups | None = None,
        channels: int = 3,
        limits: Sequence[float] = (),
        damaged: Literal["stop", "skip"] = "stop",
        strict: bool = True,
    ):
        self.directory, self.split, self._form, self._strict = existing(directory), split, form, strict
        self._unknown = unknown
        layout = find_layout(self.directory)
        folders = choose(layout, split, self.directory)
        self.info = replace(self._meaning(layout, classes, ignore, channels), range=tuple(limits))
        every, problems = self._match(folders)
        self.problems: tuple[str, ...] = tuple(problems)
        self.remarks: tuple[str, ...] = ()
        if strict:
            raise_first(problems)
        self.files = every if layout.undivided is None else self._divided(every, val_fraction, groups)
        if not self.files:
            raise DataError(problems[0] if problems else f"The split {split!r} of {self.directory} has no images.")
        self._unreadable: dict[Files, str] = {}
        self.stamps = stamps_of(self.files) if strict else {}
        if strict:
            headers = functools.partial(_headers_of, paged=self.info.paged)
            fit = functools.partial(_check_headers, paged=self.info.paged)
            check = functools.partial(damage_of, headers=headers, check=fit) if damaged == "skip" else fit
            with ThreadPoolExecutor() as pool:  # raises the first error
                found = dict(zip(self.files, pool.map(check, self.files)))
            self._unreadable = {files: damage for files, damage in found.items() if damage}
            for error in self._unreadable.values():
                note_skipped(error)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """Returns image u8|u16|f32[h,w,c] and label u8|u16|u32[h,w], a set of classes of each pixel."""
        files = files_at(index, self.files, f"{self.directory} ({self.split})", self._unreadable)
        if not self._strict:
            _check_headers(files, self.info.paged)
        image = read_image(files.image, self.info.channels, self.info.range)
        label = self._sets(files, image.shape[:2])
        require_unchanged(files, self.stamps)
        return {"image": image, "label": label}

    def name(self, index: int) -> str:
        return self.files[index].name

    def label_size(self, index: int) -> tuple[int, int]:
        height, width = read_header(self.files[index].image, paged=self.info.paged)[:2]
        return height, width

    def _meaning(self, layout: Layout, names: Sequence[str], ignore: int, channels: int) -> DataInfo:
        file = read_classes_file(self.directory)
        of_folders = _class_folders(layout) if self._form == "folders" else ()
        if self._form == "folders" and not of_folders:
            raise DataError(
                f"{self.directory} has no folder of masks inside masks/, of which data.multilabel=folders reads one "
                "for each class, masks/CLASS/NAME.png; where the value of a mask is the one class of a pixel, leave "
                "data.multilabel empty, and where it is a sum of bits, give data.multilabel=bits."
            )
        classes = file.names if file is not None else tuple(names) or of_folders
        if not classes:
            raise DataError(
                "data.multilabel=bits needs the names of the classes, that of bit 0 first: give data.classes, or a "
                f"{FILE} in {self.directory} whose index is the bit."
            )
        strange = [name for name in of_folders if name not in classes]
        if strange:
            raise DataError(
                f"{self.directory} has masks in a folder {strange[0]!r}, which is no class ({', '.join(classes)})."
                f"{nearest(strange[0], classes, listing=False)}"
            )
        bits = file.values if file is not None and self._form == "bits" else tuple(range(len(classes)))
        if max(bits) >= _BITS:
            raise DataError(
                f"{self.directory / FILE} gives {classes[bits.index(max(bits))]!r} the index {max(bits)}, and with "
                f"data.multilabel=bits it is a bit from 0 to {_BITS - 1}."
            )
        if file is not None and file.ignore is not None:
            if ignore not in (-1, file.ignore):
                raise DataError(f"data.ignore is {ignore}, but {file.path} has ignore_index {file.ignore}.")
            ignore = file.ignore
        given = file.colors if file is not None else (None,) * len(classes)
        others = default_colors(len(classes) + 1)[1:]  # without black, which is no class
        colors = tuple(other if color is None else color for color, other in zip(given, others))
        if self._unknown == "class" and ignore < 0:
            note(
                f"data.unknown=class has no effect in {self.directory}: neither data.ignore nor an ignore_index in "
                f"{FILE} says which value of a mask is unknown."
            )
        kept, partly = ignore if ignore >= 0 else None, self._unknown != "pixel"
        return DataInfo(classes, colors, kept, channels, bits, multilabel=True, partly=partly)

    def _match(self, folders: Folders) -> tuple[list[Files], list[str]]:
        """Returns the name, the image and the masks of each example, and a sentence for each file without a partner."""
        if self._form == "bits":
            pairs, problems = match(folders)
            return [Files(pair.name, pair.image, (pair.mask,)) for pair in pairs], problems
        pairs, problems = images_of(folders.images)
        of_classes: list[dict[str, Path]] = []
        for name in self.info.classes:
            folder = folders.masks / name
            found, more = images_of(folder) if folder.is_dir() else ([], [])
            of_classes.append({pair.name: pair.image for pair in found})
            problems += more
        images = {pair.name for pair in pairs}
        for masks in of_classes:
            problems += [f"The mask {file} has no image of its name." for n, file in masks.items() if n not in images]
        files: list[Files] = []
        for pair in pairs:
            masks = [found[pair.name] if pair.name in found else None for found in of_classes]
            if any(mask is not None for mask in masks):
                files.append(Files(pair.name, pair.image, tuple(masks)))
            else:
                problems.append(
                    f"The image {pair.image} has no mask in any folder of {folders.masks}; one without any class has "
                    "an empty one."
                )
        if not pairs and not problems:
            problems.append(f"{folders.images} has no images.")
        return files, problems

    def _divided(self, files: list[Files], fraction: float, groups: Groups | None) -> list[Files]:
        """Returns the train or the held-out examples of a set without splits."""
        pairs = [Pair(each.name, each.image, None) for each in files]
        chosen = {pair.name for pair in hold_out(pairs, self.split, fraction, groups=groups)}
        return [each for each in files if each.name in chosen]

    def _sets(self, files: Files, size: tuple[int, ...]) -> np.ndarray:
        label, k = np.zeros(size, np.uint32), len(self.info.classes)
        unknown = np.zeros(size, np.uint32)  # bit c: class c
        every = np.uint32(2**k - 1)
        for bits, value in self._bits(files, size):
            label |= bits
            unknown |= value
        whole = unknown == every if self.info.partly else unknown != 0
        if self.info.partly:
            label |= unknown << np.uint32(k)
        label = np.where(whole, 0, label).astype(self.info.label_type)
        label[whole] = self.info.ignored
        return label

    def _bits(self, files: Files, size: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the classes u32[h,w] that a file says are there, and those that it says are unknown."""
        every = np.uint32(2 ** len(self.info.classes) - 1)
        for place, path in enumerate(files.masks):
            if path is None:
                if self._unknown == "file":
                    yield np.zeros(size, np.uint32), np.full(size, 1 << place, np.uint32)
                continue
            mask, largest = _read_bits(path)
            require_same_size(files.image, size, path, mask.shape)
            unknown = mask == (-1 if self.info.ignore is None else self.info.ignore)
            if self._form == "folders":
                there = ((mask == 1) | (mask == 255)) & ~unknown
                _refuse(path, mask[~(there | unknown | (mask == 0))], "0 for absent and 1 or 255 for present")
                yield (there.astype(np.uint32) << np.uint32(place), unknown.astype(np.uint32) << np.uint32(place))
                continue
            known = np.int64(sum(1 << bit for bit in self.info.values))
            outside = (mask & ~known != 0) & ~unknown
            full = outside & (mask == largest)
            bits = ", ".join(f"{1 << bit} {name}" for bit, name in zip(self.info.values, self.info.classes))
            _refuse(path, mask[outside & ~full], f"sums of {bits}")
            sets = np.zeros(size, np.uint32)
            for c, bit in enumerate(self.info.values):
                sets |= (mask >> bit & 1).astype(np.uint32) << np.uint32(c)
            yield sets, np.where(unknown | full, every, 0).astype(np.uint32)


def _headers_of(files: Files, paged: bool) -> dict[Path, Header]:
    """Returns the headers of the masks of an example; raises DataError if one cannot be read, or the sizes differ."""
    image = read_header(files.image, paged=paged)
    headers = {path: read_header(path) for path in files.paths[1:]}
    for path, mask in headers.items():
        require_same_size(files.image, image[:2], path, mask[:2])
    return headers


def _check_headers(files: Files, paged: bool) -> None:
    """Raises DataError if the files of an example do not fit, or a mask is lossy."""
    for path, mask in _headers_of(files, paged).items():
        if mask.lossy:
            raise DataError(lossy_mask(path, mask.lossy))


def _read_bits(path: Path) -> tuple[np.ndarray, int]:
    """Returns the numbers i64[h,w] of a mask, which may have 32 bits, and the largest that such a file can hold."""
    with opened(path) as image:
        if image.mode == "I" and image.format == "TIFF":
            return np.array(image).astype(np.int64) & (2**_BITS - 1), 2**_BITS - 1
    mask = read_mask(path)
    return mask.astype(np.int64), int(np.iinfo(mask.dtype).max)


def _refuse(path: Path, strange: np.ndarray, expected: str) -> None:
    """Raises DataError if there is a value that stands for nothing."""
    if strange.size:
        shown = ", ".join(map(str, np.unique(strange)[:8].tolist()))
        raise DataError(
            f"{path} holds {shown}, where {expected} was expected; a value that says that a pixel is unknown is "
            "data.ignore."
        )


def _class_folders(layout: Layout) -> tuple[str, ...]:
    """Returns the names of the folders in the folders of masks of all splits, sorted."""
    every = [layout.undivided] if layout.undivided is not None else [f for f in layout.splits.values() if f.exist]
    return tuple(sorted({name for folders in every if folders is not None for name in sub_folders(folders.masks)}))
