"""FCN as torchvision builds it: the last features of an atrous ResNet, a 3x3 convolution, scores, bilinear up-sampling.

The usual "FCN" baseline, which differs from the network of Long et al. (2015): no levels are added, as dilation keeps
the encoder's resolution at stride 8 (Chen et al. 2017, "Rethinking Atrous Convolution", section 3.1), and the stage
before the last has an auxiliary head of the same form (Zhao et al. 2017, "PSPNet", section 3.3). The defaults are
torchvision's `fcn_resnet50` with its auxiliary head: 35,322,218 parameters for 21 classes.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import auxiliary_logits, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, Dropout, Layers


class FCNHead(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w, without padding.

    Attributes:
        num_classes: k.
        width: channels of the head's convolution; None: a quarter of the encoder's.
        dropout: rate after it.
        aux_width: channels of the auxiliary head on the level before the last; None: no such head. The head drops whole
            channels; torchvision's drops single entries.
        encoder: any encoder; its last level is scored.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int | None = None
    dropout: Share = 0.1
    aux_width: int | None = 256
    encoder: EncoderFactory = encoders.factory("resnet50", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        size = image.shape[1:3]
        pyramid = make_encoder(self.encoder, self.common)(image, train=train)
        width = self.width or max(1, pyramid[-1].shape[-1] // 4)
        hidden = ConvNormAct(width, common=self.common, name="conv")(pyramid[-1], train=train)
        y = Dropout(self.dropout, axis_name=self.common.axis_name, name="dropout")(hidden, train=train)
        logits = to_logits(y, self.num_classes, size, dtype=self.common.dtype)
        aux = auxiliary_logits(self, pyramid, size, self.aux_width, self.dropout, train=train)
        return logits, {"aux": aux, **name_stages(encoder=pyramid), "hidden": hidden}
