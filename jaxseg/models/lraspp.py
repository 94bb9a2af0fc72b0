"""Lite R-ASPP (Howard et al. 2019, "Searching for MobileNetV3", section 6.4 and Fig. 10) in torchvision's form.

torchvision pools over the whole feature, where the paper pools over large windows, and takes the low feature after the
block that reaches its stride. In this form it has 3,221,538 parameters for 21 classes.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, ConvNormAct, Layers, classifier, global_avg_pool, resize
from jaxseg.nn.conv import near_zero


class LRASPP(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w. Children: "encoder", "project", "scale", "head", "head_low".

    The coarsest feature is projected, its channels are multiplied by gates that come of its mean over the image, and it
    gives class scores. A finer feature gives scores too; the sum of both is up-sampled to the image.

    Attributes:
        num_classes: k.
        width: channels of the projection.
        low_stride: the finer feature is the first level of the greatest stride up to this one, without the coarsest.
        encoder: an `EncoderFactory`; MobileNetV3-Large at output stride 16 by default.
    """

    num_classes: int
    width: int = 128
    low_stride: int = 8
    encoder: EncoderFactory = encoders.factory("mobilenet_v3_large", output_stride=16, tap="first")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        level = low_level(encoder.strides, self.low_stride)
        pyramid = encoder(image, train=train)
        low, high = pyramid[level], pyramid[-1]
        x = ConvNormAct(self.width, 1, common=self.common, name="project")(high, train=train)
        gate = Conv(self.width, 1, use_bias=False, dtype=self.common.dtype, name="scale")(global_avg_pool(high))
        x = resize(x * jax.nn.sigmoid(gate), low.shape[1:3])
        # normal(.01), as the authors' release starts its logits
        score = functools.partial(classifier, self.num_classes, kernel_init=near_zero, dtype=self.common.dtype)
        logits = score(name="head")(x).astype(jnp.float32) + score(name="head_low")(low).astype(jnp.float32)
        logits = resize(logits, image.shape[1:3])
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=(x,))}


def low_level(strides: tuple[int, ...], most: int) -> int:
    """Returns the first level of the greatest stride up to `most`, without the coarsest level."""
    fine = [stride for stride in strides[:-1] if stride <= most]
    if not fine:
        raise ValueError(f"LRASPP: the encoder has no level of stride {most} or less above the coarsest: {strides}.")
    return strides.index(max(fine))
