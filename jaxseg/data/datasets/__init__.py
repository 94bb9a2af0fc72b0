"""The public data sets, one file each: its classes, its raw mask values, its splits, and how to get it.

`describe(name)` imports the file of one data set. To add a data set, write a new file with a `DATASET` and add its name
to `jaxseg.data.sources.SOURCES`; if TFDS does not have it, the file also needs a `Builder`, see `local.py`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxseg.types import IGNORE

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Dataset:
    """The description of a data set that the TFDS adapter needs.

    Attributes:
        name: the name in TFDS, or of the builder beside this file.
        classes: class names in label order.
        colors: the usual (r, g, b) of each class.
        image: name of the image feature.
        mask: name of the mask feature; if it has several channels, the first is used.
        file_name: name of the feature with the file's name; None if there is none.
        labels: raw mask value -> label, or IGNORE.
        others_ignored: whether raw values outside `labels` are IGNORE; otherwise they are an error.
        ignore: the one raw value that means "no class"; None if only 255 does, or several values do.
        splits: "train", "val", "test" -> the split in TFDS; a split without public masks is left out.
        folders: the folders of the unpacked download that TFDS's own builder reads; empty for a builder of jaxseg.
        get_it: a sentence that says what to download and where to put it.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    image: str
    mask: str
    file_name: str | None
    labels: Mapping[int, int]
    others_ignored: bool
    ignore: int | None
    splits: Mapping[str, str]
    folders: tuple[str, ...]
    get_it: str

    @property
    def values(self) -> tuple[int, ...]:
        """The raw mask value of each class, the smallest where a class has several."""
        classes = range(len(self.classes))
        return tuple(min(value for value, label in self.labels.items() if label == i) for i in classes)

    def label_table(self) -> np.ndarray:
        """Returns i16[256]: raw mask value -> label, IGNORE, or -1 for a value that must not occur."""
        table = np.full(256, IGNORE if self.others_ignored else -1, np.int16)
        table[255] = IGNORE
        for value, label in self.labels.items():
            table[value] = label
        return table


def describe(name: str) -> Dataset:
    """Returns the description of the data set `name` (one of `jaxseg.data.sources.SOURCES`)."""
    return importlib.import_module(f"{__name__}.{name}").DATASET
