"""OCRNet (Yuan, Chen and Wang 2020, "Object-Contextual Representations for Semantic Segmentation", Fig. 3, section 3).

A first prediction of the classes (the soft object regions) assigns pixels to objects; each pixel then attends to the
objects' representations, not to the other pixels. The layers are those of the authors' release over HRNet, without its
biases before norms. The auxiliary logits are the first prediction, with a loss weight of .4 in the paper.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, Dropout, Layers, classifier, dot_product_attention, resize


def gather_objects(x: jax.Array, regions: jax.Array) -> jax.Array:
    """(f[b,h,w,c], logits f[b,h,w,k]) -> f[b,k,1,c]: each object is the mean of the pixels of its region (eq. 8).

    A region's shares of the pixels are the softmax of its logits over the image.
    """
    b, h, w, k = regions.shape
    shares = jax.nn.softmax(regions.reshape(b, h * w, k).astype(jnp.float32), axis=1).astype(x.dtype)
    return jnp.einsum("btk,btc->bkc", shares, x.reshape(b, h * w, -1))[:, :, None]


class ObjectAttention(nn.Module):
    """(pixels f[b,h,w,c], objects f[b,k,1,c]) -> f[b,h,w,c]: attention from pixels to objects (eqs. 9 and 10).

    Children: "query1", "query2", "key1", "key2", "value", "out".

    Attributes:
        width: channels of queries, keys and values.
    """

    width: int = 256
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, objects: jax.Array, *, train: bool = False) -> jax.Array:
        b, h, w, c = x.shape

        def projected(v: jax.Array, *names: str) -> jax.Array:
            """The 1x1 convolutions `names` of v f[b,y,x,c], as f[b,y*x,width]."""
            for name in names:
                layer = ConvNormAct(self.width, 1, common=self.common, name=name)
                v = layer(v, train=train)
            return v.reshape(b, -1, self.width)

        query = projected(x, "query1", "query2")
        key, value = projected(objects, "key1", "key2"), projected(objects, "value")
        context = dot_product_attention(*(v[:, :, None] for v in (query, key, value))).reshape(b, h, w, self.width)
        return ConvNormAct(c, 1, common=self.common, name="out")(context, train=train)


class OCRNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Children: "encoder"; "aux_project" and "aux_head", the first guess; "project"; "attention"; "fuse"; "head".

    Attributes:
        num_classes: k.
        width: channels of the pixels' and the objects' representations.
        key_width: channels of the attention between them.
        dropout: rate at which whole channels are dropped before the head.
        encoder: an `EncoderFactory`, all of whose levels are up-sampled to the finest and concatenated; HRNet-W48 by
            default, with which the network has about 70.4 million parameters.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 512
    key_width: int = 256
    dropout: Share = 0.05
    encoder: EncoderFactory = encoders.factory("hrnet_w48", upsample="bilinear")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        pyramid = make_encoder(self.encoder, self.common)(image, train=train)
        size, image_size = pyramid[0].shape[1:3], image.shape[1:3]
        x = jnp.concatenate([resize(level, size) for level in pyramid], axis=-1)
        guess = ConvNormAct(x.shape[-1], 1, common=self.common, name="aux_project")(x, train=train)
        regions = classifier(self.num_classes, dtype=self.common.dtype, final=False, name="aux_head")(guess)
        x = ConvNormAct(self.width, common=self.common, name="project")(x, train=train)
        objects = gather_objects(x, regions)
        context = ObjectAttention(self.key_width, common=self.common, name="attention")(x, objects, train=train)
        x = jnp.concatenate([context, x], axis=-1)
        x = ConvNormAct(self.width, 1, common=self.common, name="fuse")(x, train=train)
        x = Dropout(self.dropout, axis_name=self.common.axis_name, spatial=True, name="dropout")(x, train=train)
        logits = to_logits(x, self.num_classes, image_size, dtype=self.common.dtype)
        wanted = train or self.is_initializing()
        aux = (resize(regions.astype(jnp.float32), image_size),) if wanted else ()
        return logits, {"aux": aux, "objects": objects, **name_stages(encoder=pyramid, decoder=(x,))}
