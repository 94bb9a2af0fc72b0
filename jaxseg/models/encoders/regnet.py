"""RegNetX and RegNetY (Radosavovic et al. 2020, "Designing Network Design Spaces", sections 3.3 and 4, Tables 2 and 4).

Four numbers give the widths and depths of a network. Block j has the width u_j = w_0 + w_a j (eq. 2), which is replaced
by the nearest power w_0 w_m^s, s = round(log_(w_m)(u_j / w_0)) (eq. 3, 4), rounded to a multiple of 8; blocks of one
width are a stage. A stage's width is then rounded to a multiple of its group width.
"""

import itertools
import math
from typing import Literal

import jax
import numpy as np
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.errors import ArgumentError
from jaxseg.nn import (
    BARE,
    ConvNormAct,
    Layers,
    SqueezeExcite,
    StochasticDepth,
    drop_rates,
    is_identity,
    round_channels,
)

_QUANTUM = 8  # of the widths
_SQUEEZE = 0.25  # features of a gate over the channels of the block's input


class RegNetBlock(nn.Module):
    """1x1, grouped 3x3, gates, 1x1, add, ReLU: f[b,h,w,c] -> f[b,h/stride,w/stride,features] (Fig. 4; Y: section 4).

    Children: "reduce", "conv", "excite" where squeeze > 0, "expand", "shortcut" where it is projected, "drop".

    Attributes:
        features: channels of the result and of the convolutions.
        stride, dilation, groups: of the 3x3 convolution.
        squeeze: features of the gates' inner layer, 0 for no gates.
        project: whether the shortcut is a 1x1 convolution with the stride.
        drop_path: rate of the stochastic depth.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    squeeze: int = 0
    project: bool = False
    drop_path: float = 0.0
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common, linear = self.common, self.common.replace(act=None)
        h = ConvNormAct(self.features, 1, common=common, name="reduce")(x, train=train)
        h = ConvNormAct(self.features, 3, self.stride, self.dilation, self.groups, common=common, name="conv")(
            h, train=train
        )
        if self.squeeze:
            h = SqueezeExcite(features=self.squeeze, dtype=common.dtype, name="excite")(h)
        last = linear
        if common.norm is not None and is_identity(common.norm):  # the branch starts at 0, as in other residual blocks
            last = last.replace(kernel_init=nn.initializers.zeros_init())
        h = ConvNormAct(self.features, 1, common=last, name="expand")(h, train=train)
        if self.drop_path > 0:
            h = StochasticDepth(self.drop_path, axis_name=common.axis_name, name="drop")(h, train=train)
        if self.project:
            x = ConvNormAct(self.features, 1, stride=self.stride, common=linear, name="shortcut")(x, train=train)
        return common.activate(x + h)


class RegNetStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/stride,w/stride,features]; the first block has the stride. Children: "block1", "block2", ...

    Attributes:
        features: channels.
        dilations: atrous rate of each block; as many blocks as rates.
        drops: rate of the stochastic depth of each block.
        stride: of the first block.
        groups: of the 3x3 convolutions.
        gated: whether blocks have gates.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    dilations: tuple[int, ...]
    drops: tuple[float, ...]
    stride: int = 1
    groups: int = 1
    gated: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i, (dilation, drop) in enumerate(zip(self.dilations, self.drops)):
            x = RegNetBlock(
                self.features,
                self.stride if i == 0 else 1,
                dilation,
                self.groups,
                squeeze=max(1, round(_SQUEEZE * x.shape[-1])) if self.gated else 0,
                project=i == 0,
                drop_path=drop,
                common=self.common,
                name=f"block{i + 1}",
            )(x, train=train)
        return x


class RegNet(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^(i+1),w/2^(i+1),widths[i]], finest first; the defaults are RegNetX-400MF.

    Children: "stem" (level 0) and "stage1", "stage2", ... for the levels after it.

    Attributes:
        blocks: number of blocks, d in the paper.
        initial, slope, factor: w_0, w_a and w_m of the paper.
        group_width: channels of a group of the 3x3 convolutions.
        gated: whether blocks have squeeze-and-excitation (RegNetY).
        stem: channels of the stem.
        rounding: of a stage's width to a multiple of the group width: "nearest", as in the paper, or "torchvision",
            which rounds halves up. Of the published networks X-400MF, Y-800MF and Y-8GF differ.
        output_stride: dilation replaces the strides of stages beyond it.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first (Huang 2016).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    blocks: int = 22
    initial: int = 24
    slope: float = 24.48
    factor: float = 2.54
    group_width: int = 16
    gated: bool = False
    stem: int = 32
    rounding: Literal["nearest", "torchvision"] = "nearest"
    output_stride: Literal[8, 16, 32] = 32
    drop_path: Share = 0.0
    common: Layers = Layers()

    @property
    def _stages(self) -> list[tuple[int, int, int]]:
        """(channels, blocks, groups) of each stage."""
        if self.factor <= 1 or self.initial < 1 or self.slope < 0:
            raise ArgumentError("RegNet: factor must be above 1, initial at least 1 and slope at least 0.")
        # In float32, as the published networks were made: some widths lie halfway between two multiples.
        linear = np.arange(self.blocks, dtype=np.float32) * np.float32(self.slope) + self.initial
        powers = np.round(np.log(linear / self.initial) / np.float32(math.log(self.factor)))
        widths = np.round(self.initial * np.float32(self.factor) ** powers / _QUANTUM).astype(int) * _QUANTUM
        result = []
        for width, run in itertools.groupby(widths.tolist()):
            group = min(self.group_width, width)
            nearest = max(1, round(width / group)) * group
            features = nearest if self.rounding == "nearest" else round_channels(width, group)
            result.append((features, len(list(run)), features // group))
        return result

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(min(2 ** (i + 1), self.output_stride) for i in range(len(self._stages) + 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return (self.stem, *(features for features, _, _ in self._stages))

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return tuple(blocks for _, blocks, _ in self._stages)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        common = self.common.replace(act=jax.nn.relu)
        x = ConvNormAct(self.stem, 3, stride=2, common=common, name="stem")(x, train=train)
        pyramid, before = [x], 1
        drops = drop_rates(self.drop_path, self.depths)
        for i, (features, blocks, groups) in enumerate(self._stages, start=1):
            rate = 2 ** (i + 1) // self.strides[i]
            x = RegNetStage(
                features,
                # The first convolution of a stage whose stride dilation replaces has the rate of the stage before.
                (before, *(rate,) * (blocks - 1)),
                drops[i - 1],
                self.strides[i] // self.strides[i - 1],
                groups,
                self.gated,
                common,
                name=f"stage{i}",
            )(x, train=train)
            pyramid.append(x)
            before = rate
        return tuple(pyramid)
