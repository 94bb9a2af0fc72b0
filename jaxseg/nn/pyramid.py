"""Pyramid pooling (Zhao et al. 2017, "Pyramid Scene Parsing Network")."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import ConvNormAct, check_image
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.norm import several_values
from jaxseg.nn.ops.pooling import adaptive_avg_pool
from jaxseg.nn.ops.resize import resize


class PyramidPooling(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c+n features]: the input and its means over n grids, coarse to fine (Fig. 3c).

    The means over a grid of bins[i] x bins[i] windows pass a 1x1 convolution, norm and activation, and are up-sampled
    bilinearly to the image's size. Children: "bin1", "bin2", ..., named by the side of the grid.

    Attributes:
        features: channels of each grid.
        bins: sides of the grids.
        norm_single: whether the single mean of a grid of side 1 is normalised like the others. With one image in the
            batch, a batch norm has one value per channel there and uses its running statistics.
        align_corners: of the up-sampling, see `jaxseg.nn.resize`.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    bins: tuple[int, ...] = (1, 2, 3, 6)
    norm_single: bool = True
    align_corners: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "PyramidPooling")
        means = []
        for side in self.bins:
            common = self.common if side > 1 or self.norm_single else self.common.replace(norm=None)
            y = adaptive_avg_pool(x, (side, side))
            several = train and several_values(y, None if self.is_initializing() else self.common.axis_name)
            y = ConvNormAct(self.features, 1, common=common, name=f"bin{side}")(y, train=several)
            means.append(resize(y, x.shape[1:3], align_corners=self.align_corners))
        return jnp.concatenate([x, *means], axis=-1)
