"""The atrous classifier of the first DeepLabs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import ConvNormAct
from jaxseg.nn.dropout import Dropout
from jaxseg.nn.norm import make_norm
from jaxseg.types import Activation, NormFactory


class LargeFOV(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: a 3x3 convolution with holes and a 1x1 convolution, dropout after each.

    VGG-16's dense layers made convolutional with few channels and a large field of view (Chen et al. 2015, "Semantic
    Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs", section 5.2). Children: "fc6", "fc7".

    Attributes:
        features: channels of both.
        rate: step between the taps of "fc6".
        dropout: rate after each.
        axis_name: mapped axis over which dropout is drawn.
    """

    features: int = 1024
    rate: int = 12
    dropout: float = 0.5
    norm: NormFactory = make_norm("batch")
    act: Activation = jax.nn.relu
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        layers = {"norm": self.norm, "act": self.act, "dtype": self.dtype}
        x = ConvNormAct(self.features, 3, dilation=self.rate, **layers, name="fc6")(x, train=train)
        x = Dropout(self.dropout, axis_name=self.axis_name, name="dropout6")(x, train=train)
        x = ConvNormAct(self.features, 1, **layers, name="fc7")(x, train=train)
        return Dropout(self.dropout, axis_name=self.axis_name, name="dropout7")(x, train=train)
