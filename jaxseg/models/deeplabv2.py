"""DeepLab v2 (Chen et al. 2017, "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous ...").

Atrous spatial pyramid pooling (section 3.2, Figs. 4 and 7): parallel branches, whose 3x3 convolutions have different
rates, score the last features at stride 8, and the scores are summed. Over VGG-16 a branch consists of "fc6", "fc7" and
"fc8" of DeepLab-LargeFOV (the default here, ASPP-L); over ResNet-101 it is a single 3x3 convolution to the classes
(hidden=None), as in the authors' release. The dense CRF and the maximum over three scales work on the network's result
and are not part of it. The paper has no normalisation over VGG-16: `norm="none"` is its network.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ClassHead, LargeFOV, Layers, classifier, crop_to, pad_to_multiple, resize
from jaxseg.nn.conv import near_zero


class AtrousBranch(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,k]: scores under one atrous rate. Children: "fov" (where it has hidden layers), "score"."""

    num_classes: int
    rate: int
    hidden: int | None = 1024
    dropout: Share = 0.5
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        if self.hidden is None:
            fields = {"kernel_init": near_zero, "dtype": self.common.dtype}
            return ClassHead(self.num_classes, 3, dilation=self.rate, **fields, name="score")(x)
        x = LargeFOV(self.hidden, self.rate, self.dropout, common=self.common, name="fov")(x, train=train)
        return classifier(self.num_classes, kernel_init=near_zero, dtype=self.common.dtype, name="score")(x)


class ScorePyramid(nn.Module):
    """f[b,h,w,c] -> f32[b,h,w,k]: the sum of the scores of all rates. Children: "branch0", "branch1", ..."""

    num_classes: int
    rates: tuple[int, ...] = (6, 12, 18, 24)
    hidden: int | None = 1024
    dropout: Share = 0.5
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        scores: jax.Array | float = 0.0
        for i, rate in enumerate(self.rates):
            branch = AtrousBranch(self.num_classes, rate, self.hidden, self.dropout, self.common, name=f"branch{i}")
            scores += branch(x, train=train).astype(jnp.float32)
        return jnp.asarray(scores)


class DeepLabV2(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        rates: atrous rates of the branches; (6, 12, 18, 24) is the paper's ASPP-L, (2, 4, 8, 12) its ASPP-S.
        hidden: channels of "fc6" and "fc7" of each branch; None: each branch is one convolution to the classes.
        dropout: rate after each hidden layer.
        encoder: any encoder; its last level is scored. The paper's other one is encoder="resnet101",
            encoder_args={"output_stride": 8} with hidden=None.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    rates: tuple[int, ...] = (6, 12, 18, 24)
    hidden: int | None = 1024
    dropout: Share = 0.5
    encoder: EncoderFactory = encoders.factory("vgg16", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        head = ScorePyramid(self.num_classes, self.rates, self.hidden, self.dropout, common=self.common, name="head")
        logits = resize(head(pyramid[-1], train=train), x.shape[1:3])
        return crop_to(logits, size), {"aux": (), **name_stages(encoder=pyramid)}
