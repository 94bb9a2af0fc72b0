"""Whether the mask of an image fits better when it is moved: the log-likelihood that the best shift gains."""

from typing import NamedTuple

import numpy as np

from jaxseg.types import IGNORE

FURTHEST = 0.15
"""How far a mask is moved at most, in shares of its shorter side."""
SIDE = 256
"""Pixels a side to which larger images are thinned, so that any image takes the same memory."""
FLOOR = -6.0
"""The least logarithm of a probability: one pixel that the network is sure of outweighs no region."""


class Shift(NamedTuple):
    """Moving a mask by `down` and `right` pixels gains `gain` nats a pixel; (0, 0, 0.0) if no shift gains any."""

    down: int
    right: int
    gain: float


def best_shift(probabilities: np.ndarray, label: np.ndarray) -> Shift:
    """Returns the shift of the mask that gains most.

    The gain of moving by d is the sum of log p(x)[label(x - d)] - log p(x)[label(x)] over the pixels x for which both
    labels are known, divided by the number of labelled pixels. All shifts are computed at once, as cross-correlations
    by FFT. Images of a longer side than `SIDE` are thinned by a whole factor.

    Args:
        probabilities: f32[h,w,k].
        label: u8[h,w].
    """
    step = -(-max(label.shape) // SIDE)
    shares, label = probabilities[::step, ::step], label[::step, ::step]
    h, w, k = shares.shape
    most = max(1, round(FURTHEST * min(h, w)))
    size = (h + 2 * most, w + 2 * most)  # so that no shift wraps around
    seen = label != IGNORE
    logs = np.where(seen[..., None], np.log(np.maximum(shares, np.exp(FLOOR))), 0.0)
    own = np.take_along_axis(logs, np.where(seen, label, 0)[..., None].astype(np.int64), -1)[..., 0]
    total = -np.fft.rfft2(own, size) * np.conj(np.fft.rfft2(seen.astype(np.float64), size))
    for c in range(k):
        here = seen & (label == c)
        if here.any():
            total += np.fft.rfft2(logs[..., c], size) * np.conj(np.fft.rfft2(here.astype(np.float64), size))
    gains = np.roll(np.fft.irfft2(total, size), (most, most), (0, 1))[: 2 * most + 1, : 2 * most + 1]
    place = np.unravel_index(gains.argmax(), gains.shape)
    gain = float(gains[place]) / max(int(seen.sum()), 1)
    if gain <= 1e-9:  # the rounding of the transforms
        return Shift(0, 0, 0.0)
    down, right = (int(i) - most for i in place)
    return Shift(step * down, step * right, gain)
