"""Sub-pixel up-sampling (Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution")."""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.nn.conv import ConvNormAct
from jaxseg.nn.ops.conv import depth_to_space
from jaxseg.types import Activation, NormFactory


class SubPixelUp(nn.Module):
    """Sub-pixel up-sampling f[b,h,w,c] -> f[b,h*factor,w*factor,features] (Shi 2016, eq. 4): convolve, then unfold.

    The norm and the activation stand before the unfolding, where they cost the same and see features * factor^2
    channels. Child: "expand" (a `ConvNormAct`).
    """

    features: int
    factor: int = 2
    kernel_size: int = 3
    norm: NormFactory | None = None
    act: Activation | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        y = ConvNormAct(
            self.features * self.factor**2, self.kernel_size, norm=self.norm, act=self.act, dtype=self.dtype,
            name="expand",
        )(x, train=train)  # fmt: skip
        return depth_to_space(y, self.factor)
