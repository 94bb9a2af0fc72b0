"""Mean shift (Comaniciu and Meer 2002, "Mean Shift: A Robust Approach Toward Feature Space Analysis") of colours."""

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree


def mean_shift(values: np.ndarray, radius: float, bins: float = 2.0) -> np.ndarray:
    """The mode of the density that each of f[h,w,c] climbs to, numbered from 0: i[h,w].

    With Epanechnikov's kernel of radius `radius` (section 2.1), the mean shift of equation 17 moves a point to the mean
    of all values within the radius. The values are first gathered in cubes of side radius / bins, whose means move;
    modes closer than the radius are one (section 4.2, in the range domain alone).
    """
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    _, cube, counts = np.unique(np.floor(flat * bins / radius), axis=0, return_inverse=True, return_counts=True)
    cube = cube.reshape(-1)
    means = np.stack([np.bincount(cube, column) for column in flat.T], axis=1) / counts[:, None]
    modes = cKDTree(shift(means, counts, radius))
    return connected_components(modes.sparse_distance_matrix(modes, radius))[1][cube].reshape(values.shape[:-1])


def shift(points: np.ndarray, counts: np.ndarray, radius: float, steps: int = 100) -> np.ndarray:
    """Where each of f[n,c], which stands for i[n] values, comes to rest: f32[n,c], after at most `steps` steps."""
    points = points.astype(np.float32)
    weighted = np.column_stack([points, np.ones(len(points), np.float32)]) * counts[:, None].astype(np.float32)
    squares = (points**2).sum(axis=1)
    modes, follow = points, np.arange(len(points))
    for _ in range(steps):
        near = (modes**2).sum(axis=1)[:, None] + squares - 2 * modes @ points.T < radius**2
        sums = near.astype(np.float32) @ weighted
        moved = sums[:, :-1] / sums[:, -1:]
        resting = np.abs(moved - modes).max() < 0.01 * radius
        modes, same = np.unique(moved, axis=0, return_inverse=True)  # those that have met move on together
        follow = same.reshape(-1)[follow]
        if resting:
            break
    return modes[follow]
