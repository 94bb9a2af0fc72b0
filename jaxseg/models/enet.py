"""ENet (Paszke, Chaurasia, Kim and Culurciello 2016, "ENet: A Deep Neural Network Architecture for Real-Time Semantic
Segmentation", arXiv 1606.02147).

Bottlenecks of plain, atrous and factorised convolutions (Fig. 2b) in an encoder of stride 8, and a decoder that undoes
its max-poolings (Table I). The encoder's activations are PReLUs, the decoder's are not (section 4). As in the authors'
code, a bottleneck is a quarter as wide inside as its result, where Fig. 2 speaks of a projection alone. Unlike there
the decoder has dropout too, since section 4 has it in every bottleneck.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import name_stages
from jaxseg.models.erfnet import PooledConv
from jaxseg.nn import (
    Conv,
    ConvNormAct,
    ConvTranspose,
    ConvTransposeNormAct,
    Dropout,
    Layers,
    crop_to,
    max_pool_with_indices,
    max_unpool,
    pad_to_multiple,
    parameter,
)


class PReLU(nn.Module):
    """max(x, 0) + slope min(x, 0), f[...,c] -> f[...,c], with a learned slope f32[c] that starts at .25 (He 2015)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = parameter(self, "slope", nn.initializers.constant(0.25), (x.shape[-1],))
        slope = slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.where(x >= 0, x, slope * x)


class Bottleneck(nn.Module):
    """f[b,h,w,c] -> f[b,y,x,features] (Fig. 2b): 1x1 reduction, a convolution, 1x1 expansion, dropout, the sum.

    Children: "reduce", "conv" or "tall" and "wide", "expand", "dropout", "prelu1" to "prelu3"; of the upward one also
    "main", and its convolution is "up".

    Attributes:
        features: channels of the result; inside there are a quarter as many.
        rate: atrous rate of the 3x3 convolution; 0: a 5x1 and a 1x5 convolution.
        form: "same"; "down": halves the size, by a 2x2 reduction of stride 2 beside max-pooling, whose missing channels
            are 0; "up": doubles it, by a transposed convolution beside the undone pooling.
        prelu: PReLUs instead of the activation in `common`.
        dropout: rate at which channels of the expansion are dropped.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    rate: int = 1
    form: str = "same"
    prelu: bool = True
    dropout: float = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(
        self, x: jax.Array, indices: jax.Array | None = None, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns the features, and the indices of the pooling of a "down" form; an "up" form takes these."""
        common, linear = self.common, self.common.replace(act=None)
        width = max(1, self.features // 4)

        def act(x: jax.Array, i: int) -> jax.Array:
            return PReLU(name=f"prelu{i}")(x) if self.prelu else common.activate(x)

        step: dict[str, Any] = (
            {"kernel_size": 2, "stride": 2, "padding": 0} if self.form == "down" else {"kernel_size": 1}
        )
        h = act(ConvNormAct(width, **step, common=linear, name="reduce")(x, train=train), 1)
        if self.form == "up":
            h = ConvTransposeNormAct(width, 3, 2, common=linear, name="up")(h, train=train)
        elif self.rate:
            h = ConvNormAct(width, dilation=self.rate, common=linear, name="conv")(h, train=train)
        else:
            init = {"dtype": common.dtype, "kernel_init": common.kernel_init}
            h = Conv(width, (5, 1), use_bias=False, **init, name="tall")(h)
            h = ConvNormAct(width, (1, 5), common=linear, name="wide")(h, train=train)
        h = ConvNormAct(self.features, 1, common=linear, name="expand")(act(h, 2), train=train)
        h = Dropout(self.dropout, axis_name=common.axis_name, spatial=True, name="dropout")(h, train=train)
        if self.form == "down":
            x, indices = max_pool_with_indices(x)
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, max(0, self.features - x.shape[-1]))))
            x = x[..., : self.features]
        elif self.form == "up" and indices is not None:
            x = ConvNormAct(self.features, 1, common=linear, name="main")(x, train=train)
            x = max_unpool(x, indices[..., : self.features], h.shape[1:3])
        return act(h + x, 3), indices


class BottleneckStage(nn.Module):
    """A `Bottleneck` of the form `form`, and others of these rates after it; with "same" there are only the others.

    Children: "change", "block1", "block2", ...
    """

    features: int
    rates: tuple[int, ...]
    form: str = "same"
    prelu: bool = True
    dropout: float = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(
        self, x: jax.Array, indices: jax.Array | None = None, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        fields: dict[str, Any] = {"prelu": self.prelu, "dropout": self.dropout, "common": self.common}
        if self.form != "same":
            x, indices = Bottleneck(self.features, form=self.form, **fields, name="change")(x, indices, train=train)
        for i, rate in enumerate(self.rates, start=1):
            x, _ = Bottleneck(self.features, rate, **fields, name=f"block{i}")(x, train=train)
        return x, indices


class ENet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of 8.

    Attributes:
        num_classes: k.
        widths: channels at strides 2, 4 and 8.
        blocks: bottlenecks at stride 4 of the encoder, beside the one that halves the size.
        rates: atrous rates of the bottlenecks of each of the two stages at stride 8.
        factorised: which of these, counted from 1, have a 5x1 and a 1x5 convolution instead.
        prelu: learned slopes in the encoder; False: the network's activation everywhere.
        dropout: rate at which channels are dropped at the end of a bottleneck from stride 8 on; a tenth of it before.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: if a number in `factorised` is that of no bottleneck.
    """

    num_classes: int
    widths: tuple[int, int, int] = (16, 64, 128)
    blocks: int = 4
    rates: tuple[int, ...] = (1, 2, 1, 4, 1, 8, 1, 16)
    factorised: tuple[int, ...] = (3, 7)
    prelu: bool = True
    dropout: Share = 0.1
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        common = self.common
        if any(i > len(self.rates) for i in self.factorised):
            raise ValueError(
                f"enet.factorised={self.factorised} names bottlenecks of a stage, counted from 1, and enet.rates gives "
                f"it {len(self.rates)} of them."
            )
        x, size = pad_to_multiple(image, 8)
        fine, middle, coarse = self.widths
        # A PReLU takes the place of the activation after the norm.
        one = PooledConv(fine, common=common.replace(act=None) if self.prelu else common, name="initial")(
            x, train=train
        )
        one = PReLU(name="prelu")(one) if self.prelu else one

        def stage(name: str, features: int, rates: tuple[int, ...], form: str, dropout: float) -> BottleneckStage:
            prelu = self.prelu and form != "up"
            return BottleneckStage(features, rates, form, prelu, dropout, common=common, name=name)

        rate = self.dropout
        rates = tuple(0 if i in self.factorised else each for i, each in enumerate(self.rates, start=1))
        two, first = stage("stage1", middle, (1,) * self.blocks, "down", rate / 10)(one, train=train)
        x, second = stage("stage2", coarse, rates, "down", rate)(two, train=train)
        three, _ = stage("stage3", coarse, rates, "same", rate)(x, train=train)
        up, _ = stage("stage4", middle, (1, 1), "up", rate)(three, second, train=train)
        top, _ = stage("stage5", fine, (1,), "up", rate)(up, first, train=train)
        logits = ConvTranspose(self.num_classes, 2, 2, dtype=common.dtype, name="head")(top).astype(jnp.float32)
        stages = name_stages(encoder=(one, two, three), decoder=(top, up))
        return crop_to(logits, size), {"aux": (), **stages}
