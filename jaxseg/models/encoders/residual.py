"""The encoding path of ResUNet: pre-activation residual units (Zhang, Liu and Wang 2018, Fig. 2 left, Table I)."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.nn import BasicBlock, Layers, PreActBlock, drop_rates
from jaxseg.nn.dropout import MONTE_CARLO
from jaxseg.nn.joined import Features

Shortcut = Literal["auto", "projection", "learned", "scaled", "scaled_channels", "weighted", "none"]
Unit = Literal["preact", "basic"]


def residual_unit(kind: Unit, features: int, *, first_preact: bool = True, **fields: Any) -> nn.Module:
    """Returns the unit f[b,h,w,c] -> f[b,h/stride,w/stride,features] of a kind.

    "preact" is that of the paper, norm and activation before each convolution and nothing after the sum; "basic" is
    He et al. 2015's, with an activation after the sum, which ignores `first_preact`.
    """
    if kind == "basic":
        return BasicBlock(features, **fields)
    return PreActBlock(features, first_preact=first_preact, **fields)


def residual_units(build: Callable[[int], nn.Module], blocks: int, x: Features, *, shared: bool, train: bool) -> Any:
    """f[b,h,w,c] -> f[b,h/stride,w/stride,features]: the units build(0) to build(blocks - 1), one after the other.

    Call it in the compact method of a stage.

    Args:
        build: i -> the unit with the name "block{i + 1}".
        blocks: number of units.
        x: the input of the first.
        shared: the second unit and those after it, which all keep the shape, have one set of parameters, that of
            "block2". Its gradient is the sum of what separate units have. The running statistics of batch norm stay
            those of each unit, along the first axis, since the features of each unit have other means and variances (as
            in Liao & Poggio 2016, "Bridging the Gaps Between Residual Learning, Recurrent Neural Networks and Visual
            Cortex"). It has an effect from three units on.
        train: whether batch norm takes the statistics of the batch, and dropout drops.
    """
    y = build(0)(x, train=train)
    again = blocks - 1
    if not shared or again < 2:
        for i in range(1, blocks):
            y = build(i)(y, train=train)
        return y

    def step(unit: nn.Module, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return unit(x, train=train), None

    repeat = nn.scan(
        step,
        variable_broadcast="params",
        variable_axes={"batch_stats": 0},
        split_rngs={"params": False, "dropout": True, MONTE_CARLO: True},
        length=again,
        unroll=again,
    )
    return repeat(build(1), y, None)[0]


def refuse_depth(shared: bool, drop_path: float) -> None:
    """Raises ValueError for stochastic depth, whose rate grows from unit to unit, in units that are shared."""
    if shared and drop_path:
        raise ValueError(
            f"shared=True has no stochastic depth, whose rate grows by the unit; give drop_path=0, got {drop_path}."
        )


class ResidualStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/stride,w/stride,features]: residual units, the first of which has the stride.

    With first_preact=False the first unit has no norm and activation before its first convolution: the form for a
    stage that sees the image itself (Zhang et al. 2018, Fig. 2, first unit). Children: "block1", "block2", ...
    """

    features: int
    blocks: int = 1
    stride: int = 1
    first_preact: bool = True
    shortcut: Shortcut = "auto"
    unit: Unit = "preact"
    dropout: Share = 0.0
    drop_path: tuple[float, ...] = ()  # of each unit; empty: 0
    shared: bool = False  # see `residual_units`
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:

        def build(i: int) -> nn.Module:
            return residual_unit(
                self.unit,
                self.features,
                stride=self.stride if i == 0 else 1,
                first_preact=self.first_preact or i > 0,
                shortcut=self.shortcut,
                dropout=self.dropout,
                drop_path=self.drop_path[i] if self.drop_path else 0.0,
                common=self.common,
                name=f"block{i + 1}",
            )

        return residual_units(build, self.blocks, x, shared=self.shared, train=train)


class ResidualEncoder(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^i,w/2^i,widths[i]], finest first, by residual units.

    There is no pooling: the first convolution of each stage but the finest has stride 2 (Zhang et al. 2018, section
    II-B). The last level is the paper's bridge. Children: "stage0", "stage1", ..., and with output_norm "norm0",
    "norm1", ...

    Attributes:
        widths: channels of each stage.
        blocks: residual units of each stage (the paper: 1).
        shortcut: "auto" (identity where the shape allows, else a 1x1 projection), "projection", "learned" (a 1x1
            convolution on both paths, y = W_c x + W_r h(x)), "scaled" (as auto, with one learned factor of each unit's
            branch, which starts at 0), "scaled_channels" (a factor for each channel), "weighted" (as auto, with one
            learned factor of the identity for each channel, which starts at 1) or "none" (a plain network, for
            comparison). See `jaxseg.nn.residual`.
        unit: "preact", or "basic" for He et al. 2015's, with an activation after the sum.
        dropout: rate of the dropout before the second convolution of each unit.
        drop_path: rate of stochastic depth of the last unit; it grows linearly from 0 at the first.
        shared: the units of a stage after its first have one set of parameters; see `residual_units`.
        output_norm: whether each level ends in a norm and an activation, as a network of pre-activation units does
            after its last (He et al. 2016, "Identity Mappings", appendix); the next stage reads the bare sum. Decoders
            whose units begin with both, as those of ResUNet, need none. It has no effect with unit="basic", whose sum
            is activated.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 1
    shortcut: Shortcut = "auto"
    unit: Unit = "preact"
    dropout: Share = 0.0
    drop_path: Share = 0.0
    shared: bool = False
    output_norm: bool = True
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(2**i for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        refuse_depth(self.shared, self.drop_path)
        pyramid = []
        rates = drop_rates(self.drop_path, (self.blocks,) * len(self.widths))
        for i, features in enumerate(self.widths):
            x = ResidualStage(
                features,
                self.blocks,
                stride=1 if i == 0 else 2,
                first_preact=i > 0,
                shortcut=self.shortcut,
                unit=self.unit,
                dropout=self.dropout,
                drop_path=rates[i],
                shared=self.shared,
                common=self.common,
                name=f"stage{i}",
            )(x, train=train)
            bare = not self.output_norm or self.unit == "basic"
            pyramid.append(x if bare else self.common.activate(self.common.normalise(x, f"norm{i}", train=train)))
        return tuple(pyramid)
