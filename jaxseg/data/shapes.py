"""Images of overlapping shapes made from (seed, split, index): a data set that needs no download.

There are five kinds of shapes on a textured background. The colours of all surfaces come from the same distribution, so
the colour of a pixel says almost nothing about its class: a network has to see the whole outline. Shapes overlap, are
cut by the border, and are drawn with partial coverage at their edges; brightness varies across the image, and noise
is added.

Only NumPy is used. An image of 64x64 takes about a millisecond, so images are made when they are read.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from jaxseg.data.base import DataInfo, Example
from jaxseg.errors import DataError, counted, nearest

CLASSES = ("background", "disc", "square", "triangle", "ring", "cross")
COLORS = ((32, 32, 32), (66, 135, 245), (240, 90, 70), (250, 190, 60), (60, 180, 120), (170, 100, 220))
SPLITS = ("train", "val", "test")

_GRID = 4  # subsamples along each side of a pixel
_LAYERS = 8  # largest number of layers, including the background
_TILT = 0.3  # largest rotation in either direction, in radians
_KEPT = 0.75  # share of a shape's area that shapes above it must leave visible
_KEEP = 2**28  # largest size in bytes of the painted images that a source keeps


class Shape(NamedTuple):
    """A shape to be drawn: class, centre and radius in pixels, angle in radians."""

    kind: int
    y: float
    x: float
    radius: float
    angle: float


class ShapesSource:
    """The shapes data; see the module's docstring.

    Args:
        split: "train", "val" or "test": three disjoint streams of images.
        length: number of images.
        size: (height, width) in pixels; shapes scale with the smaller side.
        seed: a different seed gives a different data set. It is not the seed of the run, so that runs with different
            seeds are compared on the same images.
        channels: 1 (luma), 3, or 4 (opaque alpha).
        imbalance: how many times more often the first kind of shape (disc) is drawn than the last (cross), in all
            splits; each kind between them is drawn by the same factor less often than the one before, the long-tailed
            profile of Cui et al. 2019, section 5.1. 1: all alike.
        multilabel: labels are sets (`jaxseg.sets`): a pixel has the kinds of all shapes that lie there, also of
            those behind others, and none where there is background. The images are the same.

    Raises:
        DataError: for an unknown split, a length below 1, a size below 1, another number of channels or an imbalance
            below 1.
    """

    def __init__(
        self,
        split: str,
        length: int,
        size: tuple[int, int] = (64, 64),
        *,
        seed: int = 0,
        channels: int = 3,
        imbalance: float = 1.0,
        multilabel: bool = False,
    ):
        if split not in SPLITS:
            raise DataError(f"The shapes data has no split {split!r}.{nearest(split, SPLITS)}")
        if length < 1 or min(size) < 1:
            raise DataError(f"The shapes data needs length and size of at least 1, got {length} and {size}.")
        if channels not in (1, 3, 4):
            raise DataError(f"The shapes data has 1, 3 or 4 channels, not {channels}.")
        if not 1 <= imbalance < math.inf:
            raise DataError(f"The imbalance of the shapes data is at least 1, not {imbalance:g}.")
        self._odds = _odds(imbalance)
        self.split, self.length, self.size, self.seed = split, length, (size[0], size[1]), seed
        self.info = DataInfo(CLASSES, COLORS, None, channels)
        if multilabel:
            self.info = DataInfo(CLASSES[1:], COLORS[1:], None, channels, multilabel=True)
        # Images are painted once and kept if all of them fit into _KEEP bytes.
        self._kept: dict[int, Example] | None = {} if length * size[0] * size[1] * (channels + 1) <= _KEEP else None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        """Returns image u8[h,w,c] and label u8[h,w]."""
        if not 0 <= index < self.length:
            raise IndexError(
                f"index {index} is outside the {counted(self.length, 'image')} of the shapes {self.split} split"
            )
        if self._kept is not None and index in self._kept:
            return self._kept[index].copy()
        rng = _generator(self.seed, self.split, index)
        shapes, weights = _arrange(rng, self.size, self._odds)
        image = _channels(_paint(rng, weights), self.info.channels)
        label = _sets(shapes, self.size) if self.info.multilabel else _label(shapes, weights)
        image.flags.writeable = label.flags.writeable = False
        example: Example = {"image": image, "label": label}
        if self._kept is not None:
            self._kept[index] = example
        return example.copy()

    def label_size(self, index: int) -> tuple[int, int]:
        return self.size

    def name(self, index: int) -> str:
        return f"shapes-{self.split}-{index:06d}"


def _generator(seed: int, split: str, index: int) -> np.random.Generator:
    """Returns the stream of random numbers of one image."""
    entropy = (seed % 2**64, SPLITS.index(split), int(index))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def _odds(imbalance: float) -> np.ndarray | None:
    """Returns f64[k-1], the probability of each kind of shape; None: all alike."""
    if imbalance == 1:
        return None
    kinds = len(CLASSES) - 1
    odds = imbalance ** -(np.arange(kinds) / (kinds - 1))
    return odds / odds.sum()


def _arrange(
    rng: np.random.Generator, size: tuple[int, int], odds: np.ndarray | None
) -> tuple[list[Shape], np.ndarray]:
    """Draws shapes from back to front; returns them with f32[1+n,h,w], the share of each pixel where a layer shows."""
    h, w = size
    side = min(h, w)
    owner = np.zeros((h * _GRID, w * _GRID), np.uint8)  # the visible layer at each subsample
    crowd = 1 + max(h, w) // side
    wanted = min(int(rng.integers(crowd, 2 * crowd + 1)), _LAYERS - 1)
    shapes: list[Shape] = []
    areas, seen = np.zeros(_LAYERS), np.zeros(_LAYERS)  # in subsamples, of each shape
    for _ in range(3 * wanted):
        if len(shapes) == wanted:
            break
        radius = side * rng.uniform(0.21, 0.33)
        y, x = rng.uniform(0.6 * radius, h - 0.6 * radius), rng.uniform(0.6 * radius, w - 0.6 * radius)
        kind = int(rng.integers(1, len(CLASSES)) if odds is None else 1 + rng.choice(len(odds), p=odds))
        shape = Shape(kind, y, x, radius, rng.uniform(-_TILT, _TILT))
        box, inside = _rasterize(shape, owner.shape)
        covered = np.bincount(owner[box][inside], minlength=_LAYERS)
        if not inside.any() or np.any((seen - covered < _KEPT * areas)[1:]):
            continue
        shapes.append(shape)
        seen -= covered
        areas[len(shapes)] = seen[len(shapes)] = covered.sum()
        owner[box][inside] = len(shapes)
    return shapes, _shares(owner, len(shapes) + 1)


def _shares(owner: np.ndarray, layers: int) -> np.ndarray:
    """Returns f32[n,h,w], the share of a pixel's subsamples in each layer, from u8[4h,4w]."""
    seen = (owner == np.arange(layers, dtype=np.uint8)[:, None, None]).view(np.uint8)
    rows = seen[:, 0::_GRID] + seen[:, 1::_GRID] + seen[:, 2::_GRID] + seen[:, 3::_GRID]
    counts = rows[..., 0::_GRID] + rows[..., 1::_GRID] + rows[..., 2::_GRID] + rows[..., 3::_GRID]
    return counts.astype(np.float32) / _GRID**2


def _rasterize(shape: Shape, grid: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Returns the box of subsamples around a shape, and bool[box]: which of their centres lie inside it."""
    reach = 1.2 * shape.radius
    rows, columns = (
        slice(max(0, math.floor((c - reach) * _GRID)), min(n, math.ceil((c + reach) * _GRID)))
        for c, n in zip((shape.y, shape.x), grid)
    )
    row, column = (np.arange(s.start, s.stop, dtype=np.float32) for s in (rows, columns))
    # Each row of subsamples is shifted right by 1/16 pixel, and each column down by 1/16 pixel, so that the 16
    # subsamples of a pixel have 16 different x and y: a vertical edge is resolved to 1/16 instead of 1/4 pixel.
    y, x = (row + 0.5 / _GRID) / _GRID - shape.y, (column + 0.5 / _GRID) / _GRID - shape.x
    right, down = row % _GRID / _GRID**2, column % _GRID / _GRID**2
    cos, sin = np.float32(math.cos(shape.angle) / shape.radius), np.float32(math.sin(shape.angle) / shape.radius)
    u = (cos * x + sin * down)[None, :] + (cos * right + sin * y)[:, None]
    v = (cos * down - sin * x)[None, :] + (cos * y - sin * right)[:, None]
    return (rows, columns), _inside(CLASSES[shape.kind], u, v)


def _inside(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns whether each point lies in the shape of radius 1 around 0; areas are 0.45 to 0.8 times pi."""
    if kind == "disc":
        return u * u + v * v < 0.81
    if kind == "square":
        return np.maximum(np.abs(u), np.abs(v)) < 0.82
    if kind == "triangle":  # pointing up: three half-planes at distance 0.58 from the centre
        return (v < 0.58) & (np.abs(u) * np.float32(0.8660254) - 0.5 * v < 0.58)
    if kind == "ring":
        distance = u * u + v * v
        return (distance < 1.0) & (distance > 0.25)
    a, b = np.abs(u), np.abs(v)
    return (np.minimum(a, b) < 0.33) & (np.maximum(a, b) < 1.0)


def _label(shapes: list[Shape], weights: np.ndarray) -> np.ndarray:
    """Returns u8[h,w]: the class that covers more than half of the pixel, or, if none does, the largest part of it."""
    shares = np.zeros((len(CLASSES), *weights.shape[1:]), np.float32)
    for kind, weight in zip([0, *(s.kind for s in shapes)], weights):
        shares[kind] += weight
    return shares.argmax(0).astype(np.uint8)


def _sets(shapes: list[Shape], size: tuple[int, int]) -> np.ndarray:
    """Returns u8[h,w]: bit c of the kind c + 1 of each shape that covers over half of the pixel, hidden or not."""
    label = np.zeros(size, np.uint8)
    for shape in shapes:
        whole = np.zeros((size[0] * _GRID, size[1] * _GRID), np.uint8)
        box, inside = _rasterize(shape, whole.shape)
        whole[box] = inside
        label |= (_shares(whole, 2)[1] > 0.5).astype(np.uint8) << np.uint8(shape.kind - 1)
    return label


def _paint(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """Fills each layer with its own texture, varies the brightness and adds noise; returns u8[h,w,3]."""
    layers, h, w = weights.shape
    y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)[None, :]
    bases = _colors(rng, layers)
    image = np.zeros((3, h, w), np.float32)
    for weight, base in zip(weights, bases):
        tint = rng.uniform(-0.12, 0.12, 3).astype(np.float32)
        textured = weight * _texture(rng, h, w)
        for channel in range(3):
            image[channel] += textured * tint[channel] + weight * base[channel]
    angle, slope = rng.uniform(-math.pi, math.pi), rng.uniform(0.0, 0.35)
    light = np.exp(np.float32(slope * math.cos(angle)) * x + np.float32(slope * math.sin(angle)) * y)
    image *= light * rng.uniform(0.9, 1.1, (3, 1, 1)).astype(np.float32)
    image += np.float32(rng.uniform(0.005, 0.025)) * rng.standard_normal((3, h, w), np.float32)
    levels = (np.clip(image, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def _colors(rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns f32[n,3]: colours from one distribution, any two at least 0.5 apart if the draws allow it."""
    colors = rng.uniform(0.12, 0.88, (count, 3)).astype(np.float32)
    for i in range(1, count):
        choices = rng.uniform(0.12, 0.88, (8, 3)).astype(np.float32)
        distance = np.square(choices[:, None] - colors[None, :i]).sum(-1).min(-1)
        near = distance < 0.5**2
        colors[i] = choices[distance.argmax() if near.all() else near.argmin()]
    return colors


def _texture(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Returns f32[h,w] around [-1, 1]: stripes, checks or clouds, of random scale and direction."""
    kind = rng.integers(3)
    if kind == 2:
        cells = int(rng.integers(3, 9))
        grid = rng.uniform(-1.3, 1.3, (cells, cells)).astype(np.float32)
        return _ramp(h, cells) @ grid @ _ramp(w, cells).T
    period, angle = rng.uniform(5.0, 14.0), rng.uniform(-math.pi, math.pi)
    y, x = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)[None, :]
    along, across = 2 * math.pi / period * math.cos(angle), 2 * math.pi / period * math.sin(angle)
    phase = rng.uniform(0, 2 * math.pi, 2)
    stripes = np.sin(along * x + across * y + phase[0], dtype=np.float32)
    if kind == 0:
        return stripes
    return np.clip(2 * stripes * np.sin(along * y - across * x + phase[1], dtype=np.float32), -1, 1)


@lru_cache(maxsize=64)
def _ramp(length: int, cells: int) -> np.ndarray:
    """Returns f32[length,cells], the weights of linear interpolation between `cells` evenly spaced values."""
    position = np.linspace(0, cells - 1, length, dtype=np.float32)[:, None]
    weights = np.maximum(0, 1 - np.abs(position - np.arange(cells, dtype=np.float32)))
    weights.flags.writeable = False
    return weights


def _channels(image: np.ndarray, channels: int) -> np.ndarray:
    if channels == 1:
        luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        return (luma + 0.5).astype(np.uint8)[..., None]
    if channels == 4:
        return np.concatenate([image, np.full_like(image[..., :1], 255)], axis=-1)
    return image
