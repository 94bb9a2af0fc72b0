"""CCNet (Huang, Wang, Huang, Huang, Wei and Liu 2019, "CCNet: Criss-Cross Attention for Semantic Segmentation").

Each pixel attends to the pixels of its row and of its column; with the same attention applied twice, every pixel is
reached from every other (section 3.3). For h x w pixels this takes h w (h + w) weights in place of (h w)².

The loss of category consistency of the journal's version (Huang et al. 2020) is not part of this network.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Count, Share
from jaxseg.models import encoders
from jaxseg.models.context_head import classified, encoded, with_context
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, Layers, parameter
from jaxseg.nn.ops.dot_product import NEVER
from jaxseg.nn.ops.product import product


def criss_cross(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention of each pixel to its row and column (Huang 2019, eqs. 1 and 2, without the residual).

    (query f[b,h,w,d], key f[b,h,w,d], value f[b,h,w,c]) -> f[b,h,w,c]: at u it is Σ_i A_iu value_i over the h + w - 1
    pixels i of the row and the column of u, each once, with A = softmax_i(query_u · key_i). The softmax is float32.
    """
    h = query.shape[1]
    row = product("bhwd,bhvd->bhwv", query, key)
    column = product("bhwd,bgwd->bhwg", query, key)
    itself = jnp.arange(h)[:, None] == jnp.arange(h)[None]
    column = jnp.where(itself[None, :, None], NEVER, column)  # the row has the pixel already
    top = jax.lax.stop_gradient(jnp.maximum(row.max(-1, keepdims=True), column.max(-1, keepdims=True)))
    row, column = jnp.exp(row - top), jnp.exp(column - top)
    total = row.sum(-1, keepdims=True) + column.sum(-1, keepdims=True)
    y = product("bhwv,bhvc->bhwc", (row / total).astype(value.dtype), value)
    return (y + product("bhwg,bgwc->bhwc", (column / total).astype(value.dtype), value)).astype(value.dtype)


class CrissCrossAttention(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: γ Σ_i A_iu Φ_i + H_u, repeated with the same parameters (Huang 2019, eq. 2, Fig. 3).

    Children: "query" and "key" (c / reduction channels), "value", 1x1 convolutions; "gamma" f32[] starts at zero, as in
    the authors' release. The key has no bias, which the softmax would take away.

    Attributes:
        recurrence: R, how often the attention is applied (section 3.3: 2).
        reduction: of the channels of queries and keys; 8 in the authors' release.
        dtype: compute dtype.
    """

    recurrence: Count = 2
    reduction: Count = 8
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        inner = max(1, c // self.reduction)
        query = Conv(inner, 1, dtype=self.dtype, name="query")
        key = Conv(inner, 1, use_bias=False, dtype=self.dtype, name="key")
        value = Conv(c, 1, dtype=self.dtype, name="value")
        gamma = parameter(self, "gamma", nn.initializers.zeros_init(), ())
        for _ in range(self.recurrence):
            x = x + gamma.astype(x.dtype) * criss_cross(query(x), key(x), value(x))
        return x


class CCNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Children: "encoder", "reduce", "attention", "project", "fuse", "head", "aux".

    Attributes:
        num_classes: k.
        width: channels of the features that attend.
        recurrence: how often the attention is applied, with one set of parameters.
        reduction: of the channels of queries and keys.
        dropout: rate at which whole channels are dropped before the classifiers.
        aux_width: channels of the auxiliary head on the second coarsest level, 512 in the authors' release, with a
            loss weight of .4; None: no such head.
        encoder: an `EncoderFactory`; the paper's is ResNet-101 at output stride 8.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: Count = 512
    recurrence: Count = 2
    reduction: Count = 8
    dropout: Share = 0.1
    aux_width: int | None = 512
    encoder: EncoderFactory = encoders.factory("resnet101", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        pyramid = encoded(self, image, train=train)
        block = CrissCrossAttention(self.recurrence, self.reduction, self.common.dtype, name="attention")
        x = with_context(pyramid[-1], block, self.width, self.common, train=train)
        return classified(self, image, pyramid, x, train=train)
