"""Multi-scale deformable attention (Zhu et al. 2021, "Deformable DETR", section 4.1, eq. 3)."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.nn.dense import Dense
from jaxseg.nn.ops.deformable import deformable_attention
from jaxseg.types import Initializer


class DeformableAttention(nn.Module):
    """Each token of a pyramid attends to a few learned points of each level (eq. 3): f[b,t,c] -> f[b,t,c].

    The tokens are the pixels of the levels, one level after another; the points of a token lie around the centre of its
    pixel. The caller adds positions, residual connection and norm. Children: "offsets", "weights", "value", "out".

    Attributes:
        num_heads: n; must divide c.
        points: the number of points to which a head attends in each level.
        dtype: compute dtype; points and weights are float32.
    """

    num_heads: int = 8
    points: int = 4
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, position: jax.Array, sizes: Sequence[tuple[int, ...]]) -> jax.Array:
        """Adds `position` f[b,t,c] to x to place and weight the points; `sizes` are (h, w) of each level."""
        b, t, c = x.shape
        n, p, levels = self.num_heads, self.points, len(sizes)
        if c % n or t != sum(h * w for h, w in sizes):
            raise ValueError(f"DeformableAttention: {n} heads over {c} features, {t} tokens of levels {list(sizes)}.")
        query = (x + position).astype(jnp.float32)
        offsets = Dense(
            n * levels * p * 2, kernel_init=nn.initializers.zeros_init(), bias_init=_star(n, levels, p), name="offsets"
        )(query).reshape(b, t, n, levels, p, 2)
        weights = Dense(n * levels * p, kernel_init=nn.initializers.zeros_init(), name="weights")(query)
        weights = jax.nn.softmax(weights.reshape(b, t, n, levels * p), axis=-1).reshape(b, t, n, levels, p)
        init = nn.initializers.xavier_uniform()
        value = Dense(c, kernel_init=init, dtype=self.dtype, name="value")(x)
        ends = np.cumsum([h * w for h, w in sizes])[:-1]
        values = [v.reshape(b, h, w, n, c // n) for v, (h, w) in zip(jnp.split(value, ends, axis=1), sizes)]
        scale = np.array([(w, h) for h, w in sizes], np.float32).reshape(1, 1, 1, levels, 1, 2)
        locations = _centres(sizes).reshape(1, t, 1, 1, 1, 2) + offsets / scale
        # The samples are many and cheap, so they are computed again for the gradient.
        y = jax.checkpoint(deformable_attention)(values, locations, weights)
        return Dense(c, kernel_init=init, dtype=self.dtype, name="out")(y.reshape(b, t, c))


def _centres(sizes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Returns x and y of the centre of each pixel of each level, f32[t,2] in [0, 1]."""
    grids = [np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h) for h, w in sizes]
    return np.concatenate([np.stack(grid, -1).reshape(-1, 2) for grid in grids]).astype(np.float32)


def _star(n: int, levels: int, points: int) -> Initializer:
    """Returns the initialiser by which each head starts with points in one direction, at 1, 2, ... pixels (A.4)."""
    angle = np.arange(n) * (2 * math.pi / n)
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    direction /= np.abs(direction).max(-1, keepdims=True)
    star = direction[:, None, None] * np.arange(1, points + 1)[None, None, :, None] * np.ones((1, levels, 1, 1))
    return lambda key, shape, dtype=jnp.float32: jnp.asarray(star.reshape(shape), dtype)
