"""DANet (Fu, Liu, Tian, Li, Bao, Fang and Lu 2019, "Dual Attention Network for Scene Segmentation", arXiv 1809.02983).

Over the last features of a dilated encoder, one branch relates the pixels to each other and one the channels; their sum
is classified, and in training each branch too (section 4.1, multi-loss).
"""

from typing import Any, Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Count, Share
from jaxseg.models import encoders
from jaxseg.models.assembly import name_stages, to_logits
from jaxseg.models.context_head import attend, encoded
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, ConvNormAct, Dropout, Layers, parameter
from jaxseg.nn.ops.product import product

Affinity = Literal["opposite", "product"]


class PositionAttention(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: E_j = α Σ_i s_ji D_i + A_j, s_ji = softmax_i(B_i · C_j) (Fu 2019, eqs. 1 and 2).

    Children: "key" (B) and "query" (C) of c / reduction channels, "value" (D); B has no bias, which the softmax would
    take away. "alpha" f32[] starts at zero.

    Attributes:
        reduction: of the channels of queries and keys; 8 in the authors' release.
        dtype: compute dtype; the softmax is float32.
    """

    reduction: Count = 8
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        inner = max(1, c // self.reduction)
        query = Conv(inner, 1, dtype=self.dtype, name="query")(x)
        key = Conv(inner, 1, use_bias=False, dtype=self.dtype, name="key")(x)
        value = Conv(c, 1, dtype=self.dtype, name="value")(x)
        alpha = parameter(self, "alpha", nn.initializers.zeros_init(), ())
        return x + alpha.astype(x.dtype) * attend(query, key, value)


class ChannelAttention(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: E_j = β Σ_i x_ji A_i + A_j over channels i (Fu 2019, eqs. 3 and 4).

    x_ji = softmax_i(A_i · A_j) with the sum of products over all pixels. "beta" f32[] starts at zero. The products are
    large, so that the weights are close to one or zero.

    Attributes:
        affinity: "product", the paper's equation 3; or "opposite", the softmax of -A_i · A_j, with which the authors'
            release attends to the channels that are least alike.
    """

    affinity: Affinity = "opposite"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        tokens = x.reshape(b, h * w, c)
        energy = product("bti,btj->bji", tokens, tokens)
        weights = jax.nn.softmax(energy if self.affinity == "product" else -energy, axis=-1).astype(x.dtype)
        y = product("bti,bji->btj", tokens, weights).astype(x.dtype).reshape(b, h, w, c)
        beta = parameter(self, "beta", nn.initializers.zeros_init(), ())
        return x + beta.astype(x.dtype) * y


class DANet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    The auxiliary logits are those of the two branches, position first, each with a loss weight of 1 in the authors'
    release. Children: "encoder"; "position_reduce", "position", "position_project" and "position_head"; the same of
    "channel"; "head".

    Attributes:
        num_classes: k.
        width: channels of each branch; None: a quarter of the encoder's last channels, as in the authors' release.
        reduction: of the channels of queries and keys in the position attention.
        affinity: of the channel attention, see `ChannelAttention`.
        dropout: rate at which whole channels are dropped before each classifier.
        encoder: an `EncoderFactory`; the paper's is ResNet-50 or ResNet-101 at output stride 8.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int | None = None
    reduction: Count = 8
    affinity: Affinity = "opposite"
    dropout: Share = 0.1
    encoder: EncoderFactory = encoders.factory("resnet101", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        pyramid, common, size = encoded(self, image, train=train), self.common, image.shape[1:3]
        width = self.width or max(1, pyramid[-1].shape[-1] // 4)
        blocks = {
            "position": PositionAttention(self.reduction, common.dtype, name="position"),
            "channel": ChannelAttention(self.affinity, name="channel"),
        }

        def scores(x: jax.Array, prefix: str = "") -> jax.Array:
            dropout = Dropout(self.dropout, axis_name=common.axis_name, spatial=True, name=f"{prefix}dropout")
            dropped = dropout(x, train=train)
            return to_logits(dropped, self.num_classes, size, dtype=common.dtype, name=f"{prefix}head")

        branches = []
        for name, block in blocks.items():
            x = ConvNormAct(width, common=common, name=f"{name}_reduce")(pyramid[-1], train=train)
            branches.append(ConvNormAct(width, common=common, name=f"{name}_project")(block(x), train=train))
        total = branches[0] + branches[1]
        logits = scores(total)
        wanted = train or self.is_initializing()
        aux = tuple(scores(x, f"{name}_") for name, x in zip(blocks, branches, strict=True)) if wanted else ()
        return logits, {"aux": aux, **name_stages(encoder=pyramid, decoder=(total,))}
