"""MobileNetV2 and MobileNetV3: inverted residual blocks.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", Table 2; Howard et al. 2019, "Searching
for MobileNetV3", Tables 1 and 2. Channels are rounded, and the batch norm's epsilon and momentum set, as torchvision
does. With the classifiers of 1000 classes its networks have 3,504,872 (V2), 5,483,032 (V3 large) and 2,542,856 (V3
small) parameters; the encoders are the convolutions before the classifier.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.nn import ConvNormAct, InvertedResidual, Layers, drop_rates, round_channels
from jaxseg.nn.norm import with_defaults
from jaxseg.types import Activation

# (expansion, channels, blocks, stride) of each row of Table 2.
V2 = (
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# (kernel, expanded, channels, squeeze-and-excitation, activation, stride) of each row of Tables 1 and 2.
_V3_LARGE = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
)
_V3_SMALL = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 288, 96, True, "hard_swish", 2),
    (5, 576, 96, True, "hard_swish", 1),
    (5, 576, 96, True, "hard_swish", 1),
)
V3 = {"large": _V3_LARGE, "small": _V3_SMALL}


class Place(NamedTuple):
    """The place of a block: its level of the pyramid, its number in the level from 1, its stride and dilation."""

    level: int
    number: int
    stride: int
    dilation: int


def places(strides: Iterable[int], output_stride: int, stem_stride: int = 2) -> list[Place]:
    """Returns the places of blocks of the given strides after a stem; each block with a stride starts a level.

    A stride beyond output_stride is replaced by a dilation of that block and of all blocks after it, as in torchvision
    (`dilated`) and segmentation_models.pytorch.
    """
    result = []
    level, number, total = 0, 0, stem_stride
    for stride in strides:
        if stride > 1:
            level, number = level + 1, 0
        number += 1
        total *= stride
        dilated = total > output_stride
        result.append(Place(level, number, 1 if dilated else stride, max(1, total // output_stride)))
    return result


def level_strides(strides: Iterable[int], output_stride: int, stem_stride: int = 2) -> tuple[int, ...]:
    """Image pixels a feature pixel, of each level that `places` makes."""
    result = [stem_stride]
    for stride in strides:
        if stride > 1:
            result.append(result[-1] * stride)
    return tuple(min(s, output_stride) for s in result)


class Blocks(nn.Module):
    """The blocks of one level: f[b,h,w,c] -> (output of the first, output of the last). Children: "block1", ..."""

    blocks: tuple[Any, ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(name=f"block{i + 1}")(x, train=train)
            outputs.append(x)
        return outputs[0], outputs[-1]


def walk_down(x: jax.Array, blocks: Sequence[tuple[Place, Any]], *, train: bool) -> list[tuple[jax.Array, jax.Array]]:
    """The stem's output through `blocks`, (place, factory of the block): the first and last output of each level.

    Call it inside a compact method, whose children "stage0", "stage1", ... it makes.
    """
    levels: list[list[Any]] = [[] for _ in range(blocks[-1][0].level + 1)]
    for place, block in blocks:
        levels[place.level].append(block)
    outputs = []
    for i, level in enumerate(levels):
        first, x = Blocks(tuple(level), name=f"stage{i}")(x, train=train) if level else (x, x)
        outputs.append((first, x))
    return outputs


class MobileNetV2(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 2, 4, 8, 16, 32, finest first (Sandler 2018, Table 2).

    Attributes:
        width: multiplier of all channels, 1.4, 1, .75, .5 or .35 in the paper. The last convolution has at least as
            many channels as with 1.
        rows: (expansion, channels, blocks, stride) of each row of the table after the first bottleneck.
        stem: channels of the stem before multiplication; the first bottleneck has half of them.
        last: channels of the last 1x1 convolution before multiplication; None: no such convolution.
        divisor: channels are multiples of it.
        output_stride: with 16 or 8, dilation replaces the strides beyond it.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first (Huang 2016).
    """

    width: float = 1.0
    rows: tuple[tuple, ...] = V2
    stem: int = 32
    last: int | None = 1280
    divisor: int = 8
    output_stride: Literal[8, 16, 32] = 32
    drop_path: Share = 0.0
    common: Layers = Layers()

    @property
    def _blocks(self) -> list[tuple[int, int, int]]:
        """(expansion, channels, stride) of each block."""
        rows = ((1, self.stem // 2, 1, 1), *self.rows)
        return [(t, self._wide(c), s if i == 0 else 1) for t, c, n, s in rows for i in range(n)]

    def _wide(self, channels: int) -> int:
        return round_channels(channels * self.width, self.divisor)

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return level_strides([s for _, _, s in self._blocks], self.output_stride)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        where = places([s for _, _, s in self._blocks], self.output_stride)
        found = {place.level: c for place, (_, c, _) in zip(where, self._blocks)}
        if self.last is not None:
            found[where[-1].level] = round_channels(self.last * max(1.0, self.width), self.divisor)
        return tuple(found.values())

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        common = self.common.replace(act=jax.nn.relu6)
        c = self._wide(self.stem)
        x = ConvNormAct(c, stride=2, common=common, name="stem")(x, train=train)
        blocks, (rates,) = [], drop_rates(self.drop_path, (len(self._blocks),))
        where = places([s for _, _, s in self._blocks], self.output_stride)
        for place, rate, (expansion, features, stride) in zip(where, rates, self._blocks):
            block = functools.partial(
                InvertedResidual,
                features,
                c * expansion,
                stride=place.stride,
                dilation=place.dilation,
                residual=stride == 1 and c == features,
                drop=rate,
                common=common,
            )
            blocks.append((place, block))
            c = features
        pyramid = [level[-1] for level in walk_down(x, blocks, train=train)]
        if self.last is not None:
            pyramid[-1] = ConvNormAct(self.widths[-1], 1, common=common, name="last")(pyramid[-1], train=train)
        return tuple(pyramid)


class MobileNetV3(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 2, 4, 8, 16, 32, finest first (Howard 2019, Tables 1, 2).

    Attributes:
        width: multiplier of all channels.
        variant: "large" or "small", Table 1 or 2.
        rows: (kernel, expanded, channels, squeeze-and-excitation, "relu" or "hard_swish", stride) of each block; None:
            those of the variant.
        stem: channels of the stem before multiplication.
        last: whether the last 1x1 convolution, to six times the channels, ends the coarsest level.
        tap: the block of a level whose output the pyramid has: the "last", or the "first", as in torchvision's LR-ASPP
            (for the coarsest level always the last).
        divisor: channels are multiples of it.
        stem_stride: 1 keeps the image's resolution in the stem, for small images: s = 1, 2, 4, 8, 16.
        output_stride: with 16 or 8, dilation replaces the strides beyond it.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first (Huang 2016).
    """

    width: float = 1.0
    variant: Literal["large", "small"] = "large"
    rows: tuple[tuple, ...] | None = None
    stem: int = 16
    last: bool = True
    tap: Literal["first", "last"] = "last"
    divisor: int = 8
    stem_stride: Literal[1, 2] = 2
    output_stride: Literal[8, 16, 32] = 32
    drop_path: Share = 0.0
    common: Layers = Layers()

    def _wide(self, channels: int) -> int:
        return round_channels(channels * self.width, self.divisor)

    @property
    def _blocks(self) -> tuple[tuple, ...]:
        return V3[self.variant] if self.rows is None else self.rows

    def _places(self) -> list[Place]:
        return places([row[5] for row in self._blocks], self.output_stride, self.stem_stride)

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return level_strides([row[5] for row in self._blocks], self.output_stride, self.stem_stride)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        where = self._places()
        found = {0: self._wide(self.stem)}
        for place, row in zip(where, self._blocks):
            if self.tap == "last" or place.number == 1 or place.level == where[-1].level:
                found[place.level] = self._wide(row[2])
        if self.last:
            found[where[-1].level] *= 6
        return tuple(found.values())

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        norm = with_defaults(self.common.norm, epsilon=1e-3, momentum=0.99)
        common = self.common.replace(norm=norm, act=jax.nn.hard_swish)
        c = self._wide(self.stem)
        x = ConvNormAct(c, stride=self.stem_stride, common=common, name="stem")(x, train=train)
        blocks, (rates,) = [], drop_rates(self.drop_path, (len(self._blocks),))
        for place, rate, row in zip(self._places(), rates, self._blocks):
            kernel, expanded, features, squeeze, act, stride = row
            expanded, features = self._wide(expanded), self._wide(features)
            block = functools.partial(
                InvertedResidual,
                features,
                expanded,
                kernel,
                stride=place.stride,
                dilation=place.dilation,
                residual=stride == 1 and c == features,
                squeeze=round_channels(expanded // 4, self.divisor) if squeeze else 0,
                gate=jax.nn.hard_sigmoid,
                drop=rate,
                common=common.replace(act=activation(act)),
            )
            blocks.append((place, block))
            c = features
        outputs = walk_down(x, blocks, train=train)
        pyramid = [output[0 if self.tap == "first" else 1] for output in outputs[:-1]] + [outputs[-1][1]]
        if self.last:
            last = ConvNormAct(6 * c, 1, common=common, name="last")
            pyramid[-1] = last(pyramid[-1], train=train)
        return tuple(pyramid)


def activation(name: str) -> Activation:
    """Returns the activation of a row."""
    known = {"relu": jax.nn.relu, "hard_swish": jax.nn.hard_swish}
    if name not in known:
        raise ValueError(f"MobileNetV3: a row's activation is one of {', '.join(known)}, got {name!r}.")
    return known[name]
