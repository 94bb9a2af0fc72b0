"""ViT-Adapter (Chen et al. 2023, "Vision Transformer Adapter for Dense Predictions", section 3, Figs. 4 and 5).

A plain vision transformer and a few convolutions beside it exchange what they know. The convolutions (the spatial
prior module, section 3.2) make levels of strides 8, 16 and 32 of the image. The transformer's blocks are divided into
four groups. Before each group the patches read the levels (the injector, eq. 1, whose scale starts at 0, so that the
transformer starts as it was trained), and after it the levels read the patches (the extractor, eqs. 2 and 3), both by
deformable attention; after the last group twice more. The level of stride 4 is the convolutions' own and the level of
stride 8, enlarged. Each level gets the result of one of the groups too.

The adapter is the child "adapter" of the network, no part of the encoder: weights of the transformer are loaded as
without it, and a frozen encoder leaves it trainable. As in the authors' release the values of a large transformer's
attention have half of the channels, the results of the groups have no norm before they are added, and each level ends
in one. The release has adapters of transformers with and without a class token; here the tokens before the patches
stay as they are, and the patches alone exchange. It takes sizes that are multiples of 32 and patches of 16, where the
numbers are the same; here a point lies at the same pixel of the image in every level, whatever the sizes are.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.arguments import PositiveShare, Share
from jaxseg.models.feature_pyramid import sampled
from jaxseg.nn import (
    Conv,
    ConvNormAct,
    ConvTranspose,
    DeformableAttention,
    Dense,
    LayerNorm,
    Layers,
    StochasticDepth,
    crop_to,
    max_pool,
    parameter,
)
from jaxseg.nn.deformable import split_tokens
from jaxseg.nn.initializers import normal, truncated_normal
from jaxseg.nn.ops.sizes import Side, array_module
from jaxseg.types import Array

Sizes: TypeAlias = Sequence[tuple[Side, ...]]
_dense_init = truncated_normal(0.02)
_WIDE = 768  # from here on the authors' release halves the values


def places(sizes: Sizes, strides: Sequence[int], of: Sizes, of_strides: Sequence[int]) -> Array:
    """Returns x and y of each pixel's centre in units of each of the levels `of`, f32[t,levels,2].

    Args:
        sizes: (h, w) of the levels of the t pixels, one level after another.
        strides: image pixels a feature pixel, of each of them.
        of: (h, w) of the levels in which the pixels are looked for; 0 is their first edge, 1 their last.
        of_strides: image pixels a feature pixel, of each of them.
    """
    xp = array_module(*itertools.chain(*sizes, *of))
    grids = [
        xp.stack(xp.meshgrid(*((xp.arange(side) + 0.5) * stride for side in (w, h))), -1).reshape(-1, 2)
        for (h, w), stride in zip(sizes, strides, strict=True)
    ]
    extents = [xp.stack([xp.asarray(side) * stride for side in (w, h)]) for (h, w), stride in zip(of, of_strides)]
    return (xp.concatenate(grids)[:, None] / xp.stack(extents)[None]).astype(np.float32)


class SpatialPrior(nn.Module):
    """f[b,h,w,c] -> f[b,h/s,w/s,width] for s = p/4, p/2, p and 2p, p the nearest power of two to the patch; rounded up.

    Children: "stem1", "stem2", "stem3" and "down1", "down2", "down3", `ConvNormAct`s, the first at half of the image's
    sizes and behind the third a max-pooling; "project0" to "project3", 1x1 convolutions. Where s starts at 2 there is
    no pooling, and where it starts at 1 the first convolution has no stride.

    Attributes:
        stem: channels of the stem; "down1" has twice and the others four times as many.
        width: channels of the levels.
        finest: the first s, at least 1.
        common: norm, activation, dtype and mapped axis of the convolutions.
    """

    stem: int
    width: int
    finest: int
    common: Layers

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        halvings = self.finest.bit_length() - 1
        for i in range(3):
            stride = 2 if i == 0 and halvings else 1
            x = ConvNormAct(self.stem, stride=stride, common=self.common, name=f"stem{i + 1}")(x, train=train)
        for _ in range(halvings - 1):
            x = max_pool(x, 3, 2, padding=1)
        levels = [x]
        for i, factor in enumerate((2, 4, 4)):
            conv = ConvNormAct(factor * self.stem, stride=2, common=self.common, name=f"down{i + 1}")
            levels.append(conv(levels[-1], train=train))
        project = functools.partial(Conv, self.width, 1, dtype=self.common.dtype)
        return tuple(project(name=f"project{i}")(x) for i, x in enumerate(levels))


class Exchange(nn.Module):
    """Deformable attention of normalised tokens f[b,t,c] to the normalised pixels f[b,s,c] of levels -> f[b,t,c].

    Children: "query_norm", "key_norm", "attention".

    Attributes:
        num_heads, value_width: of the attention.
        dtype: compute dtype.
    """

    num_heads: int
    value_width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array, sizes: Sizes, where: Array) -> jax.Array:
        """Applies it; `sizes` are (h, w) of the levels, `where` the `places` of the tokens in them."""
        norm = functools.partial(LayerNorm, epsilon=1e-6, dtype=self.dtype)
        attention = DeformableAttention(self.num_heads, 4, self.dtype, self.value_width, name="attention")
        return attention(norm(name="query_norm")(x), None, sizes, norm(name="key_norm")(keys), where)


class Injector(nn.Module):
    """x + scale attention(x, levels) (eq. 1): patches f[b,t,c] -> f[b,t,c]; attributes as in `Exchange`.

    Child: "exchange"; parameter "scale" f32[c], 0 at first.
    """

    num_heads: int
    value_width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, levels: jax.Array, sizes: Sizes, where: Array) -> jax.Array:
        y = Exchange(self.num_heads, self.value_width, self.dtype, name="exchange")(x, levels, sizes, where)
        scale = parameter(self, "scale", nn.initializers.zeros_init(), (x.shape[-1],))
        return x + y * scale.astype(y.dtype).reshape(1, 1, -1)


class ConvFFN(nn.Module):
    """Dense to a quarter of the channels, 3x3 depthwise convolution of each level, GELU, dense: f[b,t,c] -> f[b,t,c].

    The levels have one kernel. Children: "reduce", "depthwise", "expand".
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, sizes: Sizes) -> jax.Array:
        b, _, c = x.shape
        hidden = max(1, c // 4)
        y = Dense(hidden, kernel_init=_dense_init, dtype=self.dtype, name="reduce")(x)
        conv = Conv(hidden, 3, groups=hidden, dtype=self.dtype, name="depthwise")
        levels = [conv(part.reshape(b, *size, hidden)) for part, size in zip(split_tokens(y, sizes), sizes)]
        y = jnp.concatenate([level.reshape(b, -1, hidden) for level in levels], 1)
        y = jax.nn.gelu(y, approximate=False)
        return Dense(c, kernel_init=_dense_init, dtype=self.dtype, name="expand")(y)


class Extractor(nn.Module):
    """x + attention(x, patches), then x + ffn(norm(x)) (eqs. 2 and 3): the levels' pixels f[b,t,c] -> f[b,t,c].

    Children: "exchange", "norm", "ffn", and "drop", the stochastic depth of the second branch.

    Attributes:
        num_heads, value_width: as in `Exchange`.
        drop_path: rate of stochastic depth.
        common: gives the dtype and the mapped axis.
    """

    num_heads: int
    value_width: int
    drop_path: Share
    common: Layers

    @nn.compact
    def __call__(
        self, x: jax.Array, patches: jax.Array, grid: tuple[Side, ...], where: Array, sizes: Sizes, *, train: bool
    ) -> jax.Array:
        """Applies the extractor.

        Args:
            x: the pixels of the levels, one level after another.
            patches: f[b,s,c].
            grid: rows and columns of the patches.
            where: the `places` of the pixels among the patches.
            sizes: (h, w) of the levels.
            train: whether stochastic depth is on.
        """
        dtype = self.common.dtype
        x = x + Exchange(self.num_heads, self.value_width, dtype, name="exchange")(x, patches, (grid,), where)
        y = ConvFFN(dtype, name="ffn")(LayerNorm(epsilon=1e-6, dtype=dtype, name="norm")(x), sizes)
        return x + StochasticDepth(self.drop_path, self.common.axis_name, name="drop")(y, train=train)


class ViTAdapter(nn.Module):
    """An image f[b,h,w,c] and a vision transformer -> features f[b,h/s,w/s,width] at s = p/4, p/2, p, 2p, rounded up.

    p is the power of two nearest to the patch. Children: "prior", "injector1", "extractor1", "injector2", ..., "extra1"
    and "extra2", extractors after the last; "up", "norm0" to "norm3"; parameter "level" f32[3,width], of the last three
    levels.

    Attributes:
        width: of the transformer.
        patch: side of its patches in pixels; at least 3.
        ends: the blocks, counted from 1 and rising, after which an interaction ends.
        num_heads: of the attention.
        ratio: channels of its values over the width; None: 1, or 1/2 from a width of 768 on.
        stem: channels of the convolutions at their first stride.
        drop_path: rate of stochastic depth in the extractors.
        common: norm, activation, dtype and mapped axis of the convolutions; norms of tokens are layer norms.

    Raises:
        ValueError: for smaller patches, or heads that do not divide the channels of the values.
    """

    width: int
    patch: int
    ends: tuple[int, ...]
    num_heads: int
    ratio: PositiveShare | None = None
    stem: int = 64
    drop_path: Share = 0.0
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        nearest = 2 ** round(math.log2(self.patch))
        if nearest < 4:
            raise ValueError(f"ViT-Adapter: patches must be of at least 3 pixels, got patch={self.patch}.")
        return (nearest // 4, nearest // 2, nearest, 2 * nearest)

    @nn.compact
    def __call__(
        self, image: jax.Array, encode: Callable[..., Any], grid: tuple[Side, Side], *, train: bool = False
    ) -> tuple[jax.Array, ...]:
        """Returns the levels, finest first.

        Args:
            image: f[b,h,w,c].
            encode: runs the transformer on the image; takes `between` and `after` of `jaxseg.models.encoders.vit.ViT`.
            grid: rows and columns of its patches.
            train: whether batch norm and stochastic depth are in training.
        """
        strides, c = self.strides, self.width
        ratio = self.ratio or (0.5 if c >= _WIDE else 1.0)
        form = self.num_heads, int(c * ratio)
        if form[1] % form[0] or not form[1]:
            raise ValueError(
                f"ViT-Adapter: adapter_heads={form[0]} must divide the {form[1]} channels of the values, "
                f"adapter_ratio={ratio} of width={c}."
            )
        finest, *maps = SpatialPrior(self.stem, c, strides[0], self.common, name="prior")(image, train=train)
        sizes = [x.shape[1:3] for x in maps]
        embedding = parameter(self, "level", normal(1.0), (len(maps), c))
        levels = [x.reshape(x.shape[0], -1, c) + row.astype(x.dtype)[None, None] for x, row in zip(maps, embedding)]
        in_levels = places([grid], [self.patch], sizes, strides[1:])
        in_patches = places(sizes, strides[1:], [grid], [self.patch])
        count = len(self.ends)
        extractor = functools.partial(Extractor, *form, self.drop_path, self.common)
        injectors = [Injector(*form, self.common.dtype, name=f"injector{i + 1}") for i in range(count)]
        extractors = [[extractor(name=f"extractor{i + 1}")] for i in range(count)]
        extractors[-1] += [extractor(name=f"extra{i + 1}") for i in range(2)]
        starts = (0, *self.ends[:-1])
        state, seen = jnp.concatenate(levels, 1), []

        def between(i: int, tokens: jax.Array, _: nn.Module) -> tuple[jax.Array, None]:
            if i not in starts:
                return tokens, None
            others = tokens.shape[1] - grid[0] * grid[1]
            patches = injectors[starts.index(i)](tokens[:, others:], state, sizes, in_levels)
            return jnp.concatenate([tokens[:, :others], patches], 1), None

        def after(i: int, tokens: jax.Array) -> None:
            nonlocal state
            if i + 1 not in self.ends:
                return
            patches = tokens[:, tokens.shape[1] - grid[0] * grid[1] :]
            for each in extractors[self.ends.index(i + 1)]:
                state = each(state, patches, grid, in_patches, sizes, train=train)
            seen.append(patches.reshape(-1, *grid, c))

        encode(between=between, after=after)
        maps = [part.reshape(-1, *size, c) for part, size in zip(split_tokens(state, sizes), sizes)]
        enlarged = ConvTranspose(c, dtype=self.common.dtype, name="up")(maps[0])
        pyramid = []
        for i, x in enumerate([finest + crop_to(enlarged, finest.shape[1:3]), *maps]):
            result = seen[-(-(i + 1) * count // 4) - 1]  # with four interactions, of each level its own
            x = x + sampled(result, self.patch, strides[i], x.shape[1:3])
            pyramid.append(self.common.normalise(x, f"norm{i}", train=train))
        return tuple(pyramid)


@dataclasses.dataclass(frozen=True)
class WithAdapter:
    """A vision transformer and its adapter, called as an encoder.

    Attributes:
        encoder: the child "encoder".
        adapter: the child "adapter".
    """

    encoder: Any
    adapter: ViTAdapter

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return self.adapter.strides

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return (self.adapter.width,) * len(self.strides)

    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        """f[b,h,w,c] -> the levels, finest first."""
        encode = functools.partial(self.encoder, image, train=train)
        return self.adapter(image, encode, self.encoder.whole_patches(image)[1], train=train)
