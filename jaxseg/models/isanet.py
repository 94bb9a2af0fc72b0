"""ISANet (Huang, Yuan, Guo, Zhang, Chen and Wang 2019, "Interlaced Sparse Self-Attention for Semantic Segmentation").

Attention between all pixels is split into two sparse ones (arXiv 1907.12273, section 3.2): first each pixel attends to
those at multiples of P rows and columns from it (long range), then to those of its block of P x P pixels (short range).
So every pixel is reached from every other with h w (h w / P² + P²) weights in place of (h w)².

The image's features are extended at the bottom and right to whole blocks; pixels beyond the image are no keys. Widths
and norms are those of the authors' release.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Count, Share
from jaxseg.models import encoders
from jaxseg.models.context_head import classified, encoded
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, ConvNormAct, Layers
from jaxseg.nn.ops.dot_product import NEVER
from jaxseg.nn.ops.product import product
from jaxseg.nn.ops.sizes import Side

Distance = Literal["long", "short"]


def grouped_attention(query: jax.Array, key: jax.Array, value: jax.Array, block: int, distance: Distance) -> jax.Array:
    """Attention within groups of pixels, softmax(q kᵀ / √d) v: f[b,h,w,d], f[b,h,w,d], f[b,h,w,c] -> f[b,h,w,c].

    The softmax is float32.

    Args:
        query: f[b,h,w,d].
        key: f[b,h,w,d].
        value: f[b,h,w,c].
        block: P, side of the blocks.
        distance: "short", a group is a block; "long", a group is the pixels of one place in all blocks.
    """
    b, h, w, d = query.shape
    rows, columns = -(-h // block), -(-w // block)

    def split(x: jax.Array) -> jax.Array:
        """f[b,h,w,c] -> f[b,rows,block,columns,block,c]."""
        x = jnp.pad(x, ((0, 0), (0, rows * block - h), (0, columns * block - w), (0, 0)))
        return x.reshape(b, rows, block, columns, block, x.shape[-1])

    # In the patterns r and s count the blocks, p and q the pixels in a block; capitals are those of the keys.
    down, across = _inside(h, rows, block), _inside(w, columns, block)
    if distance == "long":
        scores, result, down, across = "brpsqd,bRpSqd->bpqrsRS", "bpqrsRS,bRpSqc->brpsqc", down.T, across.T
    else:
        scores, result = "brpsqd,brPsQd->brspqPQ", "brspqPQ,brPsQc->brpsqc"
    weights = product(scores, split(query), split(key)) * d**-0.5
    inside = down[:, None, None, None, :, None] & across[None, :, None, None, None]
    weights = jax.nn.softmax(jnp.where(inside[None], weights, NEVER), axis=(-2, -1)).astype(value.dtype)
    y = product(result, weights, split(value)).astype(value.dtype)
    return y.reshape(b, rows * block, columns * block, value.shape[-1])[:, :h, :w]


def _inside(size: Side, count: Side, block: int) -> jax.Array:
    """bool[count,block], whether a row (or column) of a block lies in the image."""
    return (jnp.arange(count)[:, None] * block + jnp.arange(block)[None]) < size


class GroupedAttention(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: `grouped_attention` with its projections (Huang 2019, section 3.2).

    Children: "query1", "query2", "key1" and "key2" (1x1 convolutions with norm and activation), "value", "out".

    Attributes:
        distance: "long" or "short".
        width: channels of queries and keys.
        block: side of the blocks.
        common: norm, activation and dtype.
    """

    distance: Distance
    width: Count = 256
    block: Count = 8
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        def projected(name: str) -> jax.Array:
            y = ConvNormAct(self.width, 1, common=self.common, name=f"{name}1")(x, train=train)
            return ConvNormAct(self.width, 1, common=self.common, name=f"{name}2")(y, train=train)

        value = Conv(x.shape[-1], 1, dtype=self.common.dtype, name="value")(x)
        y = grouped_attention(projected("query"), projected("key"), value, self.block, self.distance)
        return ConvNormAct(x.shape[-1], 1, common=self.common, name="out")(y, train=train)


class ISANet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Children: "encoder", "reduce" (3x3), "long", "short", "fuse" (1x1), "head", "aux".

    Attributes:
        num_classes: k.
        width: channels of the features that attend.
        key_width: channels of queries and keys.
        block: P, side of the blocks of the short-range attention, and the distance between the pixels of the long-range
            one; 8 in the paper.
        dropout: rate at which whole channels are dropped before the classifiers.
        aux_width: channels of the auxiliary head on the second coarsest level, with a loss weight of .4; None: no such
            head.
        encoder: an `EncoderFactory`; the paper's is ResNet-101 at output stride 8.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: Count = 512
    key_width: Count = 256
    block: Count = 8
    dropout: Share = 0.1
    aux_width: int | None = 512
    encoder: EncoderFactory = encoders.factory("resnet101", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        pyramid, common = encoded(self, image, train=train), self.common
        x = ConvNormAct(self.width, common=common, name="reduce")(pyramid[-1], train=train)
        y = GroupedAttention("long", self.key_width, self.block, common, name="long")(x, train=train)
        y = GroupedAttention("short", self.key_width, self.block, common, name="short")(y, train=train)
        x = ConvNormAct(self.width, 1, common=common, name="fuse")(jnp.concatenate([y, x], axis=-1), train=train)
        return classified(self, image, pyramid, x, train=train)
