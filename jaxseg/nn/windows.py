"""Attention inside windows of a feature map, with a bias by the distance of two pixels (Swin Transformer and V2)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.nn.conv import check_image
from jaxseg.nn.dense import Dense, parameter
from jaxseg.nn.initializers import truncated_normal
from jaxseg.nn.ops.dot_product import dot_product_attention
from jaxseg.nn.ops.resize import crop_to, pad_to_multiple
from jaxseg.nn.ops.unit import unit_vectors
from jaxseg.nn.ops.windows import by_distance, distances, from_windows, shift_mask, shifted, to_windows
from jaxseg.types import Initializer

_init = truncated_normal(0.02)
_HIDDEN = 512  # of the network that gives the biases of V2 (Liu 2022, section 3.3)
_LARGEST = math.log(100.0)  # of the learned scale; the temperature is .01 at least (Liu 2022, section 3.2)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows: f[b,h,w,c] -> f[b,h,w,c] (Liu et al. 2021, "Swin Transformer", section 3.2).

    Any h and w: zeros at the bottom and right fill the last windows, as in the authors' code for segmentation, and are
    pixels as the others are. Memory grows with h w, not with its square. The caller adds residual connection and norm.
    Children: "query", "key", "value", "out"; parameter "position" f32[(2s-1)²,n], or with continuous "log_scale"
    f32[n], "position_in" f32[2,512], "position_bias" f32[512] and "position_out" f32[512,n].

    Attributes:
        num_heads: n; must divide c.
        side: s, that of a window.
        shift: places by which the windows are moved down and right, below s; pixels of two borders that come into one
            window do not see each other. 0: no shift.
        continuous: the attention of Swin V2 (Liu et al. 2022, "Swin Transformer V2", sections 3.2 and 3.3): cosines of
            queries and keys times a learned scale, and biases that a small network gives for the logarithms of the
            distances, so that windows may have another side than in the pretraining. Keys have no bias.
        trained_side: side of the windows in the pretraining, by which continuous distances are scaled; None: `side`.
        kernel_init: initialiser of the kernels of all four projections.
        dtype: compute dtype; the softmax is float32.

    Raises:
        ValueError: if the heads do not divide c, or shift is not below the side.
    """

    num_heads: int
    side: int = 7
    shift: int = 0
    continuous: bool = False
    trained_side: int | None = None
    kernel_init: Initializer = _init
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        check_image(x, "WindowAttention")
        c, n, s = x.shape[-1], self.num_heads, self.side
        if c % n:
            raise ValueError(f"WindowAttention of {c} features cannot have {n} heads.")
        if not 0 <= self.shift < s:
            raise ValueError(f"WindowAttention: shift must be 0 or more and below side={s}, got {self.shift}.")
        x, size = pad_to_multiple(x, s)
        padded, mask = x.shape[1:3], None
        if self.shift:
            x = shifted(x, self.shift)
            mask = shift_mask(padded, s, self.shift)
        windows = to_windows(x, s)
        if mask is not None:
            mask = jnp.broadcast_to(mask, (x.shape[0], *mask.shape)).reshape(windows.shape[0], 1, s * s, s * s)

        def project(name: str, bias: bool = True) -> jax.Array:
            y = Dense(c, use_bias=bias, dtype=self.dtype, kernel_init=self.kernel_init, name=name)(windows)
            return y.reshape(*windows.shape[:2], n, c // n)

        q, k, v = project("query"), project("key", not self.continuous), project("value")
        if self.continuous:
            scale = parameter(self, "log_scale", nn.initializers.constant(math.log(10.0)), (n,))
            scale = jnp.exp(jnp.minimum(scale, _LARGEST)) * math.sqrt(c // n)  # by which attention divides
            q, k = (unit_vectors(q) * scale.reshape(1, 1, n, 1)).astype(v.dtype), unit_vectors(k).astype(v.dtype)
        y = dot_product_attention(q, k, v, mask, by_distance(self._biases(), s))
        y = Dense(c, dtype=self.dtype, kernel_init=self.kernel_init, name="out")(y.reshape(windows.shape))
        y = from_windows(y, s, padded)
        return crop_to(shifted(y, -self.shift) if self.shift else y, size)

    def _biases(self) -> jax.Array:
        """Returns f32[(2s-1)²,n]."""
        n = self.num_heads
        if not self.continuous:
            return parameter(self, "position", _init, ((2 * self.side - 1) ** 2, n))
        coordinates = jnp.asarray(log_distances(self.side, self.trained_side))
        kernel = parameter(self, "position_in", _init, (2, _HIDDEN))
        bias = parameter(self, "position_bias", nn.initializers.zeros_init(), (_HIDDEN,))
        hidden = jax.nn.relu(coordinates @ kernel + bias[None])
        return 16 * jax.nn.sigmoid(hidden @ parameter(self, "position_out", _init, (_HIDDEN, n)))


def log_distances(side: int, trained_side: int | None = None) -> np.ndarray:
    """Returns f32[(2s-1)²,2], sign(x) log2(1 + |x|) / 3 of the distances x in rows and columns (Liu 2022, eq. 4).

    As in the authors' code the largest distance of a window of the pretraining is 8, so that its logarithm is 1.06.
    """
    x = 8 * distances(side) / max((trained_side or side) - 1, 1)
    return (np.sign(x) * np.log2(np.abs(x) + 1) / 3).astype(np.float32)
