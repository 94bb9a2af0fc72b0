"""Temperature scaling: one number that makes the probabilities of a network fit how often they are right.

Logits z become z / T; the classes stay the same. T minimises the negative log-likelihood (NLL) of a split that was not
trained on: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2. With β = 1 / T the NLL is convex in
β, so there is one minimum. One pass over the split gives the sums of the NLL and its first two derivatives at the
temperatures `NODES`; between two of them the minimum is that of a cubic through their slopes, right to about 1e-5.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import Array

NODES = tuple(float(t) for t in np.geomspace(0.1, 10.0, 25))
"""The temperatures at which the NLL is summed."""


def temperature_stats(logits: Array, labels: Array, *, one_vs_rest: bool = False) -> dict[str, jax.Array]:
    """Sums over pixels at each of `NODES`, f32[25]: nll, and its slope and curvature by ln T; count i32[].

    The sums add over batches; add them as float64 on the host. The memory beside the logits is that of one temperature.

    Args:
        logits: f[...,k], softmax for k > 1 and sigmoid for k = 1.
        labels: i[...]; pixels with labels outside 0..k-1, including IGNORE, are left out.
        one_vs_rest: one sigmoid for each class (`losses.probabilities`); the NLL is the sum over classes of the
            binary cross-entropy.

    Raises:
        ValueError: if the shapes disagree.
    """
    z, labels = jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.int32)
    if z.shape[:-1] != labels.shape:
        raise ValueError(f"Labels of shape {z.shape[:-1]} are needed, got {labels.shape}.")
    k = z.shape[-1]
    valid = (labels >= 0) & (labels < max(k, 2))
    classes = jnp.arange(k) if k > 1 else jnp.ones(1, jnp.int32)
    target = labels[..., None] == classes.reshape((1,) * labels.ndim + (k,))
    binary = one_vs_rest or k == 1
    of_truth = jnp.sum(jnp.where(target, z, 0.0), axis=-1)

    def at(beta: jax.Array) -> jax.Array:
        """(nll, d nll / dβ, d² nll / dβ²), summed over the valid pixels."""
        if binary:
            p = jax.nn.sigmoid(beta * z)
            nll = jnp.sum(jax.nn.softplus(jnp.where(target, -beta * z, beta * z)), axis=-1)
            slope = jnp.sum((p - target) * z, axis=-1)
            curvature = jnp.sum(p * (1.0 - p) * z * z, axis=-1)
        else:
            p = jax.nn.softmax(beta * z)
            mean = jnp.sum(p * z, axis=-1)
            nll = jax.nn.logsumexp(beta * z, axis=-1) - beta * of_truth
            slope = mean - of_truth
            curvature = jnp.sum(p * (z - mean[..., None]) ** 2, axis=-1)
        return jnp.stack([jnp.sum(jnp.where(valid, each, 0.0)) for each in (nll, slope, curvature)])

    beta = 1.0 / jnp.array(NODES, jnp.float32)
    nll, slope, curvature = jax.lax.map(at, beta).T
    # By u = ln T, dβ/du = -β.
    return {
        "nll": nll,
        "slope": -beta * slope,
        "curvature": beta * slope + beta**2 * curvature,
        "count": jnp.sum(valid, dtype=jnp.int32),
    }


@dataclasses.dataclass(frozen=True)
class Temperature:
    """The temperature of the least NLL; all are NaN if no pixel counts.

    Attributes:
        value: T.
        nll_before: the mean NLL of a pixel at T = 1, in nats.
        nll_after: that at T.
        at_limit: whether the minimum lies beyond the temperatures that were tried, as with too few pixels or errors.
    """

    value: float
    nll_before: float
    nll_after: float
    at_limit: bool


def fit_temperature(stats: Mapping[str, Array]) -> Temperature:
    """Turns summed `temperature_stats` into `Temperature`."""
    count = int(stats["count"])
    if not count:
        return Temperature(float("nan"), float("nan"), float("nan"), False)
    nll, slope, curvature = (np.asarray(stats[name], np.float64) / count for name in ("nll", "slope", "curvature"))
    u = np.log(NODES)
    before = float(nll[len(u) // 2])  # T = 1 is the middle of the nodes
    if slope[0] >= 0 or slope[-1] <= 0:  # the least NLL is at the coldest, or at the hottest
        end = 0 if slope[0] >= 0 else -1
        return Temperature(NODES[end], before, float(nll[end]), True)
    left = int(np.flatnonzero(slope < 0)[-1])
    step = u[left + 1] - u[left]
    (s0, s1), (c0, c1) = slope[left : left + 2], curvature[left : left + 2] * step
    # The cubic s(t), t in [0, 1], with these values and derivatives; its integral gives the NLL.
    cubic = np.polynomial.Polynomial([s0, c0, 3 * (s1 - s0) - 2 * c0 - c1, 2 * (s0 - s1) + c0 + c1])
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cubic(middle) < 0 else (low, middle)
    value = float(np.exp(u[left] + low * step))
    return Temperature(value, before, float(nll[left] + step * (cubic.integ()(low) - cubic.integ()(0.0))), False)
