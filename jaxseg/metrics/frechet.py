"""The Fréchet distance between two sets of images, seen as thumbnails: how far generated images are from real ones.

The distance of Heusel et al. 2017 ("GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
equation 6) compares the features of a classifier of photographs. This one compares pixels, so it needs no weights and
suits every kind of image. It sees colours and where they lie, not whether an outline is sharp or an object complete.
"""

import numpy as np

from jaxseg.types import Array

SIDE = 4
"""Height and width of a thumbnail in pixels."""


def thumbnails(images: Array, side: int = SIDE) -> np.ndarray:
    """u8|u16|f[n,h,w,c] -> f64[n,side·side·c] in [0, 1]: means over the cells of a grid of side x side.

    Floats are taken to be in [0, 1]. Rows and columns are divided as evenly as their number allows.

    Raises:
        ValueError: if the images are smaller than the grid.
    """
    images = np.asarray(images)
    n, h, w, c = images.shape
    if min(h, w) < side:
        raise ValueError(f"Thumbnails of {side}x{side} pixels need images of at least that size, got {h}x{w}.")
    top = np.iinfo(images.dtype).max if images.dtype.kind == "u" else 1.0
    rows, columns = (np.linspace(0, length, side + 1).round().astype(int) for length in (h, w))
    cells = np.add.reduceat(np.add.reduceat(images.astype(np.float64) / top, rows[:-1], axis=1), columns[:-1], axis=2)
    area = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    return (cells / area[None, :, :, None]).reshape(n, side * side * c)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """f64[n,d], f64[m,d] -> |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), of the Gaussians with their moments.

    It is 0 for equal moments and has the unit of the squared numbers. For two finite samples of one distribution it is
    above 0, the more the fewer there are.

    Raises:
        ValueError: if a set has fewer than two rows, or the rows differ in length.
    """
    if a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise ValueError(f"The distance needs two sets of at least two rows of one length, got {a.shape}, {b.shape}.")
    of_a, of_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(of_a)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    # The eigenvalues of Σ_a Σ_b are those of the symmetric Σ_a^½ Σ_b Σ_a^½.
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ of_b @ root), 0.0, None)).sum()
    apart = np.sum(np.square(a.mean(axis=0) - b.mean(axis=0)))
    return float(max(apart + np.trace(of_a) + np.trace(of_b) - 2.0 * shared, 0.0))
