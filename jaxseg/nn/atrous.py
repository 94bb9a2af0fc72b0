"""Atrous spatial pyramid pooling in the form of DeepLabV3 (Chen et al. 2017, "Rethinking Atrous Convolution")."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import ConvNormAct, check_image
from jaxseg.nn.norm import several_values
from jaxseg.nn.ops.pooling import global_avg_pool
from jaxseg.types import Activation, NormFactory


class ASPP(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: parallel convolutions of several atrous rates and the image's mean, fused.

    A 1x1 convolution, a 3x3 one of each rate and a 1x1 one of the global mean, spread over the image, are concatenated
    and pass one more 1x1 convolution, each with norm and activation (section 3.3, Fig. 5). Children: "point",
    "atrous1", "atrous2", ..., "pool", "project".

    A batch norm of one single image would see one value a channel in "pool": it gives its bias for every image and
    moves its running variance to zero. There, training too takes the running statistics.

    Attributes:
        features: channels of each branch and of the result.
        rates: atrous rate of each 3x3 convolution.
        separable: makes the 3x3 convolutions separable (Chen 2018, section 3.1), without a norm between their halves.
        axis_name: mapped axis that the batch is split over, over which batch norm is synchronised.
    """

    features: int = 256
    rates: tuple[int, ...] = (6, 12, 18)
    separable: bool = False
    norm: NormFactory | None = None
    act: Activation = nn.relu
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "ASPP")
        layers = {"norm": self.norm, "act": self.act, "dtype": self.dtype}
        branches = [ConvNormAct(self.features, 1, **layers, name="point")(x, train=train)]
        for i, rate in enumerate(self.rates, start=1):
            conv = ConvNormAct(self.features, dilation=rate, separable=self.separable, **layers, name=f"atrous{i}")
            branches.append(conv(x, train=train))
        mean = global_avg_pool(x)
        several = several_values(mean, None if self.is_initializing() else self.axis_name)
        mean = ConvNormAct(self.features, 1, **layers, name="pool")(mean, train=train and several)
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        y = jnp.concatenate(branches, axis=-1)
        return ConvNormAct(self.features, 1, **layers, name="project")(y, train=train)


def rates_at(stride: int) -> tuple[int, ...]:
    """The rates of DeepLabV3 at an output stride: 6, 12, 18 at 16, and doubled at 8 (Chen 2017, section 3.3)."""
    return tuple(max(1, rate * 16 // stride) for rate in (6, 12, 18))
