"""Classical segmentation of an image into regions, through scikit-image, and the classes of regions.

A segmenter takes a `View` and returns i32[h,w], the region of each pixel, 0 to n - 1. All of them end in `tidy`, so a
region is one 4-connected piece of at least `least_area` pixels. They learn nothing. Their
parameters were set by hand on training images and are the same for all data. `Neighbours` gives a region the class of
the most similar training regions.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from lib.mean_shift import mean_shift
from scipy import ndimage, signal
from scipy.cluster.vq import kmeans2, vq
from scipy.spatial import cKDTree
from skimage import color, feature, filters, measure, segmentation

from jaxseg.types import IGNORE

FEATURES = (
    "L",
    "a",
    "b",
    "spread of L",
    "gradient",
    "y",
    "x",
    "log area",
    "moment",
    "elongation",
    "fill",
    "outline",
    "border",
)
"""Number of measurements that `describe` makes of a region."""


class View(NamedTuple):
    """An image with what all segmenters need of it, computed once.

    image: u8[h,w,3]. lab: its L*a*b*, f32[h,w,3]. smooth: the same under a Gaussian of one pixel. slope: Sobel's
    gradient of `smooth`, over the three channels together, f32[h,w].
    """

    image: np.ndarray
    lab: np.ndarray
    smooth: np.ndarray
    slope: np.ndarray


Segmenter = Callable[[View], np.ndarray]


def look(image: np.ndarray) -> View:
    """Looks at u8[h,w,3]."""
    lab = color.rgb2lab(image.astype(np.float32) / 255)
    smooth = filters.gaussian(lab, 1.0, channel_axis=-1)
    slope = np.linalg.norm([filters.sobel(smooth[..., channel]) for channel in range(3)], axis=0)
    return View(image, lab, smooth, slope)


def canny_watershed(view: View) -> np.ndarray:
    """Canny's edges (1986), and a watershed from the places furthest from them, which closes gaps in an edge."""
    edges = feature.canny(view.lab[..., 0] / 100, sigma=1.5)
    distance = filters.gaussian(ndimage.distance_transform_edt(~edges), 1.0)
    return tidy(segmentation.watershed(-distance, _peaks(distance)), view.slope)


def sobel_watershed(view: View) -> np.ndarray:
    """Watershed of Sobel's gradient from its local minima (Beucher and Lantuejoul 1979)."""
    return tidy(segmentation.watershed(view.slope, _peaks(-view.slope)), view.slope)


def texture_kmeans(view: View, clusters: int = 6, window: int = 11) -> np.ndarray:
    """K-means of the histograms of uniform local binary patterns (Ojala 2002) in a window around each pixel."""
    grey = (view.lab[..., 0] * 2.55).astype(np.uint8)
    patterns = feature.local_binary_pattern(grey, 8, 1.0, "uniform")
    shares = [ndimage.uniform_filter((patterns == code).astype(np.float32), window) for code in range(10)]
    return tidy(_kmeans(np.stack(shares, axis=-1), clusters), view.slope)


def gabor_kmeans(view: View, clusters: int = 6) -> np.ndarray:
    """K-means of the energy of Gabor filters of three octaves and four directions (Jain and Farrokhnia 1991).

    A filter's energy is the absolute value of its response, averaged under a Gaussian of half a wavelength, and
    measured in its standard deviation over the image.
    """
    energies = []
    for frequency in (0.1, 0.2, 0.4):  # cycles a pixel
        for quarter in range(4):
            kernel = filters.gabor_kernel(frequency, quarter * np.pi / 4)
            kernel -= kernel.mean()  # a plain surface has no energy
            around = np.pad(view.lab[..., 0], [(side // 2, side // 2) for side in kernel.shape], mode="reflect")
            response = np.abs(signal.oaconvolve(around, kernel, mode="valid"))
            energies.append(filters.gaussian(response, 0.5 / frequency))
    energy = np.stack(energies, axis=-1)
    spread = energy.std(axis=(0, 1))
    return tidy(_kmeans(energy / np.where(spread > 1e-6, spread, 1.0), clusters), view.slope)


def colour_kmeans(view: View, clusters: int = 6) -> np.ndarray:
    """K-means of the colours in L*a*b*."""
    return tidy(_kmeans(view.smooth, clusters), view.slope)


def colour_mean_shift(view: View, radius: float = 8.0) -> np.ndarray:
    """Mean shift of the colours in L*a*b*, see `lib/mean_shift.py`."""
    return tidy(mean_shift(view.smooth, radius), view.slope)


def felzenszwalb(view: View, scale: float = 200.0) -> np.ndarray:
    """Felzenszwalb and Huttenlocher 2004: merges along a spanning tree while the step is small for the region."""
    least = least_area(*view.slope.shape)
    return tidy(segmentation.felzenszwalb(view.image, scale=scale, sigma=0.8, min_size=least), view.slope)


def slic_merging(view: View, pieces: int = 300, apart: float = 8.0) -> np.ndarray:
    """SLIC superpixels (Achanta 2012), of which touching ones less than `apart` in L*a*b* are merged, see `merge`."""
    found = segmentation.slic(view.image, pieces, 10.0, max_num_iter=5, sigma=1.0, start_label=0)
    return tidy(merge(found, view.smooth, apart), view.slope)


SEGMENTERS: dict[str, Segmenter] = {
    "Canny + watershed": canny_watershed,
    "Sobel + watershed": sobel_watershed,
    "LBP + k-means": texture_kmeans,
    "Gabor + k-means": gabor_kmeans,
    "colour k-means": colour_kmeans,
    "colour mean shift": colour_mean_shift,
    "Felzenszwalb": felzenszwalb,
    "SLIC + merging": slic_merging,
}


def least_area(h: int, w: int) -> int:
    """The pixels that a region has at least: 19 of 64x64, 124 of 360x480."""
    return max(1, int(0.3 * np.sqrt(h * w)))


def tidy(labels: np.ndarray, slope: np.ndarray, least: int | None = None) -> np.ndarray:
    """Cuts labels i[h,w] into 4-connected pieces and floods the small ones from the others: i32[h,w], 0 to n - 1.

    Args:
        labels: any integers from 0 on.
        slope: f[h,w], the heights that the flood climbs, lowest first.
        least: pixels of the smallest piece that stays, by default `least_area`; the largest piece always stays.
    """
    pieces = measure.label(labels, background=-1, connectivity=1)
    areas = np.bincount(pieces.ravel())
    gaps = (areas < min(least_area(*labels.shape) if least is None else least, areas.max()))[pieces]
    shore = ndimage.binary_dilation(gaps)  # the flood need not pass through the pieces that stay
    flooded = segmentation.watershed(slope, np.where(gaps, 0, pieces), connectivity=1, mask=shore)
    pieces = np.where(shore, flooded, pieces)
    return np.unique(pieces, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def merge(regions: np.ndarray, values: np.ndarray, apart: float) -> np.ndarray:
    """Merges touching regions i[h,w] whose means of f[h,w,c] differ by less than `apart`: i32[h,w], 0 to n - 1.

    Every region looks for the touching one most like it; those that find each other are merged, and so on.
    """
    n, a, b = int(regions.max()) + 1, *_touching(regions)
    sizes = np.bincount(regions.ravel()).astype(np.float64)
    sums, label = sizes[:, None] * _means(regions, values), np.arange(n)
    while True:
        means = sums / sizes[:, None]
        distance = np.linalg.norm(means[a] - means[b], axis=1)
        order = np.argsort(distance, kind="stable")
        order = order[distance[order] < apart]
        rank, low, high = np.arange(len(order)), a[order], b[order]
        best = np.full(len(sizes), len(order))
        np.minimum.at(best, low, rank)
        np.minimum.at(best, high, rank)
        mutual = (best[low] == rank) & (best[high] == rank)
        if not mutual.any():
            return label[regions].astype(np.int32)
        target = np.arange(len(sizes))
        target[high[mutual]] = low[mutual]
        new = np.unique(target, return_inverse=True)[1]
        sizes = np.bincount(new, sizes)
        sums = np.stack([np.bincount(new, column) for column in sums.T], axis=1)
        label = new[label]
        a, b = _unordered(new[a], new[b], len(sizes))


def describe(view: View, regions: np.ndarray) -> np.ndarray:
    """Measures each region i[h,w], 0 to n - 1, of an image: f32[n,13], the columns `FEATURES`.

    Mean colour in L*a*b*, standard deviation of L* and mean gradient (texture), centroid in shares of the image, log
    of the share of its area, first moment of Hu (variance of the position over the area), minor over major axis, share
    of the bounding box that is filled, and outline and length along the image's border over the root of the area.
    """
    h, w = regions.shape
    flat, area = regions.ravel(), np.bincount(regions.ravel()).astype(np.float64)
    y, x = np.indices((h, w), dtype=np.float64)
    columns = np.dstack([view.lab, view.lab[..., 0].astype(np.float64) ** 2, view.slope, y, x, y * y, x * x, y * x])
    lightness, green, blue, squares, slope, my, mx, yy, xx, yx = _means(regions, columns).T
    yy, xx, yx = yy - my**2 + 1 / 12, xx - mx**2 + 1 / 12, yx - my * mx  # a pixel is a square, not a point
    spread = np.sqrt((yy - xx) ** 2 + 4 * yx**2)
    boxes = ndimage.find_objects(regions + 1)
    boxed = np.array([(rows.stop - rows.start) * (cols.stop - cols.start) for rows, cols in boxes], np.float64)
    framed = np.pad(regions, 1, constant_values=-1)
    sides = [framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]]
    outline = np.bincount(flat, np.sum([side != regions for side in sides], axis=0).ravel())
    border = np.bincount(flat, np.sum([side == -1 for side in sides], axis=0).ravel())
    return np.stack(
        [
            lightness,
            green,
            blue,
            np.sqrt(np.maximum(squares - lightness**2, 0)),
            slope,
            (my + 0.5) / h,
            (mx + 0.5) / w,
            np.log(area / (h * w)),
            (yy + xx) / area,
            np.sqrt(np.maximum(yy + xx - spread, 0) / (yy + xx + spread)),
            area / boxed,
            outline / np.sqrt(area),
            border / np.sqrt(area),
        ],
        axis=1,
    ).astype(np.float32)


def majority(regions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The commonest label i[h,w] of each region i[h,w], u8[n]: the first of equals, IGNORE where none is a class."""
    valid = labels < num_classes
    n = int(regions.max()) + 1
    cells = regions[valid].astype(np.int64) * num_classes + labels[valid]
    counts = np.bincount(cells, minlength=n * num_classes).reshape(n, num_classes)
    return np.where(counts.any(axis=1), counts.argmax(axis=1), IGNORE).astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest of the training regions vote; each feature is measured in its standard deviations."""

    tree: cKDTree
    classes: np.ndarray
    scale: np.ndarray
    num_classes: int
    k: int

    @classmethod
    def fit(cls, features: np.ndarray, classes: np.ndarray, num_classes: int, k: int) -> "Neighbours":
        """Learns f[n,d] and u8[n]; regions without a class (IGNORE) are left out, and one must remain."""
        features, classes = features[classes != IGNORE], classes[classes != IGNORE]
        spread = features.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        return cls(cKDTree(features / scale), classes, scale, num_classes, min(k, len(classes)))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The class of each of f[n,d], u8[n]; the first of equals."""
        _, nearest = self.tree.query(features / self.scale, list(range(1, self.k + 1)))
        votes = (self.classes[nearest][..., None] == np.arange(self.num_classes)).sum(axis=1)
        return votes.argmax(axis=1).astype(np.uint8)


def _peaks(height: np.ndarray) -> np.ndarray:
    """The places of f[h,w] that are highest within 3 pixels, numbered from 1 in i[h,w]; a plateau is one."""
    return measure.label(height == ndimage.maximum_filter(height, 7))


def _kmeans(values: np.ndarray, clusters: int) -> np.ndarray:
    """Clusters f[h,w,c] by k-means++ from a fixed seed: i[h,w]. The centres are those of at most 10,000 pixels."""
    points = values.reshape(-1, values.shape[-1]).astype(np.float64)
    rng = np.random.default_rng(0)
    chosen = points[rng.choice(len(points), min(10_000, len(points)), replace=False)]
    different = len(np.unique(chosen, axis=0))  # a plain image has fewer colours than clusters
    centres, _ = kmeans2(chosen, min(clusters, different), minit="++", rng=rng)
    return vq(points, centres)[0].reshape(values.shape[:-1])


def _means(regions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means f64[n,c] of f[h,w,c] over each region i[h,w]."""
    flat = regions.ravel()
    sums = [np.bincount(flat, values[..., channel].ravel()) for channel in range(values.shape[-1])]
    return np.stack(sums, axis=1) / np.bincount(flat)[:, None]


def _touching(regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of 4-adjacent regions of i[h,w] once, as (a, b) with a < b."""
    a = np.concatenate([regions[:-1].ravel(), regions[:, :-1].ravel()]).astype(np.int64)
    b = np.concatenate([regions[1:].ravel(), regions[:, 1:].ravel()]).astype(np.int64)
    return _unordered(a, b, int(regions.max()) + 1)


def _unordered(a: np.ndarray, b: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    apart = a != b
    low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
    return np.divmod(np.unique(low * n + high), n)
