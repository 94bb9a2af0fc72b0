"""EfficientNet B0 to B7 (Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for CNNs", Table 1).

B1 to B7 scale the widths and depths of B0. Rounding, stochastic depth and the batch norm's epsilon are torchvision's,
whose networks have 5,288,548, 7,794,184, 9,109,994, 12,233,232, 19,341,616, 30,389,784, 43,040,704 and 66,347,960
parameters with classifiers of 1000 classes.
"""

import functools
import math
from typing import Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.encoders.mobilenet import level_strides, places, walk_down
from jaxseg.nn import ConvNormAct, InvertedResidual, Layers, round_channels
from jaxseg.nn.norm import with_defaults

# (expansion, kernel, channels, blocks, stride) of each row of Table 1.
B0 = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


class EfficientNet(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 2, 4, 8, 16, 32, finest first.

    Attributes:
        width, depth: multipliers of the channels and of the blocks of each row, the latter rounded up.
        rows: (expansion, kernel, channels, blocks, stride) of each row of the table.
        stem: channels of the stem before multiplication.
        last: whether the last 1x1 convolution, to four times the channels, ends the coarsest level. It gives the
            features of a classifier; decoders do not need it.
        drop: greatest rate of stochastic depth: block i of n has drop * i / n (section 5.2, after Huang 2016).
        epsilon: the batch norm's; torchvision's weights of B5 to B7 have 1e-3.
        divisor: channels are multiples of it.
        output_stride: with 16 or 8, dilation replaces the strides beyond it.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    width: float = 1.0
    depth: float = 1.0
    rows: tuple[tuple, ...] = B0
    stem: int = 32
    last: bool = False
    drop: Share = 0.2
    epsilon: float = 1e-5
    divisor: int = 8
    output_stride: Literal[8, 16, 32] = 32
    common: Layers = Layers()

    def _wide(self, channels: float) -> int:
        return round_channels(channels * self.width, self.divisor)

    @property
    def _blocks(self) -> list[tuple[int, int, int, int]]:
        """(expansion, kernel, channels, stride) of each block."""
        return [
            (t, k, self._wide(c), s if i == 0 else 1)
            for t, k, c, n, s in self.rows
            for i in range(math.ceil(n * self.depth))
        ]

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return level_strides([block[3] for block in self._blocks], self.output_stride)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        where = places([block[3] for block in self._blocks], self.output_stride)
        found = {0: self._wide(self.stem)} | {place.level: block[2] for place, block in zip(where, self._blocks)}
        if self.last:
            found[where[-1].level] *= 4
        return tuple(found.values())

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        # The momentum is the paper's (section 5.2).
        norm = with_defaults(self.common.norm, epsilon=self.epsilon, momentum=0.99)
        common = self.common.replace(norm=norm, act=jax.nn.silu)
        c = self._wide(self.stem)
        x = ConvNormAct(c, stride=2, common=common, name="stem")(x, train=train)
        blocks, total = [], len(self._blocks)
        where = places([block[3] for block in self._blocks], self.output_stride)
        for i, (place, (expansion, kernel, features, stride)) in enumerate(zip(where, self._blocks)):
            block = functools.partial(
                InvertedResidual,
                features,
                round_channels(c * expansion, self.divisor),
                kernel,
                stride=place.stride,
                dilation=place.dilation,
                residual=stride == 1 and c == features,
                squeeze=max(1, c // 4),
                squeeze_act=jax.nn.silu,
                drop=self.drop * i / total,
                common=common,
            )
            blocks.append((place, block))
            c = features
        pyramid = [level[-1] for level in walk_down(x, blocks, train=train)]
        if self.last:
            pyramid[-1] = ConvNormAct(4 * c, 1, common=common, name="last")(pyramid[-1], train=train)
        return tuple(pyramid)
