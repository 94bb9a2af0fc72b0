"""MaxViT (Tu et al. 2022, "MaxViT: Multi-Axis Vision Transformer").

Each block is a convolution, attention inside windows of 7x7 pixels, and attention inside grids of 7x7 pixels that span
the whole map (sections 3.2 and 3.3, Fig. 2), so that every block joins pixels far apart, and memory and time grow with
the number of pixels. Parameters in millions: tiny 30.1, small 67.6, base 118.1, large 209.8; with timm's classifiers of
1000 classes 30.9, 68.9, 119.5 and 211.8 (in the paper 31, 69, 120 and 212).

Images of any size: where 7 does not divide a side of a map, zeros at the bottom and right fill the last windows and
the ends of the grids. No pixel attends to them. The authors' code and its ports refuse such sizes.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.errors import counted
from jaxseg.nn import (
    Conv,
    ConvNormAct,
    Dense,
    LayerNorm,
    Layers,
    SqueezeExcite,
    StochasticDepth,
    avg_pool,
    crop_to,
    dot_product_attention,
    drop_rates,
    pad_to_multiple,
    parameter,
    resize,
)
from jaxseg.nn.initializers import truncated_normal
from jaxseg.nn.norm import is_identity, with_defaults
from jaxseg.nn.ops.windows import by_distance, from_grid, from_windows, to_grid, to_windows

_init = truncated_normal(0.02)

Form = Literal["authors", "torchvision"]
_ACTIVATIONS = {"authors": jax.nn.gelu, "torchvision": functools.partial(jax.nn.gelu, approximate=False)}


class AxisAttention(nn.Module):
    """Multi-head attention inside windows, or inside grids that span the map: f[b,h,w,c] -> f[b,h,w,c] (section 3.2).

    Any h and w: the map is extended at the bottom and right to multiples of the side, and no query attends to the
    pixels that this adds. Children: "query", "key", "value", "out"; parameter "position" f32[(2s-1)²,n], a bias for
    each distance of two pixels of a window, or of two places of a grid.

    Attributes:
        head_width: d, channels of a head; must divide c.
        side: s, that of a window or a grid.
        grid: whether it is the attention of grids.
        trained_side: side in the pretraining, of which the table of biases is; it is resized bilinearly to `side`, as
            in the authors' code. None: `side`.
        scale_by_features: whether the scores are divided by the root of c in place of that of d, as in torchvision.
        dtype: compute dtype; the softmax is float32.

    Raises:
        ValueError: if head_width does not divide c.
    """

    head_width: int = 32
    side: int = 7
    grid: bool = False
    trained_side: int | None = None
    scale_by_features: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, _, _, c = x.shape
        d, s = self.head_width, self.side
        if c % d:
            raise ValueError(f"MaxViT: attention of {counted(c, 'feature')} cannot have heads of width {d}.")
        split, join = (to_grid, from_grid) if self.grid else (to_windows, from_windows)
        x, size = pad_to_multiple(x, s)
        padded = x.shape[1:3]
        tokens = split(x, s)
        mask = None
        if padded != size:
            rows, columns = (jnp.arange(n) < side for n, side in zip(padded, size))
            mask = split((rows[:, None] & columns[None])[None, :, :, None], s).reshape(1, -1, 1, 1, s * s)
            mask = jnp.broadcast_to(mask, (b, mask.shape[1], 1, s * s, s * s)).reshape(-1, 1, s * s, s * s)

        def project(name: str) -> jax.Array:
            y = Dense(c, kernel_init=_init, dtype=self.dtype, name=name)(tokens)
            return y.reshape(*tokens.shape[:2], c // d, d)

        query, key, value = project("query"), project("key"), project("value")
        if self.scale_by_features:
            query = query * math.sqrt(d / c)
        y = dot_product_attention(query, key, value, mask, by_distance(self._biases(c // d), s))
        y = Dense(c, kernel_init=_init, dtype=self.dtype, name="out")(y.reshape(tokens.shape))
        return crop_to(join(y, s, padded), size)

    def _biases(self, heads: int) -> jax.Array:
        """Returns f32[(2s-1)²,n]."""
        trained, count = 2 * (self.trained_side or self.side) - 1, 2 * self.side - 1
        table = parameter(self, "position", _init, (trained**2, heads))
        if trained == count:
            return table
        return resize(table.reshape(1, trained, trained, heads), (count, count)).reshape(count**2, heads)


class AxisBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): f[b,h,w,c] -> f[b,h,w,c].

    Children: "norm1", "attention", "norm2", "expand", "reduce", and "drop1", "drop2", the stochastic depth of either
    branch.

    Attributes:
        head_width, side, grid, trained_side: of the attention (`AxisAttention`).
        mlp_ratio, form: as in `MaxViT`.
        drop_path: rate of stochastic depth.
        common: gives the activation, the dtype and the mapped axis.
    """

    head_width: int
    side: int
    grid: bool
    trained_side: int | None = None
    mlp_ratio: int = 4
    form: Form = "authors"
    drop_path: Share = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        dtype, c = self.common.dtype, x.shape[-1]
        dense = functools.partial(Dense, kernel_init=_init, dtype=dtype)
        drop = functools.partial(StochasticDepth, self.drop_path, self.common.axis_name)
        attention = AxisAttention(
            *(self.head_width, self.side, self.grid, self.trained_side, self.form == "torchvision"),
            dtype=dtype,
            name="attention",
        )
        y = attention(LayerNorm(dtype=dtype, name="norm1")(x))
        x = x + drop(name="drop1")(y, train=train)
        y = dense(self.mlp_ratio * c, name="expand")(LayerNorm(dtype=dtype, name="norm2")(x))
        y = dense(c, name="reduce")(self.common.activate(y))
        return x + drop(name="drop2")(y, train=train)


class MaxViTConv(nn.Module):
    """shortcut(x) + branch(norm(x)): f[b,h,w,c] -> f[b,h/stride,w/stride,features] (sizes rounded up; section 3.3).

    The branch expands, filters each channel with the stride, excites and projects; the shortcut averages pixels where
    there is a stride, and maps them linearly where the channels differ. Children: "norm", "expand", "depthwise"
    (`ConvNormAct`s), "excite", "project", "drop", "shortcut" (there).

    Attributes:
        features: channels of the result.
        stride: 1 or 2.
        expansion, form: as in `MaxViT`.
        drop_path: rate of stochastic depth.
        common: norm, activation, dtype and mapped axis.
    """

    features: int
    stride: int = 1
    expansion: int = 4
    form: Form = "authors"
    drop_path: Share = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common, n = self.common, self.expansion * self.features
        theirs = self.form == "torchvision"
        linear = functools.partial(Conv, self.features, 1, kernel_init=common.kernel_init, dtype=common.dtype)
        y = common.normalise(x, "norm", train=train)
        y = ConvNormAct(n, 1, common=common, name="expand")(y, train=train)
        depthwise = ConvNormAct(
            n, 3, self.stride, groups=n, padding=None if theirs else "same", common=common, name="depthwise"
        )
        y = depthwise(y, train=train)
        squeezed = max(1, self.features // 4)
        y = SqueezeExcite(features=squeezed, act=jax.nn.silu, dtype=common.dtype, name="excite")(y)
        y = StochasticDepth(self.drop_path, common.axis_name, name="drop")(linear(name="project")(y), train=train)
        if self.stride > 1:
            x = self._halved(x)
        if x.shape[-1] != self.features or (theirs and self.stride > 1):
            x = linear(name="shortcut")(x)
        return x + y

    def _halved(self, x: jax.Array) -> jax.Array:
        """f[b,h,w,c] -> f[b,h/2,w/2,c]: the means of 2x2 pixels, of torchvision of 3x3 with zeros around the map."""
        if self.form == "torchvision":
            return avg_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)
        return avg_pool(x, 2, ceil_mode=True)


class MaxViTBlock(nn.Module):
    """A convolution, attention of windows, attention of grids: f[b,h,w,c] -> f[b,h/stride,w/stride,features] (Fig. 2).

    Children: "conv" (`MaxViTConv`), "window" and "grid" (`AxisBlock`s); the attributes are theirs.
    """

    features: int
    stride: int
    head_width: int
    window: int
    trained_window: int | None
    expansion: int
    mlp_ratio: int
    form: Form
    drop_path: Share
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        shared: dict[str, Any] = {"form": self.form, "drop_path": self.drop_path, "common": self.common}
        x = MaxViTConv(self.features, self.stride, self.expansion, **shared, name="conv")(x, train=train)
        for name in ("window", "grid"):
            form = (self.head_width, self.window, name == "grid", self.trained_window, self.mlp_ratio)
            x = AxisBlock(*form, **shared, name=name)(x, train=train)
        return x


class MaxViTStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/2,w/2,features]: blocks, the first of stride 2. Children: "block1", "block2", ..."""

    block: Any
    drops: tuple[float, ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i, drop in enumerate(self.drops):
            block = self.block(stride=1 if i else 2, drop_path=drop, name=f"block{i + 1}")
            x = block(x, train=train)
        return x


class MaxViTStem(nn.Module):
    """f[b,h,w,c] -> f[b,h/2,w/2,width] (sizes rounded up): two 3x3 convolutions, norm and activation between them.

    Children: "conv1", of stride 2, "norm", "conv2". In the form of the authors the first has a bias before its norm.
    """

    width: int
    form: Form
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common, authors = self.common, self.form == "authors"
        conv = functools.partial(Conv, self.width, 3, kernel_init=common.kernel_init, dtype=common.dtype)
        bias = authors or is_identity(common.norm)
        x = conv(2, padding="same" if authors else None, use_bias=bias, name="conv1")(x)
        return conv(name="conv2")(common.activate(common.normalise(x, "norm", train=train)))


class MaxViT(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 2, 4, 8, 16, 32, finest first; by default MaxViT-T.

    Level 0 is the stem. Children: "stem", and "stage1", "stage2", ... for the levels after it.

    Attributes:
        widths: channels of each level: of the stem, then of each stage.
        depths: blocks of each stage.
        head_width: channels of an attention head; must divide the widths of the stages.
        window: side of the windows and of the grids, in pixels of a stage. The paper has 7 for images of 224x224, and
            the published weights of images of 384x384 and 512x512 have 12 and 16.
        trained_window: side of the windows in the pretraining; the tables of biases have its size and are resized
            bilinearly. None: `window`.
        expansion: channels of the depthwise convolution of a block over those of the block.
        mlp_ratio: hidden over outer width of the dense layers.
        form: "authors" as in their code and timm's `maxvit_*_tf`; or "torchvision" as in its `maxvit_t`, which differs
            in the zeros around strided convolutions, the pooling and projection of shortcuts, the scale of scores, the
            exact GELU, and a bias of the stem. Weights belong to one of them.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first. The authors' code
            for ImageNet-1k has .2, .3, .4 and .6 from tiny to large.
        common: norm, dtype and mapped axis of every layer; the norms of attention and MLP are layer norms whatever it
            says, and the activation is GELU.

    Raises:
        ValueError: if depths are not as many as widths but one, or head_width does not divide the width of a stage.
    """

    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    depths: tuple[int, ...] = (2, 2, 5, 2)
    head_width: int = 32
    window: int = 7
    trained_window: int | None = None
    expansion: int = 4
    mlp_ratio: int = 4
    form: Form = "authors"
    drop_path: Share = 0.2
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(2 ** (i + 1) for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        if len(self.depths) != len(self.widths) - 1:
            raise ValueError(
                f"MaxViT: widths {self.widths} must be those of the stem and of the "
                f"{counted(len(self.depths), 'stage')} of depths {self.depths}."
            )
        norm = with_defaults(self.common.norm, epsilon=1e-3, momentum=0.99)
        common = self.common.replace(norm=norm, act=_ACTIVATIONS[self.form])
        x = MaxViTStem(self.widths[0], self.form, common, name="stem")(x, train=train)
        pyramid = [x]
        for i, (features, drops) in enumerate(zip(self.widths[1:], drop_rates(self.drop_path, self.depths)), start=1):
            block = functools.partial(
                MaxViTBlock,
                features,
                head_width=self.head_width,
                window=self.window,
                trained_window=self.trained_window,
                expansion=self.expansion,
                mlp_ratio=self.mlp_ratio,
                form=self.form,
                common=common,
            )
            x = MaxViTStage(block, drops, name=f"stage{i}")(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)
