"""BiSeNet (Yu et al. 2018, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation").

A spatial path of few wide convolutions keeps details at stride 8 (section 3.1), and a context path over an encoder of
stride 32 finds what they belong to (section 3.2); a gated fusion joins both (section 3.3). In training both steps of
the context path have auxiliary heads (section 3.4). The spatial path's first kernel of 7x7 and its last convolution of
1x1, and all widths, are those of the authors' code.

The paper has 49.0 million parameters for ResNet-18 (Table 3), which the layers of its text do not add up to: with 19
classes and without auxiliary heads there are 12.89 million, counted here.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.errors import ArgumentError
from jaxseg.models import encoders
from jaxseg.models.assembly import auxiliary_heads, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ContextPath, ConvNormAct, GatedFusion, Layers


class SpatialPath(nn.Module):
    """f[b,h,w,c] -> f[b,h/8,w/8,features]: three convolutions of stride 2 and a 1x1 convolution. "conv1" to "conv4"."""

    width: int
    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i, side in enumerate((7, 3, 3), start=1):
            x = ConvNormAct(self.width, side, stride=2, common=self.common, name=f"conv{i}")(x, train=train)
        return ConvNormAct(self.features, 1, common=self.common, name="conv4")(x, train=train)


class BiSeNetV1(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        spatial_width: channels of the spatial path before its last convolution.
        context_width: channels of the results of both paths.
        width: channels of the fusion.
        head_width: channels of the convolution before the logits.
        aux_width: channels of the auxiliary heads on both steps of the context path, in training; the paper weighs them
            like the logits, an aux_weight of 1 (section 3.4). None: no such heads.
        encoder: an `EncoderFactory`; its two coarsest levels are read.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    spatial_width: int = 64
    context_width: int = 128
    width: int = 256
    head_width: int = 64
    aux_width: int | None = 256
    encoder: EncoderFactory = encoders.factory("resnet18")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        size, common = image.shape[1:3], self.common
        spatial = SpatialPath(self.spatial_width, self.context_width, common=common, name="spatial")(image, train=train)
        pyramid = make_encoder(self.encoder, common)(image, train=train)
        if len(pyramid) < 2:
            raise ArgumentError("BiSeNetV1 reads two levels of its encoder, got 1 level.")
        path = ContextPath(self.context_width, common=common, name="context")
        context, step = path(pyramid[-2], pyramid[-1], spatial.shape[1:3], train=train)
        fused = GatedFusion(self.width, common=common, name="fuse")(spatial, context, train=train)
        x = ConvNormAct(self.head_width, common=common, name="hidden")(fused, train=train)
        logits = to_logits(x, self.num_classes, size, dtype=common.dtype)
        on = {"aux0": context, "aux1": step}
        aux = auxiliary_heads(self, on, size, self.aux_width, train=train)
        return logits, {"aux": aux, **name_stages(encoder=pyramid, decoder=(fused, step))}
