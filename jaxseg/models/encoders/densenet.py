"""DenseNet-BC (Huang et al. 2017, "Densely Connected Convolutional Networks", Table 1).

DenseNet-121, 161, 169 and 201 have 7,978,856, 28,681,000, 14,149,480 and 20,013,928 parameters with classifiers of 1000
classes.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.errors import ArgumentError
from jaxseg.nn import BARE, Conv, ConvNormAct, Dropout, Layers, avg_pool, is_identity, max_pool

_WIDENING = (
    4  # channels between the two convolutions of a layer, in units of the growth (section 3, "bottleneck layers")
)


class DenseLayer(nn.Module):
    """norm-act-conv 1x1, norm-act-conv 3x3, beside the input: f[b,h,w,c] -> f[b,h,w,c+growth].

    Children: "norm1", "conv1", "norm2", "conv2", "dropout" where its rate is above 0.
    """

    growth: int
    dropout: Share = 0.0
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common = self.common
        layers = {"use_bias": is_identity(common.norm), "dtype": common.dtype, "kernel_init": common.kernel_init}
        h = common.activate(common.normalise(x, "norm1", train=train))
        h = Conv(_WIDENING * self.growth, 1, **layers, name="conv1")(h)
        h = common.activate(common.normalise(h, "norm2", train=train))
        h = Conv(self.growth, 3, **layers, name="conv2")(h)
        if self.dropout > 0:
            h = Dropout(self.dropout, axis_name=common.axis_name, name="dropout")(h, train=train)
        return jnp.concatenate([x, h], axis=-1)


class DenseStage(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c+layers*growth]; a later stage halves channels, height and width before its layers.

    Children: "reduce" (not in the first stage), "block1", "block2", ...

    Attributes:
        layers: number of layers.
        growth: channels that each adds.
        first: whether it is the first stage, which follows the stem's pooling.
        rounding, dropout: as in `DenseNet`.
    """

    layers: int
    growth: int
    first: bool = False
    rounding: Literal["up", "down"] = "up"
    dropout: Share = 0.0
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        if not self.first:
            common, bias = self.common, is_identity(self.common.norm)
            layers = {"use_bias": bias, "dtype": common.dtype, "kernel_init": common.kernel_init}
            x = Conv(x.shape[-1] // 2, 1, **layers, name="reduce")(x)
            x = avg_pool(x, 2, 2, ceil_mode=self.rounding == "up")
        for i in range(self.layers):
            x = DenseLayer(self.growth, self.dropout, self.common, name=f"block{i + 1}")(x, train=train)
        return x


class DenseNet(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^(i+1),w/2^(i+1),widths[i]], finest first; the defaults are DenseNet-121.

    Level 0 is the stem before its max-pooling, level i the stage i after the norm and the activation that follow it.
    Children: "stem", "stage1", "stage2", ... and the norms "norm1", "norm2", ...

    Attributes:
        layers: of each stage (Huang 2017, Table 1).
        growth: channels that a layer adds, k in the paper.
        stem: channels of the stem, 2 k in the paper.
        dropout: rate after each layer.
        rounding: of sizes that the poolings between stages do not divide: "up", or "down" as in torch. With "down" an
            image needs 29 pixels a side, so that the last of four stages has a pixel.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    layers: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    stem: int = 64
    dropout: Share = 0.0
    rounding: Literal["up", "down"] = "up"
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(2 ** (i + 1) for i in range(len(self.layers) + 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        result, c = [self.stem], self.stem
        for i, layers in enumerate(self.layers):
            c = (c if i == 0 else c // 2) + layers * self.growth
            result.append(c)
        return tuple(result)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        if not self.layers:
            raise ArgumentError("DenseNet: layers must name one stage or more.")
        common = self.common.replace(act=jax.nn.relu)
        x = ConvNormAct(self.stem, 7, stride=2, common=common, name="stem")(x, train=train)
        pyramid = [x]
        x = max_pool(x, 3, 2, padding=1)
        for i, layers in enumerate(self.layers):
            form = (self.growth, i == 0, self.rounding, self.dropout, common)
            x = DenseStage(layers, *form, name=f"stage{i + 1}")(x, train=train)
            x = common.activate(common.normalise(x, f"norm{i + 1}", train=train))
            pyramid.append(x)
        return tuple(pyramid)
