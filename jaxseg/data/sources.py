"""What a data set is to the rest of jaxseg: a length, examples by index, and what its classes are."""

from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np

from jaxseg.config import ConfigDict, ConfigError
from jaxseg.data.errors import DataError
from jaxseg.words import nearest

SOURCES = ("shapes", "folder", "camvid", "voc2012", "oxford_iiit_pet", "cityscapes", "scene_parse150")
"""The values of `config.data.source`."""


class Example(TypedDict):
    """image: u8[h,w,c] or u16[h,w,c]. label: u8[h,w], class indices, with every ignored value mapped to IGNORE."""

    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class DataInfo:
    """What the masks of a data set mean.

    Attributes:
        classes: the name of each class, in the order of the label values.
        colors: the (r, g, b) in 0..255 in which each class is drawn.
        ignore: the value in the stored masks that counts nowhere, besides 255; None when there is none.
        channels: image channels of every example.
    """

    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore: int | None
    channels: int

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.colors):
            raise DataError(f"There are {len(self.classes)} class names but {len(self.colors)} class colours.")
        if not 1 <= len(self.classes) <= 255:
            raise DataError(f"There are {len(self.classes)} classes; 8-bit labels hold 1 to 255 (255 is ignored).")


class Source(Protocol):
    """A data set: `len(source)`, `source[i]`, and two facts about an example that need no decoding.

    `name(i)` is its file name, for messages and outputs; `label_size(i)` is the (height, width) of its mask. The same
    index gives the same example, in any process. A source pickles, so that worker processes can read it.
    """

    info: DataInfo

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def name(self, index: int) -> str: ...

    def label_size(self, index: int) -> tuple[int, int]: ...


def make_source(config: ConfigDict, split: str, *, strict: bool = True) -> Source:
    """Returns one split of the data set that `config.data` describes.

    Args:
        config: the whole configuration.
        split: "train", "val" or "test"; for TFDS data sets also a slice such as "train[:90%]".
        strict: a folder with anything wrong in it raises; otherwise its `problems` tell, for `jaxseg.data.check`.

    Raises:
        ConfigError: if there is no data set `config.data.source`.
        DataError: if the data is missing, damaged, empty, or disagrees with `config.data.classes` or
            `config.model.num_classes`.
    """
    data = config.data
    if data.source == "shapes":
        from jaxseg.data.shapes import ShapesSource

        length = data.shapes_train if split == "train" else data.shapes_val
        source: Source = ShapesSource(split, length, tuple(data.size), channels=data.channels)
    elif data.source == "folder":
        from jaxseg.data.folder import FolderSource

        source = FolderSource(
            data.dir, split, classes=data.classes, ignore=data.ignore, palette=data.palette,
            val_fraction=data.val_fraction, channels=data.channels, strict=strict,
        )  # fmt: skip
    elif data.source in SOURCES:
        from jaxseg.data.tfds import TFDSSource

        source = TFDSSource(data.source, split, data.dir, data.cache, channels=data.channels)
    else:
        raise ConfigError(f"There is no data set data.source={data.source!r}.{nearest(data.source, SOURCES)}")
    check_source(source, config, split)
    return source


def check_source(source: Source, config: ConfigDict, split: str) -> None:
    """Raises DataError if `source` is empty or its classes are not those of `config`."""
    what = f"the {config.data.source} data" + (f" in {config.data.dir!r}" if config.data.dir else "")
    classes = source.info.classes
    if len(source) == 0:
        raise DataError(f"The split {split!r} of {what} has no images; at least 1 was expected.")
    given = tuple(config.data.classes)
    if given and given != classes:
        raise DataError(
            f"config.data.classes names {len(given)} classes ({', '.join(map(str, given))}), but {what} has "
            f"{len(classes)} ({', '.join(classes)}); leave data.classes empty to take those of the data."
        )
    outputs = config.model.num_classes
    if outputs == 1 and len(classes) != 2:
        raise DataError(f"model.num_classes=1 is for two classes, but {what} has {len(classes)} classes.")
    if outputs > 1 and outputs != len(classes):
        raise DataError(
            f"model.num_classes is {outputs}, but {what} has {len(classes)} classes; 0 takes as many as the data has."
        )
