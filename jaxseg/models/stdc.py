"""STDC-Seg (Fan et al. 2021, "Rethinking BiSeNet For Real-time Semantic Segmentation", arXiv 2104.13188).

BiSeNet with one path: the encoder's features of stride 8 are the details, and a context path over its coarser ones
joins them (section 3.2, Fig. 4). In training a head on the features of stride 8 learns where details are
(`jaxseg.losses.detail`), so that no second path has to keep them, and both steps of the context path have auxiliary
heads. Widths are those of the authors' code.

The paper has no number of parameters of the whole networks. With 19 classes and without the heads of training there are
8.28 million in STDC1-Seg and 12.31 in STDC2-Seg (`encoder="stdc2"`), counted here.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.errors import ArgumentError, counted
from jaxseg.models import encoders
from jaxseg.models.assembly import auxiliary_heads, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ContextPath, ConvNormAct, GatedFusion, Layers


class STDCSeg(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    `out["detail"]` is (logits f32[b,h,w,k], details f32[b,h,w,1]), which the loss term `detail` reads: the logits, and
    those of a pixel being a detail.

    Attributes:
        num_classes: k.
        context_width: channels of the context path.
        width: channels of the fusion and of the classifier.
        detail_width: channels of the head of details.
        aux_width: channels of the auxiliary heads on both steps of the context path, in training; the authors' code
            weighs them like the logits, an aux_weight of 1. None: no such heads.
        encoder: an `EncoderFactory`; its three coarsest levels are read.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    context_width: int = 128
    width: int = 256
    detail_width: int = 64
    aux_width: int | None = 64
    encoder: EncoderFactory = encoders.factory("stdc1")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        size, common = image.shape[1:3], self.common
        pyramid = make_encoder(self.encoder, common)(image, train=train)
        if len(pyramid) < 3:
            raise ArgumentError(f"STDCSeg reads three levels of its encoder, got {counted(len(pyramid), 'level')}.")
        fine, middle, coarse = pyramid[-3:]
        path = ContextPath(self.context_width, "nearest", common=common, name="context")
        context, step = path(middle, coarse, fine.shape[1:3], train=train)
        fused = GatedFusion(self.width, 4, common=common, name="fuse")(fine, context, train=train)

        def scores(x: jax.Array, width: int, k: int, name: str, *, final: bool = True) -> jax.Array:
            hidden = "hidden" if name == "head" else f"{name}_hidden"
            x = ConvNormAct(width, common=common, name=hidden)(x, train=train)
            return to_logits(x, k, size, dtype=common.dtype, final=final, name=name)

        logits = scores(fused, self.width, self.num_classes, "head")
        detail = scores(fine, self.detail_width, 1, "detail", final=False)
        on = {"aux0": context, "aux1": step}
        aux = auxiliary_heads(self, on, size, self.aux_width, train=train)
        stages = name_stages(encoder=pyramid, decoder=(fused, step))
        return logits, {"aux": aux, "detail": (logits, detail), **stages}
