"""A data set after which the examples of another come."""

from dataclasses import dataclass

from jaxseg.data.base import DataInfo, Example, Source


@dataclass(frozen=True, eq=False)
class Joined:
    """Some examples of a source, and after them those of another with the same classes.

    Attributes:
        source: the first.
        kept: the indices in it, ascending, of the examples that stay.
        added: the other.
        labelled: indices, ascending, of the images with labels.
    """

    source: Source
    kept: tuple[int, ...]
    added: Source
    labelled: tuple[int, ...]

    @property
    def info(self) -> DataInfo:
        """The classes of the first source."""
        return self.source.info

    def __len__(self) -> int:
        return len(self.kept) + len(self.added)

    def __getitem__(self, index: int) -> Example:
        """Returns image u8[h,w,c] or u16[h,w,c] and label u8[h,w]."""
        source, place = self._at(index)
        return source[place]

    def name(self, index: int) -> str:
        source, place = self._at(index)
        return source.name(place)

    def label_size(self, index: int) -> tuple[int, int]:
        source, place = self._at(index)
        return source.label_size(place)

    def _at(self, index: int) -> tuple[Source, int]:
        own = len(self.kept)
        return (self.source, self.kept[index]) if index < own else (self.added, index - own)
