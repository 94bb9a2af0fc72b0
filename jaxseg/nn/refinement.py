"""Blocks of BiSeNet (Yu et al. 2018, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation").

Gates of channels refine the features of a context path (section 3.2) and weigh the fusion of two paths (section 3.3).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.attention import SqueezeExcite
from jaxseg.nn.conv import ConvNormAct, check_image, mean_conv
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.ops.resize import resize


class AttentionRefinement(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: the attention refinement module, ARM (Fig. 2b).

    A 3x3 convolution ("conv"), whose mean over the image passes a 1x1 convolution, a norm ("gate") and a sigmoid, which
    multiplies its channels. The 3x3 convolution is that of the authors' code; the figure has the gates alone. With a
    single image in the batch, batch norm uses its running statistics for the mean.
    """

    features: int
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "AttentionRefinement")
        x = ConvNormAct(self.features, common=self.common, name="conv")(x, train=train)
        gate = mean_conv(self, x, self.features, self.common.replace(act=None), "gate", train=train)
        return x * nn.sigmoid(gate)


class GatedFusion(nn.Module):
    """(fine f[b,h,w,c], coarse f[b,h,w,d]) -> f[b,h,w,features]: the feature fusion module, FFM (Fig. 2c).

    Both are concatenated and pass a 1x1 convolution ("conv"), whose result y and y times gates of its channels ("gate")
    are added. The inner layer of the gates has features / `ratio` channels.
    """

    features: int
    ratio: int = 1
    common: Layers = BARE

    @nn.compact
    def __call__(self, fine: jax.Array, coarse: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(fine, "GatedFusion")
        x = ConvNormAct(self.features, 1, common=self.common, name="conv")(
            jnp.concatenate([fine, coarse], axis=-1), train=train
        )
        return x + SqueezeExcite(self.ratio, act=self.common.activate, dtype=self.common.dtype, name="gate")(x)


class ContextPath(nn.Module):
    """(middle f[b,h,w,c], coarse f[b,y,x,d]) -> (f[b,*size,features], f[b,h,w,features]): the way up of a context path.

    The mean of the coarse features over the image ("mean") is added to those features, refined ("attention1"); the sum,
    enlarged, passes a 3x3 convolution ("up1"), is added to the middle features, refined ("attention0"), and passes
    another at the size of the fine ones ("up0"): BiSeNet's section 3.2 and the code of its authors.

    Attributes:
        features: channels of everything after the encoder.
        method, align_corners: of the enlarging, see `jaxseg.nn.resize`.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    method: str = "bilinear"
    align_corners: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(
        self, middle: jax.Array, coarse: jax.Array, size: tuple[int, ...], *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        check_image(coarse, "ContextPath")
        x, steps = mean_conv(self, coarse, self.features, self.common, "mean", train=train), []
        for i, level, target in ((1, coarse, middle.shape[1:3]), (0, middle, size)):
            x = x + AttentionRefinement(self.features, common=self.common, name=f"attention{i}")(level, train=train)
            x = resize(x, target, self.method, align_corners=self.align_corners)
            x = ConvNormAct(self.features, common=self.common, name=f"up{i}")(x, train=train)
            steps.append(x)
        return steps[1], steps[0]
