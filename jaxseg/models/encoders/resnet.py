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
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn import BasicBlock, BottleneckBlock, ConvNormAct, make_norm, max_pool
from jaxseg.types import NormFactory

_SQUEEZE_RATIO = 16  # Hu 2018, section 6.1


class ResNetStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/stride,w/stride,features]: residual blocks, the first of which has the stride.

    Children: "block1", "block2", ...

    Attributes:
        block: builds a block: `block(features, stride=, dilation=, shortcut=, shortcut_pool=, name=)`.
        dilations: atrous rate of each block; as many blocks as rates.
        first_dilation: that of the first convolution of the stage.
        shortcut_pool: window of the average pooling before the stage's projection; 1: no pooling.
    """

    block: Callable[..., nn.Module]
    features: int
    stride: int = 1
    dilations: tuple[int, ...] = (1, 1)
    first_dilation: int = 1
    shortcut_pool: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        same = self.stride == 1 and x.shape[-1] == self.features
        for i, dilation in enumerate(self.dilations):
            first = {"shortcut_pool": self.shortcut_pool, "stride": self.stride} if i == 0 else {}
            x = self.block(
                self.features,
                rates=(dilation if i > 0 else self.first_dilation, dilation),
                shortcut="identity" if i > 0 or same else "projection",
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
        deep_stem: three 3x3 convolutions in place of the 7x7 one; the first two have half the width (-C and -D).
        average_shortcut: average pooling carries the stride of the projections (-D).
        squeeze_excite: squeeze-and-excitation gates end every branch.
        output_stride: stages beyond it dilate instead of striding.
        multi_grid: factors of the rates of the last stage's blocks, repeated where the stage has more (Chen 2017,
            section 4.2.1).
        first_dilated: whether the first 3x3 convolution of a dilated stage has the rate of its stage, as in Chen 2017
            (whose strides end stages in place of starting them) and segmentation_models.pytorch, or, where it
            replaces a stride, the rate of the stage before it, as in torchvision and timm. The latter gives exactly the
            features that the network with strides would have at those pixels.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 256, 512, 1024, 2048)
    block: Literal["basic", "bottleneck"] = "bottleneck"
    groups: int = 1
    ratio: int = 4
    deep_stem: bool = False
    average_shortcut: bool = False
    squeeze_excite: bool = False
    output_stride: Literal[8, 16, 32] = 32
    multi_grid: tuple[int, ...] = (1, 1, 1)
    first_dilated: bool = False
    norm: NormFactory = make_norm("batch")
    dtype: Any = jnp.float32

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(min(2 ** (i + 1), self.output_stride) for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        if len(self.depths) != len(self.widths) - 1:
            raise ValueError(
                f"ResNet: widths {self.widths} must be those of the stem and of the {len(self.depths)} stages of "
                f"depths {self.depths}."
            )
        if self.block == "basic" and (self.groups, self.ratio) != (1, 4):
            raise ValueError("ResNet: groups and ratio are fields of the block 'bottleneck'.")
        x = self._stem(x, train=train)
        pyramid = [x]
        x = max_pool(x, 3, 2, padding=1)
        before = 1
        for i in range(1, len(self.widths)):
            rate = 2 ** (i + 1) // self.strides[i]
            stride = 1 if i == 1 else self.strides[i] // self.strides[i - 1]
            grid = self.multi_grid if i == len(self.depths) else (1,)
            x = ResNetStage(
                self._block(),
                self.widths[i],
                stride,
                dilations=tuple(rate * grid[j % len(grid)] for j in range(self.depths[i - 1])),
                first_dilation=(rate if self.first_dilated else before) * grid[0],
                shortcut_pool=2 if self.average_shortcut and (stride > 1 or rate > 1) else 1,
                name=f"stage{i}",
            )(x, train=train)
            pyramid.append(x)
            before = rate
        return tuple(pyramid)

    def _stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        layers = {"norm": self.norm, "dtype": self.dtype}
        width = self.widths[0]
        if not self.deep_stem:
            return ConvNormAct(width, 7, stride=2, **layers, name="stem")(x, train=train)
        half = max(1, width // 2)
        x = ConvNormAct(half, stride=2, **layers, name="stem1")(x, train=train)
        x = ConvNormAct(half, **layers, name="stem2")(x, train=train)
        return ConvNormAct(width, **layers, name="stem")(x, train=train)

    def _block(self) -> Callable[..., nn.Module]:
        layers = {
            "norm": self.norm,
            "dtype": self.dtype,
            "squeeze_ratio": _SQUEEZE_RATIO if self.squeeze_excite else None,
        }
        if self.block == "basic":
            return functools.partial(_basic, **layers)
        return functools.partial(_bottleneck, groups=self.groups, ratio=self.ratio, **layers)
