"""The atrous classifier of the first DeepLabs."""

import jax
from flax import linen as nn

from jaxseg.nn.conv import ConvNormAct
from jaxseg.nn.dropout import Dropout
from jaxseg.nn.layers import Layers


class LargeFOV(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: an atrous 3x3 convolution and a 1x1 convolution, dropout after each.

    They replace VGG-16's dense layers, with fewer channels and a large field of view (Chen et al. 2015, "Semantic Image
    Segmentation with Deep Convolutional Nets and Fully Connected CRFs", section 5.2). Children: "fc6", "fc7".

    Attributes:
        features: channels of both.
        rate: atrous rate of "fc6".
        dropout: rate of the dropout after each.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int = 1024
    rate: int = 12
    dropout: float = 0.5
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = ConvNormAct(self.features, 3, dilation=self.rate, common=self.common, name="fc6")(x, train=train)
        x = Dropout(self.dropout, axis_name=self.common.axis_name, name="dropout6")(x, train=train)
        x = ConvNormAct(self.features, 1, common=self.common, name="fc7")(x, train=train)
        return Dropout(self.dropout, axis_name=self.common.axis_name, name="dropout7")(x, train=train)
