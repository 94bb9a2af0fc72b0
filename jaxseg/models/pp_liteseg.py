"""PP-LiteSeg (Peng et al. 2022, "PP-LiteSeg: A Superior Real-Time Semantic Segmentation Model", arXiv 2204.02681).

A decoder with ever fewer channels towards the finer levels (section 3.1) takes up the features of STDC, from the summed
means over grids (section 3.3, Fig. 4) to stride 8; at each level an attention says how much of the coarse and of the
fine features counts (section 3.2, Fig. 3). As in the authors' code there is a fusion at the coarsest level too, each
fusion has an auxiliary head in training, and the classifiers' widths are theirs.

PP-LiteSeg-B is `encoder="stdc2"`, `widths=(64, 96, 128)`, `head_width=64`. The paper has no number of parameters: with
19 classes and without auxiliary heads there are 8.03 million in PP-LiteSeg-T and 12.23 in PP-LiteSeg-B, counted here.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.errors import ArgumentError, counted
from jaxseg.models import encoders
from jaxseg.models.assembly import auxiliary_heads, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, Layers, SummedPyramidPooling, global_avg_pool, max_along, resize
from jaxseg.nn.norm import uses_batch

Attention = Literal["spatial", "channel"]


class AttentionFusion(nn.Module):
    """(fine f[b,h,w,c], coarse f[b,y,x,d]) -> f[b,h,w,features]: the unified attention fusion module, UAFM (Fig. 3).

    α up + (1 - α) fine (equation 1), where up are the coarse features, enlarged, and fine the fine ones after a 3x3
    convolution to d channels ("fine"); a 3x3 convolution follows ("out"). α is the sigmoid of two convolutions
    ("attention1", "attention2") of the means and maxima of both: over the channels, for an α of each pixel ("spatial",
    equation 2), or over the pixels, for an α of each channel ("channel", equation 3).

    Attributes:
        features: channels of the result.
        attention: "spatial" or "channel".
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    attention: Attention = "spatial"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, fine: jax.Array, coarse: jax.Array, *, train: bool = False) -> jax.Array:
        common, d = self.common, coarse.shape[-1]
        fine = ConvNormAct(d, common=common, name="fine")(fine, train=train)
        up = resize(coarse, fine.shape[1:3])
        if self.attention == "spatial":
            seen = [f(x, -1) for x in (up, fine) for f in (_mean, max_along)]
            inner, outer, side = 2, 1, 3
        else:
            seen = [f(x) for x in (up, fine) for f in (global_avg_pool, _global_max)]
            inner, outer, side = max(1, d // 2), d, 1
        x = jnp.concatenate(seen, axis=-1)
        several = uses_batch(self, x, common.axis_name, train=train)
        x = ConvNormAct(inner, side, common=common, name="attention1")(x, train=several)
        x = ConvNormAct(outer, side, common=common.replace(act=None), name="attention2")(x, train=several)
        share = nn.sigmoid(x)
        return ConvNormAct(self.features, common=common, name="out")(share * up + (1 - share) * fine, train=train)


class PPLiteSeg(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w. The defaults are PP-LiteSeg-T (Table 1).

    Attributes:
        num_classes: k.
        widths: channels of each fusion, finest first; as many of the encoder's coarsest levels are fused.
        context_width: channels of the pyramid pooling.
        bins: sides of its grids.
        attention: "spatial" or "channel", see `AttentionFusion`; the paper's networks have the spatial one.
        head_width: channels of the convolution before the logits.
        aux_width: channels of the auxiliary heads on the other fusions, in training; the authors' code weighs them like
            the logits, an aux_weight of 1. None: no such heads.
        encoder: an `EncoderFactory`.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    widths: tuple[int, ...] = (32, 64, 128)
    context_width: int = 128
    bins: tuple[int, ...] = (1, 2, 4)
    attention: Attention = "spatial"
    head_width: int = 32
    aux_width: int | None = 64
    encoder: EncoderFactory = encoders.factory("stdc1")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        size, common = image.shape[1:3], self.common
        pyramid = make_encoder(self.encoder, common)(image, train=train)
        if not 1 <= len(self.widths) <= len(pyramid):
            raise ArgumentError(
                f"PPLiteSeg: widths {self.widths} must have a number for each level that is read, of an encoder of "
                f"{counted(len(pyramid), 'level')} from one to all."
            )
        pool = SummedPyramidPooling(self.context_width, self.bins, common=common, name="pool")
        x, fused = pool(pyramid[-1], train=train), []
        for i in reversed(range(len(self.widths))):
            level = pyramid[i - len(self.widths)]
            x = AttentionFusion(self.widths[i], self.attention, common=common, name=f"fuse{i}")(level, x, train=train)
            fused.insert(0, x)
        x = ConvNormAct(self.head_width, common=common, name="hidden")(x, train=train)
        logits = to_logits(x, self.num_classes, size, dtype=common.dtype)
        on = {f"aux{i}": y for i, y in enumerate(fused[1:], start=1)}
        aux = auxiliary_heads(self, on, size, self.aux_width, train=train)
        return logits, {"aux": aux, **name_stages(encoder=pyramid, decoder=fused)}


def _mean(x: jax.Array, axis: int) -> jax.Array:
    return jnp.mean(x, axis=axis, keepdims=True, dtype=jnp.float32).astype(x.dtype)


def _global_max(x: jax.Array) -> jax.Array:
    """f[b,h,w,c] -> f[b,1,1,c]."""
    return max_along(max_along(x, 2), 1)
