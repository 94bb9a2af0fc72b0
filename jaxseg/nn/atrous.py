"""Atrous spatial pyramid pooling in the form of DeepLabV3 (Chen et al. 2017, "Rethinking Atrous Convolution")."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import ConvNormAct, check_image, mean_conv
from jaxseg.nn.layers import BARE, Layers


class ASPP(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: parallel convolutions of several atrous rates and the image's mean, fused.

    The branches are a 1x1 convolution, one 3x3 convolution for each rate, and a 1x1 convolution of the global mean,
    which is repeated over the image. They are concatenated and pass one more 1x1 convolution. Every convolution is
    followed by norm and activation (section 3.3, Fig. 5). Children: "point", "atrous1", "atrous2", ..., "pool",
    "project".

    With a single image in the batch, the batch norm of "pool" has one value per channel to normalise: it would return
    its bias for every image and move its running variance to zero. It then uses the running statistics in training too.

    Attributes:
        features: channels of each branch and of the result.
        rates: atrous rate of each 3x3 convolution.
        separable: whether the 3x3 convolutions are separable (Chen 2018, section 3.1); there is no norm between their
            depthwise and pointwise convolutions.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int = 256
    rates: tuple[int, ...] = (6, 12, 18)
    separable: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "ASPP")
        branches = [ConvNormAct(self.features, 1, common=self.common, name="point")(x, train=train)]
        for i, rate in enumerate(self.rates, start=1):
            conv = ConvNormAct(
                self.features, dilation=rate, separable=self.separable, common=self.common, name=f"atrous{i}"
            )
            branches.append(conv(x, train=train))
        mean = mean_conv(self, x, self.features, self.common, "pool", train=train)
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        y = jnp.concatenate(branches, axis=-1)
        return ConvNormAct(self.features, 1, common=self.common, name="project")(y, train=train)


def rates_at(stride: int) -> tuple[int, ...]:
    """Returns the rates of DeepLabV3 at an output stride: 6, 12, 18 at 16, twice as much at 8 (Chen 2017, sec. 3.3)."""
    return tuple(max(1, rate * 16 // stride) for rate in (6, 12, 18))
