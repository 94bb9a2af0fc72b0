"""DeepLabV3 (Chen, Papandreou, Schroff and Adam 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation").

An encoder whose last strides are replaced by dilation, atrous spatial pyramid pooling with image-level features, and
the classifier (Fig. 5). The default encoder is the paper's ResNet-101 at output stride 16 with the multi-grid (1, 2, 4)
(section 4.2.1). To score a run at output stride 8, as in section 4.2.2, give
`--config.model.args.encoder_args.output_stride=8` to `jaxseg.evaluate`, or to `jaxseg.load`: the parameters are the
same, and the rates of the pyramid pooling follow the stride.

The output stride, the multi-grid and the rate of the first convolution in a dilated stage hold for any encoder that has
these fields; `encoder_args` changes them.

torchvision's `deeplabv3_resnet50` is `encoder="resnet50"` with `encoder_args={"output_stride": 8, "multi_grid":
(1, 1, 1), "first_dilated": False}`, `head_conv=True`, `dropout=.5`, and `aux_width=256` where it has the auxiliary
head: 42,004,074 parameters for 21 classes.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import auxiliary_logits, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ASPP, ConvNormAct, Dropout, Layers, rates_at
from jaxseg.nn.conv import near_zero


def atrous_features(
    model: Any, x: jax.Array, stride: int, *, separable_conv: bool = False, train: bool
) -> tuple[jax.Array, jax.Array]:
    """f[b,y,x,c] at `stride` -> (context, features), both f[b,y,x,width]: the part between encoder and classes.

    The context is the result of the atrous pyramid pooling; dropout and, with `head_conv`, a 3x3 convolution give the
    features. The children "aspp", "dropout" and "conv" are those of `model`, a DeepLabV3 or DeepLabV3Plus.
    """
    rates = model.rates or rates_at(stride)
    context = ASPP(model.width, rates, model.separable, common=model.common, name="aspp")(x, train=train)
    x = Dropout(model.dropout, axis_name=model.common.axis_name, name="dropout")(context, train=train)
    if model.head_conv:
        conv = ConvNormAct(model.width, separable=separable_conv, common=model.common, name="conv")
        x = conv(x, train=train)
    return context, x


class DeepLabV3(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        width: channels of the pyramid pooling.
        rates: atrous rates of the pyramid pooling; None: 6, 12, 18 at output stride 16, 12, 24, 36 at 8.
        separable: whether its atrous convolutions are separable.
        head_conv: whether another 3x3 convolution precedes the classifier, as in torchvision and
            segmentation_models.pytorch; the paper has none.
        align_corners: of the up-sampling of the logits.
        dropout: rate after the pyramid pooling: .1 in the authors' release, .5 in torchvision.
        aux_width: channels of an auxiliary head on the second coarsest level (torchvision: 256); None: no such head,
            as in the paper.
        aux_dropout: rate at which that head drops channels.
        encoder: an `EncoderFactory`; its last stride sets the rates.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 256
    rates: tuple[int, ...] | None = None
    separable: bool = False
    head_conv: bool = False
    align_corners: bool = False
    dropout: Share = 0.1
    aux_width: int | None = None
    aux_dropout: Share = 0.1
    encoder: EncoderFactory = encoders.factory("resnet101", output_stride=16, multi_grid=(1, 2, 4), first_dilated=True)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        size = image.shape[1:3]
        encoder = make_encoder(self.encoder, self.common)
        pyramid = encoder(image, train=train)
        context, x = atrous_features(self, pyramid[-1], encoder.strides[-1], train=train)
        # normal(.01), as the authors' release starts its logits
        logits = to_logits(
            x, self.num_classes, size, align_corners=self.align_corners, kernel_init=near_zero, dtype=self.common.dtype
        )
        aux = auxiliary_logits(self, pyramid, size, self.aux_width, self.aux_dropout, self.align_corners, train=train)
        return logits, {"aux": aux, "aspp": context, **name_stages(encoder=pyramid, decoder=(x,))}
