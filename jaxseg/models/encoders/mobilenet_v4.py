"""MobileNetV4, the convolutional forms (Qin et al. 2024, "MobileNetV4: Universal Models for the Mobile Ecosystem").

Section 3 and Fig. 4 have the universal inverted bottleneck, Tables 10 to 12 the networks. With their heads and
classifiers of 1000 classes the published ones of timm have 3,774,024 (small), 9,715,512 (medium) and 32,590,864 (large)
parameters.
"""

import functools
from typing import Any, Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.encoders.mobilenet import level_strides, places, walk_down
from jaxseg.nn import (
    BARE,
    ConvNormAct,
    FusedInvertedResidual,
    Layers,
    StochasticDepth,
    drop_rates,
    round_channels,
)

# (first kernel, second kernel, stride, expansion, channels) of each block; expansion 0 is a plain convolution of the
# second kernel, and a fused block has no first kernel but the word "fused". A kernel 0 leaves its convolution out.
SMALL = (
    (0, 3, 2, 0, 32),
    (0, 1, 1, 0, 32),
    (0, 3, 2, 0, 96),
    (0, 1, 1, 0, 64),
    (5, 5, 2, 3, 96),
    *((0, 3, 1, 2, 96),) * 4,
    (3, 0, 1, 4, 96),
    (3, 3, 2, 6, 128),
    (5, 5, 1, 4, 128),
    (0, 5, 1, 4, 128),
    (0, 5, 1, 3, 128),
    *((0, 3, 1, 4, 128),) * 2,
)
MEDIUM = (
    ("fused", 3, 2, 4, 48),
    (3, 5, 2, 4, 80),
    (3, 3, 1, 2, 80),
    (3, 5, 2, 6, 160),
    *((3, 3, 1, 4, 160),) * 2,
    (3, 5, 1, 4, 160),
    (3, 3, 1, 4, 160),
    (3, 0, 1, 4, 160),
    (0, 0, 1, 2, 160),
    (3, 0, 1, 4, 160),
    (5, 5, 2, 6, 256),
    (5, 5, 1, 4, 256),
    *((3, 5, 1, 4, 256),) * 2,
    (0, 0, 1, 4, 256),
    (3, 0, 1, 4, 256),
    (3, 5, 1, 2, 256),
    (5, 5, 1, 4, 256),
    *((0, 0, 1, 4, 256),) * 2,
    (5, 0, 1, 2, 256),
)
LARGE = (
    ("fused", 3, 2, 4, 48),
    (3, 5, 2, 4, 96),
    (3, 3, 1, 4, 96),
    (3, 5, 2, 4, 192),
    *((3, 3, 1, 4, 192),) * 3,
    (3, 5, 1, 4, 192),
    *((5, 3, 1, 4, 192),) * 5,
    (3, 0, 1, 4, 192),
    (5, 5, 2, 4, 512),
    *((5, 5, 1, 4, 512),) * 3,
    (5, 0, 1, 4, 512),
    (5, 3, 1, 4, 512),
    *((5, 0, 1, 4, 512),) * 2,
    (5, 3, 1, 4, 512),
    (5, 5, 1, 4, 512),
    *((5, 0, 1, 4, 512),) * 3,
)
ROWS: dict[str, tuple[tuple, ...]] = {"small": SMALL, "medium": MEDIUM, "large": LARGE}


class UniversalInverted(nn.Module):
    """Depthwise, expand, depthwise, project: f[b,h,w,c] -> f[b,h/stride,w/stride,features] (sizes rounded up; Fig. 4).

    Children: "start" without activation, "expand", "depthwise", "project" without activation (`ConvNormAct`s; the first
    and third where their kernels are not 0), "drop" where the block is residual.

    Attributes:
        features: channels of the result.
        expanded: channels of the second depthwise convolution.
        start, kernel_size: sides of the two depthwise kernels, 0 for none.
        stride, dilation: of the second depthwise convolution, or of the first where there is no second.
        residual: whether the input is added.
        drop: rate of the stochastic depth.
        common: norm, dtype, mapped axis and activation.
    """

    features: int
    expanded: int
    start: int = 0
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    residual: bool = False
    drop: Share = 0.0
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        linear, c = self.common.replace(act=None), x.shape[-1]
        if not (self.start or self.kernel_size) and self.stride > 1:
            raise ValueError("UniversalInverted: without a depthwise kernel a block has no stride.")
        h = x
        if self.start:
            stride = 1 if self.kernel_size else self.stride
            h = ConvNormAct(c, self.start, stride, self.dilation, c, common=linear, name="start")(h, train=train)
        n = self.expanded
        h = ConvNormAct(n, 1, common=self.common, name="expand")(h, train=train)
        if self.kernel_size:
            depthwise = ConvNormAct(
                n, self.kernel_size, self.stride, self.dilation, n, common=self.common, name="depthwise"
            )
            h = depthwise(h, train=train)
        h = ConvNormAct(self.features, 1, common=linear, name="project")(h, train=train)
        if not self.residual:
            return h
        return x + StochasticDepth(self.drop, axis_name=self.common.axis_name, name="drop")(h, train=train)


class MobileNetV4(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 2, 4, 8, 16, 32, finest first (Qin 2024, Tables 10 to 12).

    Attributes:
        width: multiplier of the channels of all blocks; the stem keeps its own below 1.
        variant: "small", "medium" or "large".
        rows: (first kernel, second kernel, stride, expansion, channels) of each block, see `SMALL` in this file; None:
            those of the variant.
        stem: channels of the stem.
        last: whether the last 1x1 convolution, to 960 channels, ends the coarsest level. It gives the features of a
            classifier; decoders do not need it.
        divisor: channels are multiples of it.
        output_stride: with 16 or 8, dilation replaces the strides beyond it.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first (Huang 2016).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    width: float = 1.0
    variant: Literal["small", "medium", "large"] = "small"
    rows: tuple[tuple, ...] | None = None
    stem: int = 32
    last: bool = False
    divisor: int = 8
    output_stride: Literal[8, 16, 32] = 32
    drop_path: Share = 0.0
    common: Layers = Layers()

    def _wide(self, channels: float) -> int:
        return round_channels(channels * self.width, self.divisor)

    @property
    def _blocks(self) -> tuple[tuple, ...]:
        return ROWS[self.variant] if self.rows is None else self.rows

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return level_strides([row[2] for row in self._blocks], self.output_stride)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        where = places([row[2] for row in self._blocks], self.output_stride)
        found = {0: self._stem} | {place.level: self._wide(row[4]) for place, row in zip(where, self._blocks)}
        if self.last:
            found[where[-1].level] = self._wide(960)
        return tuple(found.values())

    @property
    def _stem(self) -> int:
        return round_channels(self.stem * max(1.0, self.width), self.divisor)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        common = self.common.replace(act=jax.nn.relu)
        c = self._stem
        x = ConvNormAct(c, stride=2, common=common, name="stem")(x, train=train)
        blocks, (rates,) = [], drop_rates(self.drop_path, (len(self._blocks),))
        where = places([row[2] for row in self._blocks], self.output_stride)
        for place, rate, (start, kernel, stride, expansion, features) in zip(where, rates, self._blocks):
            features = self._wide(features)
            block: Any
            if not expansion:
                block = functools.partial(ConvNormAct, features, kernel, place.stride, place.dilation, common=common)
            else:
                kind = FusedInvertedResidual
                if start != "fused":
                    kind = functools.partial(UniversalInverted, start=start)
                block = functools.partial(
                    kind,
                    features,
                    round_channels(c * expansion, self.divisor),
                    kernel_size=kernel,
                    stride=place.stride,
                    dilation=place.dilation,
                    residual=stride == 1 and c == features,
                    drop=rate,
                    common=common,
                )
            blocks.append((place, block))
            c = features
        pyramid = [level[-1] for level in walk_down(x, blocks, train=train)]
        if self.last:
            pyramid[-1] = ConvNormAct(self.widths[-1], 1, common=common, name="last")(pyramid[-1], train=train)
        return tuple(pyramid)
