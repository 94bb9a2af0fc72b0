"""Whether a mask fits its image better mirrored or moved: the edges of the mask against the gradients of the image."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from jaxseg.data.values import top_of

SIDE = 256
"""Pixels of the longer side at which an image and its mask are compared; smaller ones stay as they are."""
REACH = 0.15
"""The longest move that is looked for, as a share of each side."""
LEAST = 0.35
"""The agreement that another form needs, in standard deviations of the image's gradients."""
MARGIN = 0.25
"""By how much it must exceed that of the mask as it is, and by half of itself."""
_NEAR = 1  # pixels of a move that is none
_APART = 4  # pixels of the shortest move that counts
_EDGES = 48  # pixels of edges that a mask needs to be compared


class Fit(NamedTuple):
    """How well a mask fits an image as it is, and the other form that fits best.

    Attributes:
        own: the mean gradient of the image along the edges of the mask, in standard deviations above its mean.
        form: the other form: "mirrored left to right", "mirrored top to bottom", "turned by 180 degrees" or
            "moved by 12 pixels to the right and 3 up".
        other: the agreement of that form.
    """

    own: float
    form: str
    other: float

    @property
    def doubtful(self) -> bool:
        """Whether the other form agrees clearly better."""
        return self.other >= LEAST and self.other - max(self.own, 0.0) >= max(MARGIN, 0.5 * self.other)


def mask_fit(image: np.ndarray, label: np.ndarray, ignored: int) -> Fit | None:
    """Returns the fit of a mask; None if its edges are too short, or the image shows nothing.

    Args:
        image: u8|u16[h,w,c], or f32 in [0, 1].
        label: u8|u16[h,w].
        ignored: the label that is no class; edges along it are not looked at.
    """
    factor = max(1.0, max(label.shape) / SIDE)
    h, w = (max(8, round(side / factor)) for side in label.shape)
    grey = image.mean(-1, dtype=np.float32) * (255.0 / top_of(image))
    grey = np.asarray(Image.fromarray(grey).resize((w, h), Image.Resampling.BOX), np.float32)
    rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip((h, w), label.shape))
    edges = _edges(label[np.ix_(rows, columns)], ignored)
    slope = ndimage.gaussian_gradient_magnitude(grey, 1.0)
    deviation = float(slope.std())
    if edges.sum() < _EDGES or deviation < 0.25:
        return None
    slope = np.minimum(slope, np.quantile(slope, 0.98))  # a few strong edges do not decide
    slope = (slope - slope.mean()) / max(float(slope.std()), 1e-6)
    reach = [max(_APART, int(REACH * n)) for n in (h, w)]
    moves = _agreements(slope, edges, reach)
    y, x = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    far = np.maximum(abs(y), abs(x))
    own = float(moves[far <= _NEAR].max())
    best = int(np.where(far >= _APART, moves, -np.inf).argmax())
    move = (round(float(y.flat[best]) * factor), round(float(x.flat[best]) * factor))
    found = [(float(moves.flat[best]), _words(*move))]
    for name, turned in _mirrored(edges):
        found.append((float(_agreements(slope, turned, [_NEAR, _NEAR]).max()), name))
    other, form = max(found)
    return Fit(own, form, other)


def _mirrored(edges: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "mirrored left to right", edges[:, ::-1]
    yield "mirrored top to bottom", edges[::-1]
    yield "turned by 180 degrees", edges[::-1, ::-1]


def _edges(label: np.ndarray, ignored: int) -> np.ndarray:
    """Returns bool[h,w], the pixels beside one of another class."""
    edges = np.zeros(label.shape, bool)
    for axis in (0, 1):
        a, b = (np.take(label, range(start, label.shape[axis] - 1 + start), axis) for start in (0, 1))
        differ = (a != b) & (a != ignored) & (b != ignored)
        first, second = [slice(None)] * 2, [slice(None)] * 2
        first[axis], second[axis] = slice(0, -1), slice(1, None)
        edges[tuple(first)] |= differ
        edges[tuple(second)] |= differ
    return edges


def _agreements(slope: np.ndarray, edges: np.ndarray, reach: list[int]) -> np.ndarray:
    """Returns f64[2y+1,2x+1], the mean of a map over edges that are moved by -y..y and -x..x pixels.

    What is moved out of the image counts as 0, the mean of the map, so that a few edges that are left do not decide.
    """
    shape = [n + 2 * r for n, r in zip(slope.shape, reach)]
    product = np.fft.rfft2(slope, shape) * np.conj(np.fft.rfft2(edges.astype(np.float32), shape))
    sums = np.fft.irfft2(product, shape)
    sums = np.roll(sums, reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    return np.asarray(sums) / edges.sum()


def _words(down: int, right: int) -> str:
    parts = [f"{abs(right)} pixels to the {'right' if right > 0 else 'left'}"] if right else []
    parts += [f"{abs(down)} {'down' if down > 0 else 'up'}"] if down else []
    return f"moved by {' and '.join(parts)}"
