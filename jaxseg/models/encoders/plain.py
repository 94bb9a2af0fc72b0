"""The contracting path of U-Net: convolutions and max-pooling (Ronneberger et al. 2015, "U-Net", Fig. 1 left)."""

from typing import Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.nn import ConvNormAct, Dropout, Layers, max_pool
from jaxseg.nn.joined import Features, whole

Padding = Literal["same", "valid"]


class ConvStage(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: a 3x3 convolution, norm and activation, `convs` times.

    With padding="valid" every convolution removes one pixel on each side: f[b,h-2n,w-2n,features] for n convolutions.
    Children: "conv1", "conv2", ...
    """

    features: int
    convs: int = 2
    padding: Padding = "same"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return conv_layers(x, self.features, self.convs, self.padding, self.common, train=train)


def conv_layers(x: Features, features: int, convs: int, padding: Padding, common: Layers, *, train: bool) -> jax.Array:
    """The layers of a `ConvStage`, as children "conv1", "conv2", ... of the compact module that calls this."""
    margin = 0 if padding == "valid" else None
    for i in range(convs):
        x = ConvNormAct(features, padding=margin, common=common, name=f"conv{i + 1}")(x, train=train)
    return whole(x)


class PlainEncoder(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^i,w/2^i,widths[i]], finest first: convolutions, 2x2 max-pooling between stages.

    The defaults are the contracting path of Ronneberger et al. (2015), Fig. 1 and section 2.

    Attributes:
        widths: channels of each stage; as many stages as widths.
        convs: 3x3 convolutions of each stage.
        dropout: rate of the dropout that ends the two deepest stages (section 3.1).
        padding: "same", or the paper's "valid".
        common: norm, activation, dtype and mapped axis of every layer.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    convs: int = 2
    dropout: Share = 0.0
    padding: Padding = "same"
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(2**i for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        pyramid = []
        for i, features in enumerate(self.widths):
            if i > 0:
                x = max_pool(x, 2, ceil_mode=True)
            x = ConvStage(features, self.convs, self.padding, common=self.common, name=f"stage{i}")(x, train=train)
            if i >= len(self.widths) - 2:
                x = Dropout(self.dropout, axis_name=self.common.axis_name, name=f"dropout{i}")(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)
