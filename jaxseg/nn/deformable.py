"""Multi-scale deformable attention (Zhu et al. 2021, "Deformable DETR", section 4.1, eq. 3)."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxseg.nn.dense import Dense
from jaxseg.nn.initializers import xavier_uniform
from jaxseg.nn.ops.deformable import deformable_attention
from jaxseg.nn.ops.sizes import Side, array_module, is_known
from jaxseg.types import Array, Initializer


class DeformableAttention(nn.Module):
    """Each token attends to a few learned points of each level of a pyramid (eq. 3): f[b,t,c] -> f[b,t,c].

    The values are the pixels of the levels, one level after another. Without `keys` they are the tokens themselves, and
    the points of a token lie around the centre of its pixel. The caller adds positions, residual connection and norm.
    Children: "offsets", "weights", "value", "out".

    Attributes:
        num_heads: n; must divide the channels of the values.
        points: the number of points to which a head attends in each level.
        dtype: compute dtype; points and weights are float32.
        value_width: channels of the values; None: c.
    """

    num_heads: int = 8
    points: int = 4
    dtype: Any = None
    value_width: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        position: jax.Array | None,
        sizes: Sequence[tuple[Side, ...]],
        keys: jax.Array | None = None,
        places: Array | None = None,
    ) -> jax.Array:
        """Applies the attention.

        Args:
            x: tokens f[b,t,c].
            position: f[b,t,c], added to x to place and weight the points, or None.
            sizes: (h, w) of each level.
            keys: the pixels f[b,s,e] of the levels; None: x.
            places: x and y in [0, 1] around which the points of each token lie in each level, f32[t,levels,2]; None:
                the centre of its pixel.

        Raises:
            ValueError: if the heads do not divide the channels, or there are no s pixels, or `keys` has no `places`.
        """
        b, t, c = x.shape
        n, p, levels, width = self.num_heads, self.points, len(sizes), self.value_width or c
        if keys is not None and places is None:
            raise ValueError("DeformableAttention: keys need places, where the points of each token lie.")
        keys = x if keys is None else keys
        if width % n or keys.shape[1] != sum(h * w for h, w in sizes):
            found = f"{n} heads over {width} features, {keys.shape[1]} tokens of levels {list(sizes)}"
            raise ValueError(f"DeformableAttention: {found}.")
        places = _centres(sizes)[:, None] if places is None else places
        query = (x if position is None else x + position).astype(jnp.float32)
        offsets = Dense(
            n * levels * p * 2, kernel_init=nn.initializers.zeros_init(), bias_init=_star(n, levels, p), name="offsets"
        )(query).reshape(b, t, n, levels, p, 2)
        weights = Dense(n * levels * p, kernel_init=nn.initializers.zeros_init(), name="weights")(query)
        weights = jax.nn.softmax(weights.reshape(b, t, n, levels * p), axis=-1).reshape(b, t, n, levels, p)
        value = Dense(width, kernel_init=xavier_uniform, dtype=self.dtype, name="value")(keys)
        values = [v.reshape(b, h, w, n, width // n) for v, (h, w) in zip(split_tokens(value, sizes), sizes)]
        xp = array_module(*itertools.chain(*sizes))
        scale = xp.stack([xp.asarray(x, np.float32) for h, w in sizes for x in (w, h)]).reshape(1, 1, 1, levels, 1, 2)
        locations = places[None, :, None, :, None] + offsets / scale
        # The samples are many and cheap, so they are computed again for the gradient.
        y = jax.checkpoint(deformable_attention)(values, locations, weights)
        return Dense(c, kernel_init=xavier_uniform, dtype=self.dtype, name="out")(y.reshape(b, t, width))


def split_tokens(x: jax.Array, sizes: Sequence[tuple[Side, ...]]) -> list[jax.Array]:
    """Splits f[b,t,c] into the tokens f[b,h w,c] of each level, whose (h, w) are `sizes`."""
    ends = list(itertools.accumulate(h * w for h, w in sizes))
    if is_known(*ends):
        return jnp.split(x, ends[:-1], axis=1)
    return [lax.slice_in_dim(x, start, end, axis=1) for start, end in itertools.pairwise([0, *ends])]


def _centres(sizes: Sequence[tuple[Side, ...]]) -> Array:
    """Returns x and y of the centre of each pixel of each level, f32[t,2] in [0, 1]."""
    xp = array_module(*itertools.chain(*sizes))
    grids = [[(xp.arange(side) + 0.5) / xp.asarray(side) for side in (w, h)] for h, w in sizes]
    levels = [xp.stack(xp.meshgrid(*grid), -1).reshape(-1, 2) for grid in grids]
    return xp.concatenate(levels).astype(np.float32)


def _star(n: int, levels: int, points: int) -> Initializer:
    """Returns the initialiser by which each head starts with points in one direction, at 1, 2, ... pixels (A.4)."""
    angle = np.arange(n) * (2 * math.pi / n)
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    direction /= np.abs(direction).max(-1, keepdims=True)
    star = direction[:, None, None] * np.arange(1, points + 1)[None, None, :, None] * np.ones((1, levels, 1, 1))
    return lambda key, shape, dtype=jnp.float32: jnp.asarray(star.reshape(shape), dtype)
