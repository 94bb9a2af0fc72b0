"""ANN (Zhu, Xu, Bai, Huang and Bai 2019, "Asymmetric Non-local Neural Networks for Semantic Segmentation").

The keys and values of a non-local block are sampled by pyramid pooling: 110 means of the features replace all pixels
(section 3.2). One such block fuses the last two levels of a dilated encoder (AFNB, section 3.3), another relates the
pixels of the result to it (APNB). Widths, norms and dropout are those of the authors' release.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Count, Share
from jaxseg.models import encoders
from jaxseg.models.context_head import attend, classified, encoded
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, ConvNormAct, Dropout, Layers, adaptive_avg_pool


def sampled(x: jax.Array, bins: tuple[int, ...]) -> jax.Array:
    """f[b,h,w,c] -> f[b,s,c]: the means over grids of side n for n in `bins`, s = Σ n² (Zhu 2019, section 3.2)."""
    b, c = x.shape[0], x.shape[-1]
    return jnp.concatenate([adaptive_avg_pool(x, (side, side)).reshape(b, side * side, c) for side in bins], axis=1)


class AsymmetricNonLocal(nn.Module):
    """(high f[b,h,w,c], low f[b,y,x,e]) -> f[b,h,w,features]: fusion of two levels (AFNB; Zhu 2019, section 3.3).

    The pixels of `high` attend to the sampled pixels of `low`, with the authors' scale:
    Y = softmax(φ(high) P(θ(low))ᵀ / √width) P(γ(low)), P the sampling. W Y and `high` are concatenated and pass a 1x1
    convolution. Without `low` the pixels attend to their own samples, and queries and keys have one projection (APNB,
    section 3.2). Children: "query", "key" (with `low`), "value", "out" (W, which starts at zero), "fuse".

    Attributes:
        features: channels of the result, and of W.
        width: channels of queries, keys and values.
        bins: sides of the grids.
        common: norm, activation and dtype.
        final_act: whether an activation ends the block; the authors' fusion of two levels has none.
    """

    features: Count
    width: Count = 256
    bins: tuple[Count, ...] = (1, 3, 6, 8)
    common: Layers = Layers()
    final_act: bool = True

    @nn.compact
    def __call__(self, high: jax.Array, low: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        common = self.common
        query = ConvNormAct(self.width, 1, common=common, name="query")(high, train=train)
        key = query if low is None else ConvNormAct(self.width, 1, common=common, name="key")(low, train=train)
        value = Conv(self.width, 1, dtype=common.dtype, name="value")(high if low is None else low)
        y = attend(query, sampled(key, self.bins), sampled(value, self.bins), self.width**-0.5)
        out = Conv(self.features, 1, dtype=common.dtype, kernel_init=nn.initializers.zeros_init(), name="out")
        joined = jnp.concatenate([out(y), high], axis=-1)
        last = common if self.final_act else common.replace(act=None)
        return ConvNormAct(self.features, 1, common=last, name="fuse")(joined, train=train)


class ANN(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Children: "encoder", "fusion" (AFNB), "reduce" (3x3), "context" (APNB), "head", "aux".

    Attributes:
        num_classes: k.
        width: channels of the features that are classified.
        key_width: channels of queries, keys and values.
        bins: sides of the grids whose means are the keys; Σ n² keys, 110 in the paper.
        dropout: rate at which whole channels are dropped after each block and before the classifiers.
        aux_width: channels of the auxiliary head on the second coarsest level, with a loss weight of .4; None: no such
            head.
        encoder: an `EncoderFactory` of two levels or more; the paper's is ResNet-101 at output stride 8.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: for an encoder of one level.
    """

    num_classes: int
    width: Count = 512
    key_width: Count = 256
    bins: tuple[Count, ...] = (1, 3, 6, 8)
    dropout: Share = 0.05
    aux_width: int | None = 512
    encoder: EncoderFactory = encoders.factory("resnet101", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        pyramid, common = encoded(self, image, train=train), self.common
        if len(pyramid) < 2:
            raise ValueError("ANN fuses the last two levels of its encoder, and this encoder has one.")
        low, high = pyramid[-2:]
        fusion = AsymmetricNonLocal(high.shape[-1], self.key_width, self.bins, common, final_act=False, name="fusion")
        x = fusion(high, low, train=train)
        x = Dropout(self.dropout, axis_name=common.axis_name, spatial=True, name="fusion_dropout")(x, train=train)
        x = ConvNormAct(self.width, common=common, name="reduce")(x, train=train)
        x = AsymmetricNonLocal(self.width, self.key_width, self.bins, common, name="context")(x, train=train)
        return classified(self, image, pyramid, x, train=train)
