"""DeepLab-LargeFOV (Chen, Papandreou, Kokkinos, Murphy and Yuille 2015, "Semantic Image Segmentation with Deep ...").

The full title ends "... Convolutional Nets and Fully Connected CRFs". The last two poolings of VGG-16 keep the size and
the convolutions after them are atrous, so that the scores are at stride 8 (section 3.1). A 3x3 convolution of rate 12
and a 1x1 convolution, of 1024 channels each, replace its dense layers (section 5.2, DeepLab-CRF-LargeFOV), and the
scores are up-sampled bilinearly. The dense CRF of the paper works on the network's result and is not part of it
(`jaxseg.inference.refine`). The paper has no normalisation: `norm="none"` is its network. The authors' release pools
over 3x3 windows; ours over 2x2 windows where the size halves, as the published VGG does.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import LargeFOV, Layers, pad_to_multiple
from jaxseg.nn.conv import near_zero


class DeepLabV1(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    With norm="none" and k = 21 it has 20,505,429 parameters (the paper: 20.5 M, Table 2).

    Attributes:
        num_classes: k.
        hidden: channels of "fc6" and "fc7".
        rate: atrous rate of "fc6".
        dropout: rate after each of them.
        encoder: any encoder; its last level is scored.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    hidden: int = 1024
    rate: int = 12
    dropout: Share = 0.5
    encoder: EncoderFactory = encoders.factory("vgg16", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        y = LargeFOV(self.hidden, self.rate, self.dropout, common=self.common, name="fov")(pyramid[-1], train=train)
        logits = to_logits(y, self.num_classes, x.shape[1:3], size, kernel_init=near_zero, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid), "hidden": y}
