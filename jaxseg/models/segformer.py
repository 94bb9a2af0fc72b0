"""SegFormer (Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers").

The all-MLP decoder (section 3.2, eq. 4, Fig. 2 right): each level of the pyramid is projected to one width, brought to
the size of the finest, and the concatenation (coarsest level first) is fused by a 1x1 convolution. Parameters for the
150 classes of ADE20K, in millions (Table 1): B0 3.8, B1 13.7, B2 27.5, B3 47.3, B4 64.1, B5 84.7.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, ConvNormAct, Dropout, Layers, resize


class MLPDecoder(nn.Module):
    """Pyramid (features finest first) -> f[b,h,w,features] at the size of its finest level (eq. 4).

    Children: "project0", "project1", ... (0 the finest level) and "fuse".
    """

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> jax.Array:
        size = pyramid[0].shape[1:3]
        levels = [
            resize(Conv(self.features, 1, dtype=self.common.dtype, name=f"project{i}")(feature), size)
            for i, feature in enumerate(pyramid)
        ]
        x = jnp.concatenate(levels[::-1], axis=-1)
        return ConvNormAct(self.features, 1, common=self.common, name="fuse")(x, train=train)


class SegFormer(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        features: channels of the decoder: 256 under MiT-B0 and B1, 768 under B2 to B5 (Table 6).
        dropout: rate before the classifier, of whole channels, as in the authors' release.
        encoder: an encoder (an `EncoderFactory`).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    features: int = 256
    dropout: Share = 0.1
    encoder: EncoderFactory = encoders.factory("mit_b0")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        pyramid = make_encoder(self.encoder, self.common)(image, train=train)
        top = MLPDecoder(self.features, common=self.common, name="decoder")(pyramid, train=train)
        x = Dropout(self.dropout, self.common.axis_name, spatial=True, name="dropout")(top, train=train)
        logits = to_logits(x, self.num_classes, image.shape[1:3], dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=(top,))}
