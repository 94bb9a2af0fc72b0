"""PIDNet (Xu, Xiong and Bhattacharyya 2023, "PIDNet: A Real-Time Semantic Segmentation Network Inspired by PID
Controllers", arXiv 2206.02066).

Three branches share two stages (Fig. 3, Table 2): details at stride 8 (P), context down to stride 64 (I), and
boundaries at stride 8 (D). The detail branch takes from the context what resembles it (Pag, Fig. 4); at the end the
boundaries say where details and where context count (Bag, Fig. 7). In training there is an auxiliary head on the detail
branch; the head of the boundary branch is for `jaxseg.losses.boundary_awareness`.

With 19 classes and without these two heads, PIDNet-S and -L (`width=64`, `blocks=3`, `deep_blocks=4`, `pool_width=112`,
`head_width=256`, `light=False`) have the paper's 7.6 and 36.9 million parameters. PIDNet-M (`width=64`) has the 28.5
million of the authors' code.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models.assembly import name_stages, to_logits
from jaxseg.models.ddrnet import PreActHidden, ResidualStage
from jaxseg.nn import DAPPM, ConvNormAct, Layers, NormActConv, resize


class PixelAttention(nn.Module):
    """(detail f[b,h,w,c], context f[b,y,x,c]) -> f[b,h,w,c]: pixel-attention-guided fusion, Pag (Fig. 4, equation 1).

    σ context + (1 - σ) detail, where σ is the sigmoid of the product of both in `features` channels. Children: "detail"
    and "context" (1x1 convolutions with a norm).
    """

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, detail: jax.Array, context: jax.Array, *, train: bool = False) -> jax.Array:
        linear, size = self.common.replace(act=None), detail.shape[1:3]
        key = ConvNormAct(self.features, 1, common=linear, name="detail")(detail, train=train)
        query = ConvNormAct(self.features, 1, common=linear, name="context")(context, train=train)
        alike = jnp.sum((key * resize(query, size)).astype(jnp.float32), axis=-1, keepdims=True)
        share = nn.sigmoid(alike).astype(detail.dtype)
        return (1 - share) * detail + share * resize(context, size)


class BoundaryAttention(nn.Module):
    """(detail, context, boundary) f[b,h,w,c] -> f[b,h,w,c]: boundary-attention-guided fusion (Fig. 7).

    With σ, the sigmoid of the boundary features: `light`, Light-Bag, the sum of 1x1 convolutions of detail + (1 - σ)
    context ("detail") and of context + σ detail ("context"); else Bag, a 3x3 convolution of σ detail + (1 - σ) context
    ("fuse").
    """

    light: bool = True
    common: Layers = Layers()

    @nn.compact
    def __call__(self, detail: jax.Array, context: jax.Array, boundary: jax.Array, *, train: bool = False) -> jax.Array:
        linear, c, share = self.common.replace(act=None), detail.shape[-1], nn.sigmoid(boundary)
        if not self.light:
            return NormActConv(c, common=self.common, name="fuse")(share * detail + (1 - share) * context, train=train)
        x = ConvNormAct(c, 1, common=linear, name="detail")(detail + (1 - share) * context, train=train)
        return x + ConvNormAct(c, 1, common=linear, name="context")(context + share * detail, train=train)


class PIDNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    `out["boundary"]` is (logits f32[b,h,w,k], boundary f32[b,h,w,1]), which the loss term `boundary_awareness` reads:
    the logits, and those of a pixel being near a boundary.

    Attributes:
        num_classes: k.
        width: channels of the stem.
        blocks: residual blocks of the shared stages and of the detail branch.
        deep_blocks: residual blocks of the further stages of the context branch.
        pool_width: channels of each scale of the pooling.
        head_width: channels of the convolution before the logits.
        light: the parallel pooling, the light fusion and the narrow boundary branch of PIDNet-S and -M, instead of
            those of -L.
        aux: an auxiliary head on the detail branch, in training, with a loss weight of .4 in the paper (section 3.4).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 32
    blocks: int = 2
    deep_blocks: int = 3
    pool_width: int = 96
    head_width: int = 128
    light: bool = True
    aux: bool = True
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        common, w, size = self.common, self.width, image.shape[1:3]
        act, linear = common.activate, common.replace(act=None)

        def stage(x: jax.Array, features: int, name: str, **fields: Any) -> jax.Array:
            return ResidualStage(features, **fields, common=common, name=name)(x, train=train)

        def linear_conv(x: jax.Array, features: int, side: int, name: str) -> jax.Array:
            return ConvNormAct(features, side, common=linear, name=name)(x, train=train)

        def scores(x: jax.Array, hidden: int, k: int, name: str, *, final: bool = True) -> jax.Array:
            before = "hidden" if name == "head" else f"{name}_hidden"
            x = PreActHidden(hidden, common=common, name=before)(x, train=train)
            return to_logits(x, k, size, dtype=common.dtype, final=final, name=name)

        x = ConvNormAct(w, stride=2, common=common, name="stem1")(image, train=train)
        x = ConvNormAct(w, stride=2, common=common, name="stem2")(x, train=train)
        x = act(stage(x, w, "stage1", blocks=self.blocks))
        shared = act(stage(x, 2 * w, "stage2", blocks=self.blocks, stride=2))
        detail = stage(shared, 2 * w, "detail3", blocks=self.blocks)
        edge = stage(shared, w if self.light else 2 * w, "boundary3")
        context3 = act(stage(shared, 4 * w, "context3", blocks=self.deep_blocks, stride=2))
        compressed = linear_conv(context3, 2 * w, 1, "compress3")
        detail3 = PixelAttention(w, common=common, name="attention3")(detail, compressed, train=train)
        edge = edge + resize(linear_conv(context3, edge.shape[-1], 3, "difference3"), edge.shape[1:3])
        context4 = act(stage(context3, 8 * w, "context4", blocks=self.deep_blocks, stride=2))
        detail = stage(detail3, 2 * w, "detail4", blocks=self.blocks, first_act=True)
        edge = stage(edge, 2 * w, "boundary4", bottleneck=self.light, first_act=True)
        compressed = linear_conv(context4, 2 * w, 1, "compress4")
        detail = PixelAttention(w, common=common, name="attention4")(detail, compressed, train=train)
        edge4 = edge + resize(linear_conv(context4, 2 * w, 3, "difference4"), edge.shape[1:3])
        detail = stage(detail, 4 * w, "detail5", bottleneck=True, first_act=True)
        edge = stage(edge4, 4 * w, "boundary5", bottleneck=True, first_act=True)
        deepest = {"blocks": 2, "stride": 2, "bottleneck": True, "linear_first": True}  # as in the authors' code
        context = stage(context4, 16 * w, "context5", **deepest)
        pool = DAPPM(4 * w, self.pool_width, self.light, common=common, name="pool")(context, train=train)
        fuse = BoundaryAttention(self.light, common=common, name="fuse")
        joined = fuse(detail, resize(pool, detail.shape[1:3]), edge, train=train)
        logits = scores(joined, self.head_width, self.num_classes, "head")
        boundary = scores(edge4, w, 1, "boundary", final=False)
        aux: tuple[jax.Array, ...] = ()
        if self.aux and (train or self.is_initializing()):
            aux = (scores(detail3, self.head_width, self.num_classes, "aux"),)
        stages = name_stages(encoder=(shared, context3, context4, context), decoder=(joined,))
        return logits, {"aux": aux, "boundary": (logits, boundary), **stages}
