"""Pyramid pooling (Zhao et al. 2017, "Pyramid Scene Parsing Network")."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import ConvNormAct, check_image
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.norm import uses_batch
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
        single = self.common if self.norm_single else self.common.replace(norm=None)
        means = [
            _grid(self, x, side, single if side == 1 else self.common, self.align_corners, train) for side in self.bins
        ]
        return jnp.concatenate([x, *means], axis=-1)


class SummedPyramidPooling(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: means over grids, up-sampled and added, then a 3x3 convolution ("out").

    The simple pyramid pooling module, SPPM, of Peng et al. 2022, "PP-LiteSeg", section 3.3: `PyramidPooling` without
    its input and with a sum in place of the concatenation. Children: "bin1", "bin2", ..., "out".

    Attributes:
        features: channels of each grid and of the result.
        bins: sides of the grids.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    bins: tuple[int, ...] = (1, 2, 4)
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "SummedPyramidPooling")
        means = [_grid(self, x, side, self.common, False, train) for side in self.bins]
        total = means[0]
        for mean in means[1:]:
            total = total + mean
        return ConvNormAct(self.features, common=self.common, name="out")(total, train=train)


def _grid(
    block: PyramidPooling | SummedPyramidPooling,
    x: jax.Array,
    side: int,
    common: Layers,
    align_corners: bool,
    train: bool,
) -> jax.Array:
    """f[b,h,w,c] -> f[b,h,w,features]: means over side x side windows after a 1x1 convolution of the block."""
    y = adaptive_avg_pool(x, (side, side))
    several = uses_batch(block, y, common.axis_name, train=train)
    y = ConvNormAct(block.features, 1, common=common, name=f"bin{side}")(y, train=several)
    return resize(y, x.shape[1:3], align_corners=align_corners)
