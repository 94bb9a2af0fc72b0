"""EfficientNet B0 to B7, Lite0 to Lite4, and EfficientNetV2.

B0 to B7: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for CNNs", Table 1. B1 to B7 scale the widths and
depths of B0. Rounding, stochastic depth and the batch norm's epsilon are torchvision's, whose networks have 5,288,548,
7,794,184, 9,109,994, 12,233,232, 19,341,616, 30,389,784, 43,040,704 and 66,347,960 parameters with classifiers of 1000
classes.

Lite0 to Lite4 are the authors' networks for phones (tensorflow/tpu, models/official/efficientnet/lite): ReLU6, no
squeeze-and-excitation, stem and last convolution of fixed width. They have 4,652,008, 5,416,680, 6,092,072, 8,197,096
and 13,006,568 parameters.

V2: Tan and Le 2021, "EfficientNetV2: Smaller Models and Faster Training", Table 4. S, M and L are torchvision's, of
21,458,488, 54,139,356 and 118,515,272 parameters.
"""

import functools
import math
from typing import Any, Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.encoders.mobilenet import level_strides, places, walk_down
from jaxseg.nn import ConvNormAct, FusedInvertedResidual, InvertedResidual, Layers, round_channels
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
# The rows of EfficientNetV2; True marks those of fused blocks.
V2_S = (
    (1, 3, 24, 2, 1, True),
    (4, 3, 48, 4, 2, True),
    (4, 3, 64, 4, 2, True),
    (4, 3, 128, 6, 2),
    (6, 3, 160, 9, 1),
    (6, 3, 256, 15, 2),
)
V2_M = (
    (1, 3, 24, 3, 1, True),
    (4, 3, 48, 5, 2, True),
    (4, 3, 80, 5, 2, True),
    (4, 3, 160, 7, 2),
    (6, 3, 176, 14, 1),
    (6, 3, 304, 18, 2),
    (6, 3, 512, 5, 1),
)
V2_L = (
    (1, 3, 32, 4, 1, True),
    (4, 3, 64, 7, 2, True),
    (4, 3, 96, 7, 2, True),
    (4, 3, 192, 10, 2),
    (6, 3, 224, 19, 1),
    (6, 3, 384, 25, 2),
    (6, 3, 640, 7, 1),
)
ROWS = {"b0": B0, "v2_s": V2_S, "v2_m": V2_M, "v2_l": V2_L}
_ACTIVATIONS = {"silu": jax.nn.silu, "relu6": jax.nn.relu6}


def depths_of(rows: tuple[tuple, ...], depth: float, *, fixed_ends: bool = False) -> list[int]:
    """Returns the blocks of each row: those of the table times `depth`, rounded up.

    With `fixed_ends` the first and the last row have those of the table.
    """
    ends = (0, len(rows) - 1) if fixed_ends else ()
    return [row[3] if i in ends else math.ceil(row[3] * depth) for i, row in enumerate(rows)]


class EfficientNet(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 2, 4, 8, 16, 32, finest first.

    Attributes:
        width, depth: multipliers of the channels and of the blocks of each row, the latter rounded up.
        variant: the table, that of B0 or of a size of V2.
        rows: (expansion, kernel, channels, blocks, stride) of each row of the table, and a sixth entry True where its
            blocks are fused (`FusedInvertedResidual`); None: those of the variant.
        stem: channels of the stem before multiplication.
        fixed_ends: whether the stem, and the blocks of the first and the last row, are not multiplied (Lite).
        squeeze: whether blocks that are not fused have squeeze-and-excitation.
        act: the activation.
        last: whether the last 1x1 convolution ends the coarsest level. It gives the features of a classifier; decoders
            do not need it.
        features: channels of that convolution; None: four times those before it.
        drop: greatest rate of stochastic depth: block i of n has drop * i / n (section 5.2, after Huang 2016).
        epsilon: the batch norm's; torchvision's weights of B5 to B7 have 1e-3.
        divisor: channels are multiples of it.
        padding: zeros around strided convolutions: "even", as many on both sides, as in torchvision; or "same", those
            of TensorFlow, see `jaxseg.nn.Conv`. Weights belong to one of them.
        output_stride: with 16 or 8, dilation replaces the strides beyond it.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    width: float = 1.0
    depth: float = 1.0
    variant: Literal["b0", "v2_s", "v2_m", "v2_l"] = "b0"
    rows: tuple[tuple, ...] | None = None
    stem: int = 32
    fixed_ends: bool = False
    squeeze: bool = True
    act: Literal["silu", "relu6"] = "silu"
    last: bool = False
    features: int | None = None
    drop: Share = 0.2
    epsilon: float = 1e-5
    divisor: int = 8
    padding: Literal["even", "same"] = "even"
    output_stride: Literal[8, 16, 32] = 32
    common: Layers = Layers()

    def _wide(self, channels: float) -> int:
        return round_channels(channels * self.width, self.divisor)

    @property
    def _blocks(self) -> list[tuple[int, int, int, int, bool]]:
        """(expansion, kernel, channels, stride, fused) of each block."""
        rows = ROWS[self.variant] if self.rows is None else self.rows
        return [
            (t, k, self._wide(c), s if i == 0 else 1, bool(fused and fused[0]))
            for (t, k, c, _, s, *fused), n in zip(rows, depths_of(rows, self.depth, fixed_ends=self.fixed_ends))
            for i in range(n)
        ]

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return level_strides([block[3] for block in self._blocks], self.output_stride)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        where = places([block[3] for block in self._blocks], self.output_stride)
        found = {0: self._stem} | {place.level: block[2] for place, block in zip(where, self._blocks)}
        if self.last:
            found[where[-1].level] = self._features
        return tuple(found.values())

    @property
    def _stem(self) -> int:
        return self.stem if self.fixed_ends else self._wide(self.stem)

    @property
    def _features(self) -> int:
        return 4 * self._blocks[-1][2] if self.features is None else self.features

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        # The momentum is the paper's (section 5.2).
        norm = with_defaults(self.common.norm, epsilon=self.epsilon, momentum=0.99)
        act = _ACTIVATIONS[self.act]
        common = self.common.replace(norm=norm, act=act)
        padding = "same" if self.padding == "same" else None
        c = self._stem
        x = ConvNormAct(c, stride=2, padding=padding, common=common, name="stem")(x, train=train)
        blocks, total = [], len(self._blocks)
        where = places([block[3] for block in self._blocks], self.output_stride)
        for i, (place, (expansion, kernel, features, stride, fused)) in enumerate(zip(where, self._blocks)):
            excite: dict[str, Any] = {"squeeze": max(1, c // 4) if self.squeeze else 0, "squeeze_act": act}
            block = functools.partial(
                FusedInvertedResidual if fused else InvertedResidual,
                features,
                round_channels(c * expansion, self.divisor),
                kernel,
                stride=place.stride,
                dilation=place.dilation,
                residual=stride == 1 and c == features,
                drop=self.drop * i / total,
                padding=padding,
                common=common,
                **({} if fused else excite),
            )
            blocks.append((place, block))
            c = features
        pyramid = [level[-1] for level in walk_down(x, blocks, train=train)]
        if self.last:
            pyramid[-1] = ConvNormAct(self._features, 1, common=common, name="last")(pyramid[-1], train=train)
        return tuple(pyramid)
