"""Pictures that show nearly the same: saved again, resized or brightened, and frames of one scene.

Each image leaves a sketch of 1 kB. Sketches are compared in two steps: 64-bit hashes that differ in few bits are found
by parts of their bits that agree (Norouzi, Punjani and Fleet 2012, "Fast Search in Hamming Space with Multi-Index
Hashing", section 3), and such pairs count if their small pictures correlate. A mirrored or turned picture is another.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxseg.data.values import top_of

SIDE = 32  # of the small picture
DISTANCE = 7  # bits of 64; of four parts of 16 bits, one then has at most one other bit
LIKENESS = 0.98  # the least correlation of two small pictures

_LOW = 8  # lowest frequencies in each direction
_FLAT = 1.5  # a standard deviation, of 255, below which a picture shows nothing to compare
_PAIRS = 2**18  # compared at a time


class Sketch(NamedTuple):
    """What is kept of an image.

    Attributes:
        hash: of 64 bits, for the lowest frequencies of the small picture.
        picture: u8[32,32], the mean of the channels, shrunk; its own range is stretched to 0..255.
        flat: whether the image shows nothing that could be compared, as one of a single colour does.
    """

    hash: int
    picture: np.ndarray
    flat: bool


NOTHING = Sketch(0, np.zeros((SIDE, SIDE), np.uint8), True)
"""The sketch of an image that cannot be read, which is like no other."""


def sketch(image: np.ndarray) -> Sketch:
    """Returns the sketch of an image u8|u16[h,w,c], or f32 in [0, 1].

    The hash has a bit for each of the 8 x 8 lowest frequencies of a cosine transform of the small picture, without the
    mean: whether its coefficient is above the median of all (the perceptual hash of Zauner 2010, section 3.2).
    """
    top = top_of(image)
    # Of a large image every n-th pixel is read: at least eight for each pixel of the small picture.
    steps = [max(1, side // (8 * SIDE)) for side in image.shape[:2]]
    grey = image[:: steps[0], :: steps[1]].mean(-1, dtype=np.float32) * (255.0 / top)
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX))
    flat = bool(small.std() < _FLAT)
    low, high = float(small.min()), float(small.max())
    small = (small - low) * (255.0 / max(high - low, 1e-6))
    waves = _WAVES @ small @ _WAVES.T
    values = waves.ravel()[1:]
    bits = np.append(values > np.median(values), False)
    return Sketch(int(np.packbits(bits).view(">u8")[0]), np.rint(small).astype(np.uint8), flat)


def _cosines() -> np.ndarray:
    """Returns f32[8,32], the lowest rows of the type-II cosine transform of 32 numbers."""
    places = (2 * np.arange(SIDE) + 1) * np.pi / (2 * SIDE)
    return np.cos(np.arange(_LOW)[:, None] * places).astype(np.float32)


_WAVES = _cosines()


def find_links(sketches: Sequence[Sketch]) -> list[tuple[int, int]]:
    """Returns pairs (i, j), i < j, of near-duplicates, sorted: enough to connect those of each group, and no more.

    Flat pictures are left out. The memory for n sketches is that of the sketches and some 100 bytes each; a group of n
    pictures with one hash takes n comparisons.
    """
    kept = [i for i, each in enumerate(sketches) if not each.flat]
    if len(kept) < 2:
        return []
    hashes = np.array([sketches[i].hash for i in kept], np.uint64)
    pictures = np.stack([sketches[i].picture for i in kept])
    groups = _Groups(len(kept))
    links: list[tuple[int, int]] = []
    for first, second in _candidates(hashes):
        apart = groups.apart(first, second)
        first, second = first[apart], second[apart]
        for a, b in zip(*_alike(pictures, first, second)):
            if groups.join(int(a), int(b)):
                links.append((kept[min(a, b)], kept[max(a, b)]))
    return sorted(links)


def groups_of(links: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Returns the indices that links connect, each group sorted and the groups by their first index."""
    indices = sorted({i for link in links for i in link})
    place = {index: i for i, index in enumerate(indices)}
    groups = _Groups(len(indices))
    for a, b in links:
        groups.join(place[a], place[b])
    found: dict[int, list[int]] = {}
    for i, index in enumerate(indices):
        found.setdefault(groups.of(i), []).append(index)
    return [tuple(group) for group in found.values()]


class _Groups:
    """Which of n things are connected."""

    def __init__(self, count: int):
        self._number = np.arange(count)
        self._members: dict[int, list[int]] = {}

    def of(self, i: int) -> int:
        """Returns the number of the group of a thing."""
        return int(self._number[i])

    def apart(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Returns bool[m]: whether the things of each pair are not connected yet."""
        return self._number[first] != self._number[second]

    def join(self, a: int, b: int) -> bool:
        """Connects two things; returns whether they were not connected before."""
        own, other = self.of(a), self.of(b)
        if own == other:
            return False
        sets = [self._members.pop(i, [i]) for i in (own, other)]
        (few, _), (many, number) = sorted(zip(sets, (own, other)), key=lambda each: len(each[0]))
        self._number[few] = number
        many.extend(few)
        self._members[number] = many
        return True


def _candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields index arrays (first, second) of pairs whose hashes u64[n] differ in at most `DISTANCE` bits.

    Of several with one hash, each is paired with the first of them, which alone is compared with others.
    """
    different, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    same = np.flatnonzero(first[which] != np.arange(len(hashes)))
    for block in np.array_split(same, -(-len(same) // _PAIRS) or 1):
        yield first[which[block]], block
    parts = different.astype("<u8").view("<u2").reshape(-1, 4)
    for part in parts.T:
        order = np.argsort(part, kind="stable")
        sorted_part = part[order]
        for change in (0, *(1 << bit for bit in range(16))):
            wanted = part ^ np.uint16(change)
            starts, ends = (np.searchsorted(sorted_part, wanted, side) for side in ("left", "right"))
            for rows in _blocks(ends - starts):
                counts = (ends - starts)[rows]
                one = np.repeat(rows, counts)
                offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
                two = order[np.repeat(starts[rows], counts) + offsets]
                near = (one < two) & (np.bitwise_count(different[one] ^ different[two]) <= DISTANCE)
                yield first[one[near]], first[two[near]]


def _blocks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yields indices of rows whose counts add up to about `_PAIRS`, all rows with a count above 0 once."""
    rows = np.flatnonzero(counts)
    block = np.cumsum(counts[rows]) // _PAIRS
    yield from (each for each in np.split(rows, np.flatnonzero(np.diff(block)) + 1) if len(each))


def _alike(pictures: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns those of the pairs whose pictures u8[n,32,32] correlate by at least `LIKENESS`."""
    kept = []
    for block in range(0, len(first), 2**12):
        pair = [_standard(pictures[each[block : block + 2**12]]) for each in (first, second)]
        kept.append(np.einsum("np,np->n", *pair) >= LIKENESS)
    chosen = np.concatenate(kept) if kept else np.zeros(0, bool)
    return first[chosen], second[chosen]


def likeness(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """u8[n,32,32], u8[m,32,32] -> f32[n,m], how small pictures correlate."""
    return _standard(one) @ _standard(two).T


def _standard(pictures: np.ndarray) -> np.ndarray:
    """Returns f32[n,1024] with mean 0 and length 1 in each row."""
    rows = pictures.reshape(len(pictures), -1).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
