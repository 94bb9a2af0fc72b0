"""Aligned Xception, the encoder of DeepLab v3+ (Chen et al. 2018, section 3.2 and Fig. 4; after Chollet 2017).

Xception-41, 65 and 71 of timm have 26,969,560, 39,916,312 and 42,338,736 parameters with classifiers of 1000 classes.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.errors import ArgumentError
from jaxseg.nn import BARE, Conv, ConvNormAct, Layers, StochasticDepth, drop_rates, is_identity
from jaxseg.nn.norm import with_defaults


class Block(NamedTuple):
    """The form of a block: channels after each of its three convolutions, stride of the last, dilation of all.

    `residual` is whether the input is added; then activations stand before the convolutions, else after them.
    """

    channels: tuple[int, int, int]
    stride: int
    dilation: int = 1
    residual: bool = True


class SeparableUnit(nn.Module):
    """Depthwise 3x3, norm, 1x1, norm: f[b,h,w,c] -> f[b,h/stride,w/stride,features], an activation after either norm.

    Children: "depthwise", "depthwise_norm", "pointwise", "norm".
    """

    features: int
    stride: int = 1
    dilation: int = 1
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common, c = self.common, x.shape[-1]
        layers = {"use_bias": is_identity(common.norm), "dtype": common.dtype, "kernel_init": common.kernel_init}
        x = Conv(c, 3, stride=self.stride, dilation=self.dilation, groups=c, **layers, name="depthwise")(x)
        x = common.activate(common.normalise(x, "depthwise_norm", train=train))
        x = Conv(self.features, 1, **layers, name="pointwise")(x)
        return common.activate(common.normalise(x, "norm", train=train))


class XceptionBlock(nn.Module):
    """f[b,h,w,c] -> (f[b,h,w,channels[1]], f[b,h/s,w/s,channels[2]]): what the last convolution gets, and the result.

    Children: "conv1", "conv2", "conv3" (`SeparableUnit`s), "shortcut" where the shape changes, "drop".

    Attributes:
        form: see `Block`.
        drop_path: rate of the stochastic depth.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    form: Block
    drop_path: float = 0.0
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        form, linear = self.form, self.common.replace(act=None)
        common = linear if form.residual else self.common
        h = given = x
        for i, features in enumerate(form.channels):
            given = self.common.activate(h) if form.residual else h
            unit = SeparableUnit(features, form.stride if i == 2 else 1, form.dilation, common, name=f"conv{i + 1}")
            h = unit(given, train=train)
        if not form.residual:
            return given, h
        if self.drop_path > 0:
            h = StochasticDepth(self.drop_path, axis_name=linear.axis_name, name="drop")(h, train=train)
        if x.shape != h.shape:
            x = ConvNormAct(h.shape[-1], 1, form.stride, common=linear, name="shortcut")(x, train=train)
        return given, x + h


class XceptionStage(nn.Module):
    """Blocks, the first of which may have a stride: f[b,h,w,c] -> (what its last convolution gets, the last result).

    Children: "block1", "block2", ...
    """

    forms: tuple[Block, ...]
    drops: tuple[float, ...]
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        tap = None
        for i, (form, drop) in enumerate(zip(self.forms, self.drops)):
            given, x = XceptionBlock(form, drop, self.common, name=f"block{i + 1}")(x, train=train)
            tap = given if tap is None else tap
        assert tap is not None
        return tap, x


class Xception(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 2, 4, 8, 16, 32, finest first; the defaults are Xception-41.

    A level but the last is what the strided convolution of a block gets, DeepLab v3+'s low-level features among them.
    Children: "stem1", "stem", and "stage1", "stage2", ..., which begin with the blocks that have a stride.

    Attributes:
        entry: (channels, stride) of each block of the entry flow, the first with a stride.
        middle: number of blocks of the middle flow.
        exit: channels of the exit flow: of the last two convolutions of its first block, of the first two of its
            second block, and of the last.
        stem: channels of the stem's second convolution; the first has half of them.
        output_stride: dilation replaces the strides beyond it, in the blocks after them.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first (Huang 2016).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    entry: tuple[tuple[int, int], ...] = ((128, 2), (256, 2), (728, 2))
    middle: int = 8
    exit: tuple[int, int, int] = (1024, 1536, 2048)
    stem: int = 64
    output_stride: Literal[8, 16, 32] = 32
    drop_path: Share = 0.0
    common: Layers = Layers()

    @property
    def _stages(self) -> list[list[Block]]:
        if not self.entry or self.entry[0][1] == 1:
            raise ArgumentError("Xception: entry must begin with a block of stride 2.")
        c = self.entry[-1][0]
        one, two, three = self.exit
        blocks = [Block((width, width, width), stride) for width, stride in self.entry]
        blocks += [Block((c, c, c), 1)] * self.middle
        blocks += [Block((c, one, one), 2), Block((two, two, three), 1, residual=False)]
        stages: list[list[Block]] = []
        total, dilation = 2, 1
        for block in blocks:
            made = block._replace(dilation=dilation)
            if block.stride > 1:
                stages.append([])
                if total * block.stride > self.output_stride:
                    dilation, made = dilation * block.stride, made._replace(stride=1)
                else:
                    total *= block.stride
            stages[-1].append(made)
        return stages

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(min(2 ** (i + 1), self.output_stride) for i in range(len(self._stages) + 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return (*(stage[0].channels[1] for stage in self._stages), self.exit[2])

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        norm = with_defaults(self.common.norm, epsilon=1e-3)
        common = self.common.replace(norm=norm, act=jax.nn.relu)
        x = ConvNormAct(max(1, self.stem // 2), 3, stride=2, common=common, name="stem1")(x, train=train)
        x = ConvNormAct(self.stem, 3, common=common, name="stem")(x, train=train)
        stages = self._stages
        rates = _split(drop_rates(self.drop_path, (sum(map(len, stages)),))[0], [len(stage) for stage in stages])
        pyramid = []
        for i, (stage, drops) in enumerate(zip(stages, rates), start=1):
            tap, x = XceptionStage(tuple(stage), drops, common, name=f"stage{i}")(x, train=train)
            pyramid.append(tap)
        return (*pyramid, x)


def _split(values: Sequence[float], counts: Sequence[int]) -> list[tuple[float, ...]]:
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    return [tuple(values[end - count : end]) for count, end in zip(counts, ends)]
