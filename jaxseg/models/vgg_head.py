"""VGG-16 with a small convolutional head: the features of a classifier, two convolutions, scores, bilinear up-sampling.

The simplest use of a published classifier for segmentation: its last features (Simonyan and Zisserman 2015, Table 1,
configuration D) are reduced to 32 and then 16 channels and scored pixel by pixel. With num_classes=1 the single logit
is that of the foreground, whose probability is its sigmoid.

The usual form of this network, with the classifier's features before its last pooling and convolutions without padding,
has 16x16 features for an image of 256x256 and shrinks them to 14x14 and 12x12. Here the features are those after that
pooling (8x8, half the resolution), the convolutions are padded, and each has a norm.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, Layers, pad_to_multiple


class VGGHead(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k; 1 for a binary (sigmoid) network.
        widths: channels of the 3x3 convolutions of the head.
        encoder: any encoder; its last level is used.
    """

    num_classes: int
    widths: tuple[int, ...] = (32, 16)
    encoder: EncoderFactory = encoders.factory("vgg16")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        y = pyramid[-1]
        for i, features in enumerate(self.widths, start=1):
            y = ConvNormAct(features, common=self.common, name=f"conv{i}")(y, train=train)
        logits = to_logits(y, self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid), "hidden": y}
