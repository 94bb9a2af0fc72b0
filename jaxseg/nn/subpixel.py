"""Sub-pixel up-sampling (Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution")."""

import jax
from flax import linen as nn

from jaxseg.nn.conv import ConvNormAct
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.ops.conv import depth_to_space


class SubPixelUp(nn.Module):
    """Sub-pixel up-sampling f[b,h,w,c] -> f[b,h*factor,w*factor,features] (Shi 2016, eq. 4): convolve, then unfold.

    Norm and activation, of which there are none by default, come before the unfolding and see features * factor^2
    channels. Child: "expand" (a `ConvNormAct`).
    """

    features: int
    factor: int = 2
    kernel_size: int = 3
    common: Layers = BARE.replace(act=None)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        features = self.features * self.factor**2
        y = ConvNormAct(features, self.kernel_size, common=self.common, name="expand")(x, train=train)
        return depth_to_space(y, self.factor)
