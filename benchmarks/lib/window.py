"""A data set cut to windows of one size."""

from dataclasses import dataclass, replace

from jaxseg.data.base import DataInfo, Example, Source


@dataclass(eq=False)
class Windows:
    """A window of `size` in the centre of each image of a source that is at least as large.

    Attributes:
        source: the source.
        size: (height, width).
        kept: the indices of the images.
        info: what the masks mean.
    """

    source: Source
    size: tuple[int, int]
    kept: tuple[int, ...]
    info: DataInfo

    @classmethod
    def of(cls, source: Source, size: tuple[int, int]) -> "Windows":
        """Returns the windows of all images that are large enough."""
        sizes = [source.label_size(i) for i in range(len(source))]
        return cls(
            source, size, tuple(i for i, (h, w) in enumerate(sizes) if h >= size[0] and w >= size[1]), source.info
        )

    def first(self, count: int) -> "Windows":
        """Returns the first `count` of them."""
        return replace(self, kept=self.kept[:count])

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Example:
        example = self.source[self.kept[index]]
        h, w = example["label"].shape
        top, left = (h - self.size[0]) // 2, (w - self.size[1]) // 2
        part = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        return {"image": example["image"][part], "label": example["label"][part]}

    def name(self, index: int) -> str:
        return self.source.name(self.kept[index])

    def label_size(self, index: int) -> tuple[int, int]:
        return self.size
