"""The split of any data set with weaker labels in place of its own: what would be known with fewer of them."""

import hashlib
from collections.abc import Sequence

import numpy as np

from jaxseg.data.base import Example, Source, require_bytes
from jaxseg.data.weak.drawing import Drawing, draw
from jaxseg.data.weak.made import Weaker, marks_of
from jaxseg.data.weak.marks import Mark
from jaxseg.types import IGNORE

_KEEP = 2**28  # largest size in bytes of the labels that a source keeps


class WeakenedSource:
    """A source whose labels are drawn from the marks that `marks_of` makes of the full ones.

    The marks of an image depend on its name and the seed alone, so that every run sees the same. What is IGNORE in the
    full labels stays so. A point or scribble labels no pixel of another class, as a careful annotator would not; boxes
    do.

    Args:
        full: the data set with full labels; its class 0 is the background.
        kind: what its labels become.
        how: how marks become labels; `outside` follows from `kind`.
        seed: of what is random in the marks. It is not the seed of the run.
    """

    def __init__(self, full: Source, kind: Weaker, how: Drawing | None = None, seed: int = 0):
        require_bytes("data.weaken", len(full.info.classes))
        self.full, self.info, self.seed = full, full.info, seed
        self.kind: Weaker = kind
        self.how = (how or Drawing())._replace(outside=kind == "boxes")
        self._indices = {name: index for index, name in enumerate(full.info.classes)}
        self._kept: dict[int, np.ndarray] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.full)

    def __getitem__(self, index: int) -> Example:
        """Returns image u8|u16[h,w,c] and the weaker label u8[h,w]."""
        example = self.full[index]
        if index not in self._kept:
            label = self.weaker(index, example["label"])
            if self._bytes + label.size > _KEEP:
                return {"image": example["image"], "label": label}
            self._bytes += label.size
            self._kept[index] = label
        return {"image": example["image"], "label": self._kept[index].copy()}

    def marks(self, index: int, label: np.ndarray) -> tuple[Mark, ...]:
        """Returns the marks of an example with the full label u8[h,w]."""
        name = hashlib.blake2b(self.name(index).encode(errors="surrogateescape"), digest_size=8).digest()
        rng = np.random.default_rng((self.seed, int.from_bytes(name, "big")))
        return marks_of(label, self.kind, self.info.classes, rng)

    def weaker(self, index: int, label: np.ndarray) -> np.ndarray:
        """Returns the weaker label u8[h,w] of an example with the full label u8[h,w]."""
        drawn = draw(self.marks(index, label), label.shape[:2], self._indices, self.how)
        if self.kind in ("points", "scribbles"):
            drawn = np.where(drawn == label, drawn, IGNORE)
        return np.where(label == IGNORE, IGNORE, drawn).astype(np.uint8)

    def name(self, index: int) -> str:
        return self.full.name(index)

    def label_size(self, index: int) -> tuple[int, int]:
        return self.full.label_size(index)

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong in the data with full labels."""
        return getattr(self.full, "problems", ())

    @property
    def remarks(self) -> Sequence[str]:
        """What may be wrong in the data with full labels."""
        return getattr(self.full, "remarks", ())
