"""The layouts of a folder of images and masks, and the splits that a layout has."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from jaxseg.arguments import expanded, located
from jaxseg.data.listing import entries_of, is_folder, is_hidden, leads_nowhere, list_images, reading, sub_folders
from jaxseg.data.notes import note
from jaxseg.errors import DataError, nearest

EXPECTED = (
    "expected DIR/images and DIR/masks; or for splits of your own DIR/train/images, DIR/train/masks, DIR/val/images, "
    "DIR/val/masks, or DIR/images/train, DIR/masks/train, DIR/images/val, DIR/masks/val"
)
# Also with a year or number, as in train2017.
_SPLIT_NAME = re.compile(r"(train|training|val|valid|validation|test|testing)[-_ ]?\d*", re.IGNORECASE)


# Archives, and files that hold many images each, as other tools write them: webdataset, TFRecord, Parquet, LMDB, HDF5.
_PACKED = re.compile(
    r"(?<!\.nii)\.(tar|tgz|tbz2?|txz|(tar\.)?(gz|bz2|xz|zst)|zip|7z|rar|mds|tfrecords?|parquet|arrow|lmdb|mdb|hdf5|h5|zarr|beton|npz"
    r"|rec)$|\.tfrecord-\d+|-of-\d+$",
    re.IGNORECASE,
)


class Folders(NamedTuple):
    """The two folders of a split."""

    images: Path
    masks: Path

    @property
    def exist(self) -> bool:
        return self.images.is_dir() and self.masks.is_dir()

    def require(self, masks: bool = True) -> "Folders":
        """Returns the folders; raises DataError if one of them (that of the images, without `masks`) does not exist."""
        for folder in self if masks else self[:1]:
            if not folder.is_dir():
                missing = folder if folder.parent.is_dir() else folder.parent
                if leads_nowhere(missing):
                    raise DataError(f"{missing} is a link to {os.readlink(missing)}, which does not exist.")
                raise DataError(
                    f"{missing.parent} has no folder {missing.name!r}; {EXPECTED}.{_packed(missing.parent)}"
                )
        return self


class Layout(NamedTuple):
    """splits: {name: folders}. undivided: the folders of a set without splits, which is divided; else None."""

    splits: dict[str, Folders]
    undivided: Folders | None


def existing(directory: str | Path) -> Path:
    """Returns `data.dir` as a path; raises DataError if there is no such folder."""
    if not str(directory):
        raise DataError(f"data.dir is empty; give the folder with --config.data.dir=DIR ({EXPECTED}).")
    path = expanded(directory)
    with reading(path):
        found = is_folder(path)
    if not found:
        siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        if path.is_file() and _PACKED.search(path.name):
            raise DataError(f"data.dir={located(path)} is a file, not a folder.{_unpack(path.name)}")
        kind = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"data.dir={located(path)} {kind}.{nearest(path.name, siblings, listing=False)}")
    return path


def find_layout(directory: Path, *, former: bool = False) -> Layout:
    """Returns the layout of a folder.

    Args:
        directory: the folder.
        former: as before splits inside images/ were known: every sub-folder of images/ is part of the names.

    Raises:
        DataError: if the folder has none of the layouts, or two at once.
    """
    outer = [name for name in sub_folders(directory) if holds_parts(directory / name)]
    if not holds_parts(directory):
        if not outer:
            inside = [p.name for p in entries_of(directory) if not is_hidden(p.name)]
            holds = f"holds {', '.join(inside[:6])}{', ...' if len(inside) > 6 else ''}" if inside else "is empty"
            raise DataError(f"data.dir={str(directory)!r} {holds}; {EXPECTED}.{_packed(directory)}")
        return Layout({name: Folders(directory / name / "images", directory / name / "masks") for name in outer}, None)
    whole = Folders(directory / "images", directory / "masks")
    if former:
        named = [name for name in sub_folders(whole.images) if is_split_name(name)] if whole.images.is_dir() else []
        if named:
            note(
                f"data.division=former: {', '.join(named)} in {whole.images} are no splits but part of the names, so "
                "the images of all of them are divided into train and val."
            )
        return Layout({}, whole)
    beside = [name for name in outer if is_split_name(name)]
    if beside:
        raise DataError(
            f"{directory} holds images or masks of its own and in {', '.join(beside)} too, so it is not clear which of "
            f"them are meant: move {directory / 'images'} and {directory / 'masks'} into a folder of their split, such "
            f"as train/, or move {', '.join(beside)} away."
        )
    inner = _inner_splits(whole)
    return Layout({n: Folders(whole.images / n, whole.masks / n) for n in inner}, None if inner else whole)


def choose(layout: Layout, split: str, directory: Path, *, masks: bool = True) -> Folders:
    """Returns the folders of a split, which exist; for a set without splits, those of the set.

    Args:
        layout: of the folder.
        split: its name.
        directory: the folder, for messages.
        masks: whether the split needs a folder of masks.

    Raises:
        DataError: if there is no such split, or one of its folders is missing.
    """
    if layout.undivided is not None:
        if split not in ("train", "val"):
            raise DataError(
                f"{directory} has no split folders, so its images are divided into train and val; for a split "
                f"{split!r} sort them into folders train/, val/, test/ with images/ and masks/ each."
                f"{nearest(split, ('train', 'val'), listing=False)}"
            )
        return layout.undivided.require(masks)
    if split not in layout.splits:
        raise DataError(
            f"{directory} has the splits {', '.join(layout.splits)}, but no folder {split!r}."
            f"{nearest(split, layout.splits, listing=False)}{_hint(split, layout, directory)}"
        )
    return layout.splits[split].require(masks)


def _packed(directory: Path) -> str:
    """Returns what to do about archives or shards in a folder or its sub-folders; "" if there are none."""
    places = [directory, *(directory / name for name in sub_folders(directory))]
    found = (path for place in places for path in entries_of(place) if _PACKED.search(path.name))
    return next((_unpack(str(path.relative_to(directory))) for path in found), "")


def _unpack(name: str) -> str:
    return (
        f" Archives and shards, such as {name}, are not read: unpack their images and masks into these folders, one "
        "file for each (masks as PNG); jaxseg convert does it for .tar files of webdataset."
    )


def _hint(split: str, layout: Layout, directory: Path) -> str:
    """Returns what to do about a missing training or validation split."""
    if split not in ("train", "val"):
        return ""
    other = next((name for name in layout.splits if name.lower().startswith(split)), None)
    if other is not None:
        return f" Give --config.data.{split}_split={other}."
    inner = next(iter(layout.splits.values())).images.parent == directory / "images"
    names = ", ".join(layout.splits)
    if not inner and len(layout.splits) == 1 and not is_split_name(names):
        return f" If {directory / names} is the whole set, give --config.data.dir={directory / names}."
    return (
        " Sort the images and masks of this split into a folder of that name, or name the split with "
        f"data.{split}_split"
        + (f"; if they are no splits, give the folders {names} in images/ and masks/ other names." if inner else ".")
    )


def holds_parts(folder: Path) -> bool:
    """Returns whether a folder has images/ or masks/; raises DataError if it cannot be read."""
    with reading(folder):
        return is_folder(folder / "images") or is_folder(folder / "masks")


def is_split_name(name: str) -> bool:
    """Returns whether a folder of this name inside images/ is a split."""
    return _SPLIT_NAME.fullmatch(name) is not None


def _inner_splits(whole: Folders) -> list[str]:
    """Returns the splits that images/ and masks/ are divided into; [] if no sub-folder has the name of a split.

    A folder train/ without one for validation or test is no division: it may hold pictures of trains.

    Raises:
        DataError: if only some of the images or masks are in such sub-folders.
    """
    found = {folder: sub_folders(folder) for folder in whole if folder.is_dir()}
    splits = sorted({name for names in found.values() for name in names if is_split_name(name)})
    if not splits:
        return []
    if all(name.lower().startswith("train") for name in splits):
        note(
            f"{whole.images} has {', '.join(splits)}, but no folder of a validation or test split: all of its images "
            "are divided into train and val."
        )
        return []
    for folder, names in found.items():
        strange = [f"the folder {name}" for name in names if not is_split_name(name)]
        strange += [path.name for path in list_images(folder, recursive=False).files[:1]]
        if strange or not names:
            holds = f"{folder} also holds {', '.join(strange)}" if strange else f"{folder} has no such folder"
            raise DataError(
                f"{whole.images.parent} has folders named as splits ({', '.join(splits)}) inside images/ or masks/, "
                f"but {holds}. For splits, sort all images and all masks into such folders (train, val, test); if "
                f"they are no splits, give {', '.join(splits)} other names.{_if_unlabelled(whole, folder, names)}"
            )
    return splits


def _if_unlabelled(whole: Folders, folder: Path, names: list[str]) -> str:
    """Returns what to do about sub-folders of images/ that have no counterpart in masks/; "" if there are none."""
    alone = [name for name in names if not is_split_name(name) and not (whole.masks / name).is_dir()]
    if folder != whole.images or not alone:
        return ""
    moved = whole.images.parent / alone[0]
    return (
        f" If {' or '.join(alone)} has images without masks, move them out of images/, to {moved}; data.unlabelled="
        f"{alone[0]} then gives them to a training that learns from such images."
    )
