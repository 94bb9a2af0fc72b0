"""PAN (Li, Xiong, An and Wang 2018, "Pyramid Attention Network for Semantic Segmentation", arXiv 1805.10180).

Feature pyramid attention weighs the last features of a dilated encoder by a small U of 7x7, 5x5 and 3x3 convolutions of
one channel (section 3.1, Fig. 3). Global attention up-sampling takes them to each finer level, whose channels are
weighed by the mean of the coarser features (section 3.2, Fig. 4).

The form is that of segmentation_models_pytorch's `PAN`, whose convolutions keep a bias before their norm. Its U has one
channel in each layer, and two 3x3 convolutions at the bottom.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models import encoders
from jaxseg.models.assembly import coarse_levels, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, Layers, global_avg_pool, max_pool, resize
from jaxseg.nn.norm import uses_batch
from jaxseg.nn.ops.sizes import is_known


class BiasedConv(nn.Module):
    """Convolution with a bias, norm, activation: f[b,h,w,c] -> f[b,h,w,features]. Children: "filter", "norm".

    Of a single value a channel (a mean over one image), batch norm uses its running statistics.
    """

    features: int
    kernel_size: int = 1
    act: bool = True
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common = self.common
        several = uses_batch(self, x, common.axis_name, train=train)
        init = {"dtype": common.dtype, "kernel_init": common.kernel_init}
        x = Conv(self.features, self.kernel_size, **init, name="filter")(x)
        x = common.normalise(x, "norm", train=several)
        return common.activate(x) if self.act else x


class PyramidAttention(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: feature pyramid attention (section 3.1, Fig. 3).

    A 1x1 convolution of the input is multiplied by the result of the U, and a 1x1 convolution of the mean over the
    image is added. Children: "pool", "mid", "down1", "down2", "down3a", "down3b", "up2", "up1".
    """

    features: int
    align_corners: bool = True
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        def conv(features: int, side: int, name: str, x: jax.Array) -> jax.Array:
            return BiasedConv(features, side, common=self.common, name=name)(x, train=train)

        def enlarged(x: jax.Array, to: jax.Array) -> jax.Array:
            return resize(x, to.shape[1:3], align_corners=self.align_corners)

        pooled = conv(self.features, 1, "pool", global_avg_pool(x))
        mid = conv(self.features, 1, "mid", x)
        one = conv(1, 7, "down1", _halved(x))
        two = conv(1, 5, "down2", _halved(one))
        three = conv(1, 3, "down3b", conv(1, 3, "down3a", _halved(two)))
        y = conv(1, 5, "up2", two) + enlarged(three, two)
        y = enlarged(y, one) + conv(1, 7, "up1", one)
        return mid * enlarged(y, x) + pooled


def _halved(x: jax.Array) -> jax.Array:
    """Largest values of 2x2 pixels; an axis of one pixel, if its size is known, keeps it."""
    for axis in (1, 2):
        if is_known(x.shape[axis]) and x.shape[axis] == 1:
            x = jnp.repeat(x, 2, axis=axis)
    return max_pool(x)


class AttentionUp(nn.Module):
    """(coarse f[b,h,w,features], fine f[b,H,W,c]) -> f[b,H,W,features]: global attention up-sampling (Fig. 4).

    Children: "gate" (1x1, of the coarse features' mean), "low" (3x3).
    """

    align_corners: bool = True
    common: Layers = Layers()

    @nn.compact
    def __call__(self, coarse: jax.Array, fine: jax.Array, *, train: bool = False) -> jax.Array:
        features = coarse.shape[-1]
        gate = BiasedConv(features, act=False, common=self.common, name="gate")(global_avg_pool(coarse), train=train)
        low = BiasedConv(features, 3, common=self.common, name="low")(fine, train=train)
        return resize(coarse, fine.shape[1:3], align_corners=self.align_corners) + low * nn.sigmoid(gate)


class PAN(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        width: channels of the decoder.
        finest: the smallest stride whose level takes part.
        head_kernel: side of the last convolution's kernel.
        align_corners: of every up-sampling.
        encoder: an `EncoderFactory`; the paper's is ResNet-101 at output stride 16.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 32
    finest: int = 4
    head_kernel: Literal[1, 3] = 3
    align_corners: bool = True
    encoder: EncoderFactory = encoders.factory("resnet34", output_stride=16)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        size = image.shape[1:3]
        pyramid = encoder(image, train=train)
        levels, _ = coarse_levels("PAN", pyramid, encoder.strides, self.finest)
        x = PyramidAttention(self.width, self.align_corners, common=self.common, name="attention")(
            levels[-1], train=train
        )
        decoded: list[jax.Array] = []
        for i in reversed(range(len(levels) - 1)):
            x = AttentionUp(self.align_corners, common=self.common, name=f"up{i}")(x, levels[i], train=train)
            decoded.insert(0, x)
        logits = to_logits(
            x,
            self.num_classes,
            size,
            kernel_size=self.head_kernel,
            align_corners=self.align_corners,
            dtype=self.common.dtype,
        )
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}
