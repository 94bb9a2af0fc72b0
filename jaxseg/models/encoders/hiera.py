"""Hiera (Ryali et al. 2023, "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles") of SAM 2.

The image encoder of SAM 2 (Ravi et al. 2025, "SAM 2: Segment Anything in Images and Videos", appendix D.1): attention
inside windows, but for three blocks of the third stage, which see all of its pixels, at stride 16; queries that are
pooled where a stage begins; and positions that are a table resized to the image plus one that repeats with the windows
(Bolya et al. 2024, "Window Attention is Bugged", section 3). Parameters in millions: tiny 26.8, small 33.9, base plus
68.7, large 212.1.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share, WholeNotNegative
from jaxseg.nn import (
    BARE,
    Conv,
    Dense,
    LayerNorm,
    Layers,
    StochasticDepth,
    crop_to,
    dot_product_attention,
    drop_rates,
    max_pool,
    pad_to_multiple,
    parameter,
    resize_cubic,
)
from jaxseg.nn.initializers import lecun_normal, truncated_normal
from jaxseg.nn.ops.windows import from_windows, to_windows

_init = truncated_normal(0.02)


class HieraStem(nn.Module):
    """f[b,h,w,c] -> f[b,h/4,w/4,width]: a 7x7 convolution of stride 4 and the positions.

    Children: "patch"; parameters "position" f32[1,rows,columns,width], resized bicubically to the image, and
    "position_window" f32[1,s,s,width], which repeats.

    Attributes:
        width: channels.
        grid: rows and columns of the table of positions.
        side: s, that of the windows of the first stage.
        dtype: compute dtype.
    """

    width: int
    grid: tuple[int, int]
    side: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, s = self.width, self.side
        x = Conv(c, 7, 4, padding=3, kernel_init=lecun_normal, dtype=self.dtype, name="patch")(x)
        h, w = x.shape[1:3]
        table = parameter(self, "position", _init, (1, *self.grid, c))
        window = parameter(self, "position_window", _init, (1, s, s, c))
        rows, columns = -(-h // s), -(-w // s)
        repeated = jnp.broadcast_to(window[:, None, :, None], (1, rows, s, columns, s, c))
        repeated = crop_to(repeated.reshape(1, rows * s, columns * s, c), (h, w))
        return x + (resize_cubic(table[0], (h, w))[None] + repeated).astype(x.dtype)


class PooledAttention(nn.Module):
    """Multi-head attention in windows or of all pixels: f[b,h,w,c] -> f[b,h,w,features], or f[b,h/2,w/2,features].

    Zeros at the bottom and right fill the last windows and are pixels as the others are. Children: "query", "key",
    "value", "out".

    Attributes:
        features: channels of the result, of which each head has a part.
        num_heads: must divide the features.
        side: of the windows, even with `pooled`; 0: attention of all pixels.
        pooled: whether the queries are the maxima of 2x2 pixels.
        dtype: compute dtype; the softmax is float32.

    Raises:
        ValueError: if the heads do not divide the features, or an odd window is pooled.
    """

    features: int
    num_heads: int
    side: int
    pooled: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, s, stride = self.num_heads, self.side, 2 if self.pooled else 1
        if self.features % n:
            raise ValueError(f"Hiera: attention of {self.features} features cannot have {n} heads.")
        if s % stride:
            raise ValueError(f"Hiera: windows whose queries are pooled need an even side, got {s}.")
        b, h, w = x.shape[:3]
        padded = x.shape[1:3]
        if s:
            x, _ = pad_to_multiple(x, s)
            padded, sides = x.shape[1:3], (s, s)
            tokens = to_windows(x, s)
        else:
            tokens, sides = x.reshape(b, h * w, -1), (h, w)

        def project(name: str) -> jax.Array:
            return Dense(self.features, kernel_init=_init, dtype=self.dtype, name=name)(tokens)

        query, key, value = project("query"), project("key"), project("value")
        if self.pooled:
            query = max_pool(query.reshape(-1, *sides, self.features), 2, 2)
            query = query.reshape(query.shape[0], query.shape[1] * query.shape[2], self.features)
        heads = (x.reshape(*x.shape[:2], n, self.features // n) for x in (query, key, value))
        y = dot_product_attention(*heads).reshape(query.shape)
        y = Dense(self.features, kernel_init=_init, dtype=self.dtype, name="out")(y)
        if not s:
            return y.reshape(b, h // stride, w // stride, self.features)
        y = from_windows(y, s // stride, tuple(each // stride for each in padded))
        return crop_to(y, (h // stride, w // stride))


class HieraBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): f[b,h,w,c] -> f[b,h,w,features], half as large where pooled.

    Where the channels change, the x of the first sum is the norm's result, mapped linearly and pooled as the queries
    are. Children: "norm1", "shortcut" (there), "attention", "norm2", "expand", "reduce", and "drop1", "drop2", the
    stochastic depth of either branch.
    """

    features: int
    num_heads: int
    side: int
    pooled: bool = False
    mlp_ratio: int = 4
    drop_path: Share = 0.0
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        dtype, c = self.common.dtype, self.features
        norm = functools.partial(LayerNorm, epsilon=1e-6, dtype=dtype)
        dense = functools.partial(Dense, kernel_init=_init, dtype=dtype)
        drop = functools.partial(StochasticDepth, self.drop_path, self.common.axis_name)
        y = norm(name="norm1")(x)
        if x.shape[-1] != c:
            x = dense(c, name="shortcut")(y)
        if self.pooled:
            x = max_pool(x, 2, 2)
        y = PooledAttention(c, self.num_heads, self.side, self.pooled, dtype, name="attention")(y)
        x = x + drop(name="drop1")(y, train=train)
        y = dense(self.mlp_ratio * c, name="expand")(norm(name="norm2")(x))
        y = dense(c, name="reduce")(jax.nn.gelu(y, approximate=False))
        return x + drop(name="drop2")(y, train=train)


class HieraStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/2,w/2,features] (f[b,h,w,c] for the first stage): blocks, the first of which pools.

    Children: "block1", "block2", ...

    Attributes:
        features: channels; those of the input in the first stage.
        num_heads: of each attention.
        sides: that of the windows of each block; 0: a block that sees all pixels.
        mlp_ratio: as in `Hiera`.
        drops: rate of the stochastic depth of each block.
        first: whether it is the first stage, which does not pool.
        common: gives the dtype and the mapped axis.
    """

    features: int
    num_heads: int
    sides: tuple[int, ...]
    mlp_ratio: int
    drops: tuple[float, ...]
    first: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i, (side, drop) in enumerate(zip(self.sides, self.drops, strict=True)):
            form = (side, i == 0 and not self.first, self.mlp_ratio, drop, self.common)
            x = HieraBlock(self.features, self.num_heads, *form, name=f"block{i + 1}")(x, train=train)
        return x


class Hiera(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 4, 8, 16, 32, finest first; by default SAM 2's base plus.

    An image of any size: zeros at the bottom and right make its sides multiples of the largest stride, and the levels
    are cropped. Children: "stem" (`HieraStem`), "stage0", "stage1", ... (`HieraStage`s).

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
        heads: attention heads of each stage; each must divide its width.
        windows: side of the windows of each stage. The first block of a stage, which pools, has the windows of the
            stage before, which must be even.
        whole: the blocks that see all pixels, counted from 1 over all stages; 0 alone: none.
        grid: rows and columns of the table of positions.
        mlp_ratio: hidden over outer width of the dense layers of a block.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first.
        common: gives the dtype and the mapped axis; norms are layer norms whatever it says.

    Raises:
        ValueError: if depths, heads or windows are not as many as widths, for a block that there is not, heads that do
            not divide a width, or an odd window before a pooling.
    """

    widths: tuple[int, ...] = (112, 224, 448, 896)
    depths: tuple[int, ...] = (2, 3, 16, 3)
    heads: tuple[int, ...] = (2, 4, 8, 16)
    windows: tuple[int, ...] = (8, 4, 14, 7)
    whole: tuple[WholeNotNegative, ...] = (13, 17, 21)
    grid: tuple[int, int] = (14, 14)
    mlp_ratio: int = 4
    drop_path: Share = 0.1
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(4 * 2**i for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        for name in ("depths", "heads", "windows"):
            if len(getattr(self, name)) != len(self.widths):
                raise ValueError(f"Hiera: {name} {getattr(self, name)} must be as many as widths {self.widths}.")
        if self.whole != (0,) and (min(self.whole, default=1) < 1 or max(self.whole, default=1) > sum(self.depths)):
            raise ValueError(f"Hiera: whole {self.whole} must be blocks, 1 to {sum(self.depths)}, or 0 alone for none.")
        x, (h, w) = pad_to_multiple(x, self.strides[-1])
        x = HieraStem(self.widths[0], self.grid, self.windows[0], self.common.dtype, name="stem")(x)
        pyramid, block = [], 0
        for i, drops in enumerate(drop_rates(self.drop_path, self.depths)):
            sides = (self.windows[max(i - 1, 0)], *(self.windows[i],) * (self.depths[i] - 1))
            numbers = range(block + 1, block + self.depths[i] + 1)
            block += self.depths[i]
            sides = tuple(0 if number in self.whole else side for number, side in zip(numbers, sides, strict=True))
            form = (self.widths[i], self.heads[i], sides, self.mlp_ratio, drops, i == 0, self.common)
            x = HieraStage(*form, name=f"stage{i}")(x, train=train)
            pyramid.append(crop_to(x, tuple(-(-side // self.strides[i]) for side in (h, w))))
        return tuple(pyramid)
