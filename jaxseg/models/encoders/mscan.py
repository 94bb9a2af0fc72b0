"""Encoders MSCAN-T, S, B and L of SegNeXt (Guo, Lu, Hou, Liu, Cheng and Hu 2022, arXiv 2209.08575, section 3.1).

The attention is made of convolutions: strips of 7, 11 and 21 pixels, whose sum multiplies the features (eqs. 1 and 2,
Fig. 2). Widths and depths are those of Table 2; scales of the branches, and the layer norm behind each stage, are those
of the authors' release.
"""

import functools

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.encoders.mit import patch_init
from jaxseg.nn import Conv, LayerNorm, Layers, StochasticDepth, StripConv, drop_rates, parameter

_gelu = functools.partial(jax.nn.gelu, approximate=False)
_SCALE = 0.01  # of each branch before training


class ConvolutionalAttention(nn.Module):
    """Att ⊗ F of f[b,h,w,c] -> f[b,h,w,c], Att = W Σ_i Scale_i(D F) (Guo 2022, eqs. 1 and 2).

    D is a depthwise 5x5 convolution ("depthwise"), Scale_0 the identity, and Scale_i a row and a column of
    `strips`[i-1] pixels ("row7", "column7", ...); W is a 1x1 convolution ("mix").
    """

    strips: tuple[int, ...] = (7, 11, 21)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, dtype = x.shape[-1], self.common.dtype
        local = Conv(c, 5, groups=c, dtype=dtype, name="depthwise")(x)
        total = local
        for size in self.strips:
            rows = StripConv(size, "row", dtype, name=f"row{size}")(local)
            total = total + StripConv(size, "column", dtype, name=f"column{size}")(rows)
        return Conv(c, 1, kernel_init=patch_init, dtype=dtype, name="mix")(total) * x


class MSCANBlock(nn.Module):
    """x + s1 A(norm(x)), then x + s2 F(norm(x)): f[b,h,w,c] -> f[b,h,w,c] (Guo 2022, Fig. 2a).

    A: 1x1 convolution, GELU, convolutional attention, 1x1 convolution, and its input added ("project_in", "attention",
    "project_out"). F: 1x1 convolution, depthwise 3x3, GELU, 1x1 ("expand", "depthwise", "reduce"). Further children:
    "norm1", "norm2"; "drop1", "drop2", the stochastic depth of either branch. Parameters: branch_scale1 and
    branch_scale2 f32[c] (s1 and s2), .01 before training.
    """

    mlp_ratio: int = 4
    strips: tuple[int, ...] = (7, 11, 21)
    drop_path: Share = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        c, common = x.shape[-1], self.common
        drop = functools.partial(StochasticDepth, self.drop_path, common.axis_name)

        def conv(features: int, name: str, x: jax.Array) -> jax.Array:
            return Conv(features, 1, kernel_init=patch_init, dtype=common.dtype, name=name)(x)

        def scaled(y: jax.Array, name: str) -> jax.Array:
            scale = parameter(self, name, nn.initializers.constant(_SCALE), (c,))
            return y * scale.reshape(1, 1, 1, -1).astype(y.dtype)

        given = common.normalise(x, "norm1", train=train)
        y = _gelu(conv(c, "project_in", given))
        y = ConvolutionalAttention(self.strips, common, name="attention")(y)
        y = conv(c, "project_out", y) + given
        x = x + drop(name="drop1")(scaled(y, "branch_scale1"), train=train)
        hidden = c * self.mlp_ratio
        y = conv(hidden, "expand", common.normalise(x, "norm2", train=train))
        y = Conv(hidden, 3, groups=hidden, dtype=common.dtype, name="depthwise")(y)
        y = conv(c, "reduce", _gelu(y))
        return x + drop(name="drop2")(scaled(y, "branch_scale2"), train=train)


class MSCANStage(nn.Module):
    """3x3 convolutions of stride 2, then blocks: f[b,h,w,c] -> f[b,h/stride,w/stride,features], sizes rounded up.

    Children: "embed1", "embed_norm1", and "embed2", "embed_norm2" with `halvings` = 2; "block1", "block2", ...; "norm".
    """

    features: int
    halvings: int
    mlp_ratio: int
    drop_path: tuple[float, ...]
    strips: tuple[int, ...] = (7, 11, 21)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(self.halvings):
            last = i == self.halvings - 1
            width = self.features if last else max(1, self.features // 2)
            embed = Conv(width, stride=2, kernel_init=patch_init, dtype=self.common.dtype, name=f"embed{i + 1}")
            x = self.common.normalise(embed(x), f"embed_norm{i + 1}", train=train)
            x = x if last else _gelu(x)
        for i, rate in enumerate(self.drop_path):
            x = MSCANBlock(self.mlp_ratio, self.strips, rate, self.common, name=f"block{i + 1}")(x, train=train)
        return LayerNorm(dtype=self.common.dtype, name="norm")(x)


class MSCAN(nn.Module):
    """f[b,h,w,c] -> features f[b,h/strides[i],w/strides[i],widths[i]], finest first; by default MSCAN-T, strides 4-32.

    All convolutions have a bias, also those before a norm, as in the authors' release; the activation is the exact GELU
    of its published weights, whatever `common` has.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
        mlp_ratios: hidden over outer width of the feed-forward of each stage.
        strips: lengths of the strips, odd.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first.
        common: norm, dtype and mapped axis of every layer.
    """

    widths: tuple[int, ...] = (32, 64, 160, 256)
    depths: tuple[int, ...] = (3, 3, 5, 2)
    mlp_ratios: tuple[int, ...] = (8, 8, 4, 4)
    strips: tuple[int, ...] = (7, 11, 21)
    drop_path: Share = 0.1
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(4 * 2**i for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        levels = len(self.widths)
        for name in ("depths", "mlp_ratios"):
            if len(getattr(self, name)) < levels:
                raise ValueError(f"MSCAN: {name} needs {levels} numbers, as widths has.")
        pyramid: list[jax.Array] = []
        for i, (features, rates) in enumerate(zip(self.widths, drop_rates(self.drop_path, self.depths[:levels]))):
            halvings = 2 if i == 0 else 1
            stage = MSCANStage(
                features, halvings, self.mlp_ratios[i], rates, self.strips, self.common, name=f"stage{i}"
            )
            x = stage(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)
