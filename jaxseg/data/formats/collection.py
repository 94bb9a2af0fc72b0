"""What a form of data gives: images with the functions that read them, classes, and what could not be read."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from jaxseg.data.layout import is_split_name
from jaxseg.data.listing import is_hidden
from jaxseg.data.masks import Color

Picture: TypeAlias = Path | tuple[bytes, str] | np.ndarray
"""An image: its file, the content of a file with its suffix, or u8|u16[h,w,c]."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Lost(NamedTuple):
    """What is not converted: the file, which part of it ("image" for all of it), and why, as a sentence."""

    file: str
    what: str
    why: str


class Drawn(NamedTuple):
    """label: class indices u8|u16[h,w], or the ignored label. lost: what of the image is not in it."""

    label: np.ndarray
    lost: tuple[Lost, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One image.

    Attributes:
        split: "train", "val", "test", or "" of a set that is not divided.
        name: that of its files, without suffix, with "/" between folders.
        origin: where it comes from, for messages.
        image: its file, or what reads it.
        label: reads its label; None for an image without.
    """

    split: str
    name: str
    origin: str
    image: Path | Callable[[], Picture]
    label: Callable[[], Drawn] | None


@dataclass(frozen=True)
class Collection:
    """The images of a form.

    Attributes:
        form: its name in words.
        samples: the images.
        classes, colors: of each class, in the order of the label values.
        lost: what is known before the images are read.
        remarks: sentences about what was decided.
    """

    form: str
    samples: Sequence[Sample]
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    lost: tuple[Lost, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """How a form is read.

    Attributes:
        images: the folder of the images, where they are not beside the annotations.
        classes: names of the classes in their order; empty: those that the form gives.
        palette: a file with the colour of each class.
        tolerance: distance in RGB up to which a colour in a mask stands for the nearest class.
        boxes: whether boxes are filled, as if they were outlines.
        outside: what is outside all objects: the class "background", or ignored.
        ignored: names of which the pixels are ignored.
    """

    images: Path | None = None
    classes: tuple[str, ...] = ()
    palette: Path | None = None
    tolerance: float = 24.0
    boxes: bool = False
    outside: Literal["background", "ignore"] = "background"
    ignored: tuple[str, ...] = ("__ignore__",)


def visible(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files of a folder and its sub-folders with one of the suffixes, sorted, without hidden ones."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in found if not any(map(is_hidden, path.relative_to(folder).parts)))


def split_of_folders(name: str) -> str:
    """Returns the split that the folders of a name with "/" say, the innermost first; "" if none does."""
    named = [part for part in PurePosixPath(name).parts[:-1] if is_split_name(part)]
    return split_of_words(named[-1]) if named else ""


def split_of_words(text: str) -> str:
    """Returns the split that a word of a text names, as in "instances_val2017"; "" if none does."""
    words = re.split(r"[^a-z]+", text.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def settled(samples: Iterable[Sample]) -> tuple[list[Sample], list[Lost]]:
    """Returns samples with short names, and those that belong to no split although others do.

    Folders that all images of a split share are no part of their names. A single split is none. Images without labels
    go to one folder, so that the splits are folders in their names where they are of several.
    """
    given = list(samples)
    labelled = [sample for sample in given if sample.label is not None]
    without = [sample for sample in given if sample.label is None]
    if len({sample.split for sample in labelled}) < 2:
        labelled = [replace(sample, split="") for sample in labelled]
    divided = any(sample.split for sample in labelled)
    lost = [
        Lost(sample.origin, "image", "It belongs to no split, although others do.")
        for sample in labelled
        if divided and not sample.split
    ]
    short = _shortened([sample for sample in labelled if sample.split or not divided])
    several = len({sample.split for sample in without}) > 1
    short += [replace(s, name=f"{s.split}/{s.name}") if several and s.split else s for s in _shortened(without)]
    return short, lost


def _shortened(samples: Sequence[Sample]) -> list[Sample]:
    """Returns the samples without the folders that all of a split share in their names."""
    result = []
    for split in dict.fromkeys(sample.split for sample in samples):
        group = [sample for sample in samples if sample.split == split]
        shared = os.path.commonpath([os.path.dirname(sample.name) for sample in group])
        result += [replace(s, name=os.path.relpath(s.name, shared) if shared else s.name) for s in group]
    return result
