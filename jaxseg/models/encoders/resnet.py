"""ResNet (He et al. 2016, "Deep Residual Learning for Image Recognition") and its -D, SE, wide and ResNeXt forms.

Blocks carry their stride in the 3x3 convolution, as torchvision's do. The -D form is that of He et al. 2019 ("Bag of
Tricks for Image Classification"), section 4.2; the SE form Hu et al. 2018 ("Squeeze-and-Excitation Networks"); ResNeXt
is Xie et al. 2017 ("Aggregated Residual Transformations"). Atrous stages are those of Chen et al. 2017 ("Rethinking
Atrous Convolution"), sections 3.2 and 4.2.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.errors import counted
from jaxseg.nn import BasicBlock, BottleneckBlock, ConvNormAct, Layers, drop_rates, max_pool, round_channels

_SQUEEZE_RATIO = 16  # Hu 2018, section 6.1


class ResNetStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/stride,w/stride,features]: residual blocks, the first of which has the stride.

    Children: "block1", "block2", ...

    Attributes:
        block: builds a block: `block(features, stride=, dilation=, shortcut=, shortcut_pool=, name=)`.
        project: whether the first block's shortcut is a projection.
        dilations: atrous rate of each block; as many blocks as rates.
        first_dilation: that of the first convolution of the stage.
        shortcut_pool: window of the average pooling before the stage's projection; 1: no pooling.
        drop_path: rate of stochastic depth of each block; empty: 0.
    """

    block: Callable[..., nn.Module]
    features: int
    stride: int = 1
    project: bool = True
    dilations: tuple[int, ...] = (1, 1)
    first_dilation: int = 1
    shortcut_pool: int = 1
    drop_path: tuple[float, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i, dilation in enumerate(self.dilations):
            first = {"shortcut_pool": self.shortcut_pool, "stride": self.stride} if i == 0 else {}
            x = self.block(
                self.features,
                rates=(dilation if i > 0 else self.first_dilation, dilation),
                shortcut="projection" if i == 0 and self.project else "identity",
                drop_path=self.drop_path[i] if self.drop_path else 0.0,
                **first,
                name=f"block{i + 1}",
            )(x, train=train)
        return x


def _basic(features: int, rates: tuple[int, int], **fields: Any) -> nn.Module:
    return BasicBlock(features, dilation=rates[1], first_dilation=rates[0], **fields)


def _bottleneck(features: int, rates: tuple[int, int], **fields: Any) -> nn.Module:
    return BottleneckBlock(features, dilation=rates[0], **fields)


class ResNet(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^(i+1),w/2^(i+1),widths[i]], finest first; the defaults are ResNet-50.

    Level 0 is the stem before its max-pooling. Children: "stem" ("stem1", "stem2" before it where deep) and "stage1",
    "stage2", ... for the levels after it.

    Attributes:
        depths: blocks of each stage (He 2016, Table 1).
        widths: channels of each level: of the stem, then of each stage.
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1).
        groups: of the 3x3 convolution of a bottleneck (ResNeXt's cardinality).
        ratio: channels of a bottleneck's output over those of its 3x3 convolution.
        deep_stem: whether three 3x3 convolutions replace the 7x7 one; the first two have half the width (-C and -D).
        average_shortcut: whether an average pooling has the stride of the projections (-D).
        squeeze_excite: whether every branch ends in squeeze-and-excitation gates.
        squeeze_divisor: the inner layer of a gate has a sixteenth of the channels of its block, rounded by
            `round_channels` to a multiple of this number. 1: no rounding. timm's SE-ResNet-18 and 34 have 8.
        output_stride: dilation replaces the strides of stages beyond it.
        multi_grid: factors of the rates of the last stage's blocks, repeated where the stage has more (Chen 2017,
            section 4.2.1).
        first_dilated: whether the first 3x3 convolution of a dilated stage has the rate of its stage, as in Chen 2017
            (where a stride is at the end of a stage) and segmentation_models.pytorch. False: where dilation replaces a
            stride, that convolution has the rate of the stage before, as in torchvision and timm; every second pixel
            then has the value that it has in the network with strides (except for poolings at the border).
        dropout: rate of the dropout before the last convolution of each block's branch.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first (Huang 2016).
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 256, 512, 1024, 2048)
    block: Literal["basic", "bottleneck"] = "bottleneck"
    groups: int = 1
    ratio: int = 4
    deep_stem: bool = False
    average_shortcut: bool = False
    squeeze_excite: bool = False
    squeeze_divisor: int = 1
    output_stride: Literal[8, 16, 32] = 32
    multi_grid: tuple[int, ...] = (1, 1, 1)
    first_dilated: bool = False
    dropout: Share = 0.0
    drop_path: Share = 0.0
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(min(2 ** (i + 1), self.output_stride) for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        if len(self.depths) != len(self.widths) - 1:
            raise ValueError(
                f"ResNet: widths {self.widths} must be those of the stem and of the "
                f"{counted(len(self.depths), 'stage')} of depths {self.depths}."
            )
        if self.block == "basic" and (self.groups, self.ratio) != (1, 4):
            raise ValueError("ResNet: groups and ratio are fields of the block 'bottleneck'.")
        x = self._stem(x, train=train)
        pyramid = [x]
        x = max_pool(x, 3, 2, padding=1)
        before, drops = 1, drop_rates(self.drop_path, self.depths)
        for i in range(1, len(self.widths)):
            rate = 2 ** (i + 1) // self.strides[i]
            stride = 1 if i == 1 else self.strides[i] // self.strides[i - 1]
            grid = self.multi_grid if i == len(self.depths) else (1,)
            x = ResNetStage(
                self._block(self.widths[i]),
                self.widths[i],
                stride,
                # Whatever the output stride, so that the parameters are the same.
                project=i > 1 or self.widths[i] != self.widths[i - 1],
                dilations=tuple(rate * grid[j % len(grid)] for j in range(self.depths[i - 1])),
                first_dilation=(rate if self.first_dilated else before) * grid[0],
                shortcut_pool=2 if self.average_shortcut and (stride > 1 or rate > 1) else 1,
                drop_path=drops[i - 1],
                name=f"stage{i}",
            )(x, train=train)
            pyramid.append(x)
            before = rate
        return tuple(pyramid)

    @property
    def _common(self) -> Layers:
        """The published networks have ReLU, whatever the activation of the decoder."""
        return self.common.replace(act=jax.nn.relu)

    def _stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        width = self.widths[0]
        if not self.deep_stem:
            return ConvNormAct(width, 7, stride=2, common=self._common, name="stem")(x, train=train)
        half = max(1, width // 2)
        x = ConvNormAct(half, stride=2, common=self._common, name="stem1")(x, train=train)
        x = ConvNormAct(half, common=self._common, name="stem2")(x, train=train)
        return ConvNormAct(width, common=self._common, name="stem")(x, train=train)

    def _block(self, features: int) -> Callable[..., nn.Module]:
        squeeze_ratio = _SQUEEZE_RATIO if self.squeeze_excite else None
        if self.squeeze_excite and self.squeeze_divisor > 1:
            squeeze_ratio = max(1, features // round_channels(features / _SQUEEZE_RATIO, self.squeeze_divisor))
        shared = {"squeeze_ratio": squeeze_ratio, "dropout": self.dropout, "common": self._common}
        if self.block == "basic":
            return functools.partial(_basic, **shared)
        return functools.partial(_bottleneck, groups=self.groups, ratio=self.ratio, **shared)
