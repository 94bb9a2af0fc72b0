"""Vision transformers (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1) as encoders.

One family for the ViTs whose published weights people start from. They differ in a few fields: DINOv2 (Oquab et al.
2024) has layer scale, and with registers (Darcet et al. 2024) four more tokens; DINOv3 (Siméoni et al. 2025) rotates
queries and keys by the position of their patch in place of a learned table; MAE (He et al. 2022) is the plain form;
CLIP (Radford et al. 2021) has a norm before the blocks and another activation; SigLIP 2 (Tschannen et al. 2025) has no
class token. Parameters of the encoder alone, in millions: S 22, B 86, L 303.

All levels have the stride of the patches. A network that needs a pyramid gets `jaxseg.models.feature_pyramid` behind
this encoder (`jaxseg.models.assembly.make_encoder`), or `jaxseg.models.vit_adapter` beside it; `dpt`, `linear_head`,
`segmenter` and `eomt` read the levels.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import NotNegative, PositiveShare, Share, WholeNotNegative
from jaxseg.nn import (
    BARE,
    Conv,
    Dense,
    LayerNorm,
    Layers,
    MultiHeadAttention,
    StochasticDepth,
    drop_rates,
    pad_to_multiple,
    parameter,
    resize_cubic,
)
from jaxseg.nn.initializers import lecun_normal, truncated_normal
from jaxseg.nn.ops.sizes import Side, array_module
from jaxseg.types import Array

Gelu = Literal["gelu", "gelu_tanh", "quick_gelu"]
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}
_init = truncated_normal(0.02)
Rotate: TypeAlias = Callable[[jax.Array], jax.Array]
Between: TypeAlias = Callable[[int, jax.Array, nn.Module], tuple[jax.Array, jax.Array | None]]
After: TypeAlias = Callable[[int, jax.Array], None]


def rotary_angles(h: Side, w: Side, width: int, base: float = 100.0) -> Array:
    """The angles f32[h·w,width/2] by which DINOv3 rotates the channels of a head (Siméoni et al. 2025, section 3.2).

    The centre of a patch has a row and a column in [-1, 1] over the image, whatever its size. A quarter of the channels
    turns with the row at geometric frequencies, 2 pi base^(-4 i / width), and a quarter with the column.
    """
    xp = array_module(h, w)
    frequency = base ** (-4 * xp.arange(width // 4) / width)

    def angles(side: Side) -> Array:
        count = side if xp is not jnp else jnp.asarray(side, jnp.float32)
        return 2 * math.pi * (2 * (xp.arange(side) + 0.5) / count - 1)[:, None] * frequency

    shape = (h, w, width // 4)
    rows, columns = xp.broadcast_to(angles(h)[:, None], shape), xp.broadcast_to(angles(w)[None], shape)
    return xp.concatenate([rows, columns], -1).reshape(h * w, width // 2).astype(jnp.float32)


def rotation(angles: Array) -> Rotate:
    """Returns the rotation f[b,t,n,d] -> f[b,t,n,d] of the last tokens, those of the patches, by f32[h·w,d/2].

    Channel i is the first and channel i + d/2 the second coordinate of a plane.
    """
    cos, sin = (jnp.asarray(f(angles))[None, :, None] for f in (jnp.cos, jnp.sin))

    def rotate(x: jax.Array) -> jax.Array:
        others = x.shape[1] - angles.shape[0]
        first, second = jnp.split(x[:, others:].astype(jnp.float32), 2, axis=-1)
        turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
        return jnp.concatenate([x[:, :others], turned.astype(x.dtype)], 1)

    return rotate


class ViTStem(nn.Module):
    """f[b,h,w,c] -> tokens f[b,n+t,width], t = h/patch · w/patch: class token and registers first, then the patches.

    Children: "patch", with pre_norm "norm"; parameters "class_token" f32[1,1,width], "registers" f32[1,r,width] and
    "position" f32[1,.,width], first the class token's if it has one, then those of `grid`, row by row.

    Attributes:
        width, patch, grid, position, class_token, class_position, registers, pre_norm, patch_bias, antialias, epsilon:
            as in `ViT`.
        dtype: compute dtype.
    """

    width: int
    patch: int
    grid: tuple[int, int]
    position: str
    class_token: bool
    class_position: bool
    registers: int
    pre_norm: bool
    patch_bias: bool
    antialias: bool
    epsilon: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, c = x.shape[0], self.width
        x = Conv(
            *(c, self.patch, self.patch),
            padding=0,
            use_bias=self.patch_bias,
            kernel_init=lecun_normal,
            dtype=self.dtype,
            name="patch",
        )(x)
        size, first = x.shape[1:3], []
        tokens = x.reshape(b, size[0] * size[1], c)
        if self.class_token:
            first.append(parameter(self, "class_token", _init, (1, 1, c)))
        if self.position == "learned":
            own = int(self.class_token and self.class_position)
            table = parameter(self, "position", _init, (1, own + self.grid[0] * self.grid[1], c))
            places = resize_cubic(table[0, own:].reshape(*self.grid, c), size, antialias=self.antialias)
            tokens = tokens + places.reshape(1, -1, c).astype(tokens.dtype)
            first = [first[0] + table[:, :1]] if own else first
        if self.registers:
            first.append(parameter(self, "registers", _init, (1, self.registers, c)))
        first = [jnp.broadcast_to(token, (b, *token.shape[1:])).astype(tokens.dtype) for token in first]
        tokens = jnp.concatenate([*first, tokens], 1)
        return LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(tokens) if self.pre_norm else tokens


class ViTBlock(nn.Module):
    """x + scale1 attention(norm(x)), then x + scale2 mlp(norm(x)): tokens f[b,t,c] -> f[b,t,c] (eqs. 2-3).

    Children: "norm1", "attention", "norm2", "expand", "reduce", and "drop1", "drop2", the stochastic depth of either
    branch; with layer scale (Touvron et al. 2021, CaiT) the parameters "scale1" and "scale2", f32[c].

    Attributes:
        num_heads: of the attention.
        hidden: width between the two dense layers.
        act, epsilon, layer_scale, key_bias: as in `ViT`.
        drop_path: rate of stochastic depth.
        common: gives the dtype and the mapped axis.
    """

    num_heads: int
    hidden: int
    act: str = "gelu"
    epsilon: float = 1e-6
    layer_scale: float = 0.0
    key_bias: bool = True
    drop_path: Share = 0.0
    common: Layers = BARE

    @nn.compact
    def __call__(
        self, x: jax.Array, rotate: Rotate | None = None, mask: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """Applies the block; `rotate` and `mask` are those of `jaxseg.nn.MultiHeadAttention`."""
        dtype, c = self.common.dtype, x.shape[-1]
        norm = functools.partial(LayerNorm, epsilon=self.epsilon, dtype=dtype)
        dense = functools.partial(Dense, kernel_init=_init, dtype=dtype)

        def branch(y: jax.Array, number: int) -> jax.Array:
            if self.layer_scale:
                scale = parameter(self, f"scale{number}", nn.initializers.constant(self.layer_scale), (c,))
                y = y * scale.astype(y.dtype).reshape(1, 1, -1)
            return StochasticDepth(self.drop_path, self.common.axis_name, name=f"drop{number}")(y, train=train)

        y = norm(name="norm1")(x)
        attention = MultiHeadAttention(
            self.num_heads, kernel_init=_init, key_bias=self.key_bias, dtype=dtype, name="attention"
        )
        x = x + branch(attention(y, y, y, mask, rotate), 1)
        y = _ACTIVATIONS[self.act](dense(self.hidden, name="expand")(norm(name="norm2")(x)))
        return x + branch(dense(c, name="reduce")(y), 2)


class ViT(nn.Module):
    """f[b,h,w,c] -> one feature map f[b,h/patch,w/patch,width] for each of the blocks `taps`; by default ViT-B/16.

    An image of any size: by default sides are padded with zeros at the bottom and right to multiples of the patch, and
    the position encodings are resized to its grid of patches. Children: "stem" (`ViTStem`), "block1", "block2", ...
    (`ViTBlock`s) and "norm".

    Attributes:
        width: channels.
        depth: number of blocks.
        num_heads: heads of each attention; must divide the width.
        mlp_ratio: hidden over outer width of the dense layers of a block.
        patch: side of a patch in pixels.
        grid: rows and columns of the table of learned positions: those of the images of the pretraining.
        position: "learned", a table; "rotary", that of DINOv3 (`rotary_angles`).
        class_token: whether there is a class token before the patches.
        class_position: whether the class token has a place in the table of positions.
        registers: number of tokens beside class and patches (Darcet et al. 2024, section 2.2); 0 or more.
        layer_scale: initial value of the layer scales; 0: there are none.
        pre_norm: whether a norm stands before the blocks (CLIP).
        patch_bias: whether the patches' convolution has a bias.
        key_bias: whether the projections of the keys have a bias.
        act: activation of the blocks: "gelu"; "gelu_tanh", its approximation by tanh (SigLIP); "quick_gelu",
            x sigmoid(1.702 x) (CLIP).
        epsilon: of every norm.
        taps: the blocks whose results are the levels, counted from 1; None: four at equal distances, the last included.
            Blocks after the last of them have no effect and no gradient: give their number as `depth` to leave them
            out.
        norm_levels: whether each level passes the norm that ends the encoder; False: the results of the blocks, beside
            which "norm" has no effect and no gradient, and is there for the weights of files; "last": the last alone.
        antialias: of the resizing of the table of positions; see `jaxseg.nn.resize_cubic`.
        rounding: of sizes that the patch does not divide: "up" pads with zeros, "down" omits the last rows and columns,
            as torch does (then an image needs a whole patch).
        pyramid: "simple", the feature pyramid behind the encoder, in networks that need one; "adapter", that of
            ViT-Adapter (`jaxseg.models.vit_adapter`) in every network, whose interactions end at the `taps`.
        pyramid_width: channels of the simple pyramid; those of the adapter's are `width`.
        adapter_heads: heads of the adapter's attention; None: `num_heads`.
        adapter_ratio: channels of its values over `width`; None: 1, from 768 channels on 1/2, as in the release.
        adapter_stem: channels of its convolutions at their first stride.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first.
        common: gives the dtype and the mapped axis; norms are layer norms whatever it says.

    Raises:
        ValueError: for a tap that is no block, or heads that do not divide the width or, with rotary positions, whose
            width is no multiple of 4.
    """

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: int = 4
    patch: int = 16
    grid: tuple[int, int] = (14, 14)
    position: Literal["learned", "rotary"] = "learned"
    class_token: bool = True
    class_position: bool = True
    registers: WholeNotNegative = 0
    layer_scale: NotNegative = 0.0
    pre_norm: bool = False
    patch_bias: bool = True
    key_bias: bool = True
    act: Gelu = "gelu"
    epsilon: float = 1e-6
    taps: tuple[int, ...] | None = None
    norm_levels: bool | Literal["last"] = True
    antialias: bool = False
    rounding: Literal["up", "down"] = "up"
    pyramid: Literal["simple", "adapter"] = "simple"
    pyramid_width: int = 256
    adapter_heads: int | None = None
    adapter_ratio: PositiveShare | None = None
    adapter_stem: int = 64
    drop_path: Share = 0.0
    common: Layers = Layers()

    @property
    def levels(self) -> tuple[int, ...]:
        """The blocks whose results are the levels."""
        if self.taps is not None:
            return tuple(self.taps)
        return tuple(sorted({max(1, self.depth * n // 4) for n in range(1, 5)}))

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level: all of them the patch."""
        return (self.patch,) * len(self.levels)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return (self.width,) * len(self.levels)

    @property
    def prefix(self) -> int:
        """The number of tokens before those of the patches."""
        return int(self.class_token) + self.registers

    def whole_patches(self, x: jax.Array) -> tuple[jax.Array, tuple[int, int]]:
        """Returns the image with what makes whole patches of it, and their rows and columns."""
        x = pad_to_multiple(x, self.patch)[0] if self.rounding == "up" else x
        return x, (x.shape[1] // self.patch, x.shape[2] // self.patch)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        with_prefix: bool = False,
        between: Between | None = None,
        after: After | None = None,
    ) -> Any:
        """Returns the levels; with `with_prefix` also all tokens f[b,n,width] before the patches, of each level.

        Args:
            x: f[b,h,w,c].
            train: whether stochastic depth is on.
            with_prefix: see above.
            between: called before each block with its number from 0, the tokens f[b,t,width] and the last norm; returns
                the tokens of the block, which may be more before the others, and the mask of its attention or None.
            after: called after each block with its number from 0 and its result.
        """
        p, levels = self.patch, self.levels
        if not levels or min(levels) < 1 or max(levels) > self.depth:
            raise ValueError(f"ViT: taps {levels} must be blocks, 1 to {self.depth}.")
        if self.width % self.num_heads or (self.position == "rotary" and self.width // self.num_heads % 4):
            rotary = ", a multiple of 4 channels for each with position='rotary'" if self.position == "rotary" else ""
            raise ValueError(f"ViT: num_heads={self.num_heads} must divide width={self.width}{rotary}.")
        x, size = self.whole_patches(x)
        form = (self.position, self.class_token, self.class_position, self.registers, self.pre_norm)
        stem = ViTStem(
            *(self.width, p, self.grid, *form, self.patch_bias, self.antialias, self.epsilon),
            dtype=self.common.dtype,
            name="stem",
        )
        tokens = stem(x)
        rotate = None
        if self.position == "rotary":
            rotate = rotation(rotary_angles(*size, self.width // self.num_heads))
        norm = LayerNorm(epsilon=self.epsilon, dtype=self.common.dtype, name="norm")
        pyramid, prefixes = [], []
        (rates,) = drop_rates(self.drop_path, (self.depth,))
        for i, rate in enumerate(rates):
            mask = None
            if between is not None:
                tokens, mask = between(i, tokens, norm)
            tokens = ViTBlock(
                *(self.num_heads, self.mlp_ratio * self.width, self.act, self.epsilon),
                *(float(self.layer_scale), self.key_bias, rate, self.common),
                name=f"block{i + 1}",
            )(tokens, rotate, mask, train=train)
            if after is not None:
                after(i, tokens)
            if i + 1 in levels:
                last = i + 1 == max(levels)
                y = norm(tokens) if self.norm_levels is True or (self.norm_levels and last) else tokens
                others = y.shape[1] - size[0] * size[1]
                pyramid.append(y[:, others:].reshape(-1, *size, self.width))
                prefixes.append(y[:, :others])
        if not self.norm_levels:
            norm(tokens)  # so that it has its parameters, as files of weights do
        return (tuple(pyramid), tuple(prefixes)) if with_prefix else tuple(pyramid)
