"""DeepLabV3+ (Chen, Zhu, Papandreou, Schroff and Adam 2018, "Encoder-Decoder with Atrous Separable Convolution").

DeepLabV3 as the encoder, and a decoder that joins its features with those of stride 4 (Fig. 2). The default encoder is
ResNet-101 at output stride 16 with the multi-grid (1, 2, 4) of DeepLabV3, over which the paper studies the decoder
(section 4.1). Separable convolutions are those of its final model (sections 3.1 and 4.3), without a norm between
depthwise and pointwise convolution, as in Chollet 2017 and segmentation_models.pytorch.

The form of segmentation_models.pytorch's `DeepLabV3Plus` is `rates=(12, 24, 36)`, `head_conv=True`, `decoder_convs=1`,
`align_corners=True`, `dropout=.5` over an encoder at output stride 16 with
`first_dilated=True` and `multi_grid=(1, 1, 1)`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages, to_logits
from jaxseg.models.deeplabv3 import atrous_features
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, Layers, resize


class DeepLabV3Plus(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        width: channels of the pyramid pooling and of the decoder.
        rates: atrous rates of the pyramid pooling; None: 6, 12, 18 at output stride 16, 12, 24, 36 at 8.
        separable: whether the 3x3 convolutions of pyramid pooling and decoder are separable.
        head_conv: whether there is a 3x3 convolution between pyramid pooling and decoder, as in
            segmentation_models.pytorch.
        low_stride: the decoder joins the coarsest level of at most this stride, or the finest if there is none.
        low_width: channels to which this level is reduced (Table 1: 48).
        decoder_convs: 3x3 convolutions after the join (Table 2: 2).
        align_corners: of both up-samplings.
        dropout: rate after the pyramid pooling: .1 in the authors' release.
        encoder: an `EncoderFactory`; its last stride sets the rates.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 256
    rates: tuple[int, ...] | None = None
    separable: bool = True
    head_conv: bool = False
    low_stride: int = 4
    low_width: int = 48
    decoder_convs: int = 2
    align_corners: bool = False
    dropout: Share = 0.1
    encoder: EncoderFactory = encoders.factory("resnet101", output_stride=16, multi_grid=(1, 2, 4), first_dilated=True)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        pyramid = encoder(image, train=train)
        stride = encoder.strides[-1]
        context, x = atrous_features(self, pyramid[-1], stride, separable_conv=self.separable, train=train)
        low = pyramid[max(0, sum(stride <= self.low_stride for stride in encoder.strides) - 1)]
        low = ConvNormAct(self.low_width, 1, common=self.common, name="low")(low, train=train)
        x = jnp.concatenate([resize(x, low.shape[1:3], align_corners=self.align_corners), low], axis=-1)
        for i in range(self.decoder_convs):
            conv = ConvNormAct(self.width, separable=self.separable, common=self.common, name=f"fuse{i + 1}")
            x = conv(x, train=train)
        # Not from normal(.01), as in the authors' release: on shapes that reaches less than a third of the mIoU.
        logits = to_logits(
            x, self.num_classes, image.shape[1:3], align_corners=self.align_corners, dtype=self.common.dtype
        )
        return logits, {"aux": (), "aspp": context, **name_stages(encoder=pyramid, decoder=(x,))}
