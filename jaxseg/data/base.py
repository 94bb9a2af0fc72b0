"""The interface of a data set: a length, examples by index, and the description of its classes."""

import dataclasses
from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np

from jaxseg.data.pages import takes_pages
from jaxseg.errors import DataError, counted
from jaxseg.sets import MOST_PARTLY
from jaxseg.types import IGNORE, IGNORE_16, MOST_IN_SETS, label_type


class Example(TypedDict):
    """One image with its label.

    Attributes:
        image: u8[h,w,c] or u16[h,w,c], or f32[h,w,c] in [0, 1] with `data.range`.
        label: u8[h,w], class indices, with every ignored value mapped to IGNORE. Of more than 255 classes it is
            u16[h,w], and every ignored value 65535 (`types.ignore_label`). Where a pixel may have several classes, it
            holds sets of them (`types.label_type` and `jaxseg.sets`).
    """

    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class DataInfo:
    """What the masks of a data set mean.

    Attributes:
        classes: the name of each class, in the order of the label values.
        colors: the (r, g, b) in 0..255 in which each class is drawn.
        ignore: the value in the stored masks that is ignored, besides 255 (65535 of more than 255 classes); None if
            there is none.
        channels: number of image channels of every example.
        range: the values in the files that become 0 and 1, `data.range`; (): those of their type.
        values: the value of each class in the stored masks; () where they are 0, 1, 2, ...
        color_masks: whether the stored masks hold `colors` in place of values.
        multilabel: whether a pixel may have several classes at once, so that labels are sets.
        partly: whether single classes of a set may be unknown.
    """

    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore: int | None
    channels: int
    values: tuple[int, ...] = ()
    color_masks: bool = dataclasses.field(default=False, compare=False)
    range: tuple[float, ...] = ()
    multilabel: bool = False
    partly: bool = False

    @property
    def paged(self) -> bool:
        """Whether the pages of a TIFF file may be the channels of one image."""
        return takes_pages(self.channels, self.range)

    @property
    def image_type(self) -> type[np.uint8] | type[np.float32]:
        """The type of an image without content: bytes, or floats where `range` makes floats of every file."""
        return np.float32 if self.range else np.uint8

    @property
    def label_type(self) -> type[np.unsignedinteger]:
        """The type of its label maps."""
        return label_type(len(self.classes), self.multilabel, self.partly)

    @property
    def ignored(self) -> int:
        """The label of an ignored pixel, the largest number of its type: 255, or 65535 of more than 255 classes."""
        return int(np.iinfo(self.label_type).max)

    def ignored_everywhere(self, size: tuple[int, ...]) -> np.ndarray:
        """Returns the label map [h,w] of an image without labels."""
        return np.full(size, self.ignored, self.label_type)

    @property
    def stored_values(self) -> tuple[int, ...]:
        """The value of each class in the stored masks."""
        return self.values or tuple(range(len(self.classes)))

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.colors):
            raise DataError(
                f"{counted(len(self.classes), 'class name')} and {counted(len(self.colors), 'class colour')} are "
                "given; each class needs both."
            )
        if self.multilabel and len(self.classes) > MOST_IN_SETS:
            raise DataError(
                f"{counted(len(self.classes), 'class')} are given, and a pixel may have several of at most "
                f"{MOST_IN_SETS} (data.multilabel)."
            )
        if self.partly and len(self.classes) > MOST_PARTLY:
            raise DataError(
                f"{counted(len(self.classes), 'class')} are given, of which some may be unknown at a pixel "
                f"(data.unknown), and a label has room for at most {MOST_PARTLY}."
            )
        if not 1 <= len(self.classes) <= IGNORE_16:
            raise DataError(
                f"{counted(len(self.classes), 'class')} are given; 16-bit labels hold 1 to {IGNORE_16} "
                f"({IGNORE_16} is ignored)."
            )


def require_bytes(what: str, classes: int) -> None:
    """Raises DataError of more than 255 classes, for what computes with labels of 8 bits, such as "An audit"."""
    if classes > IGNORE:
        raise DataError(
            f"{what} takes labels of 8 bits, which hold at most {IGNORE} classes, and there are "
            f"{counted(classes, 'class')}."
        )


class Source(Protocol):
    """A data set: `len(source)`, `source[i]`, and two properties of an example that are available without decoding.

    `name(i)` is its file name, for messages and outputs; `label_size(i)` is the (height, width) of its mask. The same
    index gives the same example in every process. A source can be pickled, so that worker processes can read it.
    """

    @property
    def info(self) -> DataInfo: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def name(self, index: int) -> str: ...

    def label_size(self, index: int) -> tuple[int, int]: ...
