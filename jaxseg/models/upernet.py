"""UPerNet (Xiao, Liu, Zhou, Jiang and Sun 2018, "Unified Perceptual Parsing for Scene Understanding", 1807.10221).

The part of the paper that parses scenes: pyramid pooling on the coarsest level, a feature pyramid over all levels, and
a convolution over the concatenated levels (section 3.2, Fig. 4). Widths, and the auxiliary head on the second coarsest
level, are those of the common implementations (mmsegmentation, transformers).

The form of segmentation_models_pytorch's `UPerNet` is `norm_features=True`, `align_corners=True`, `width=256`,
`aux_width=None`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import auxiliary_logits, coarse_levels, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, Dropout, LayerNorm, Layers, PyramidPooling, resize


class UPerDecoder(nn.Module):
    """Pyramid -> (f[b,y,x,features] of the finest level's size, pyramid of `features` channels), finest first.

    Children: "pyramid" and "bottleneck" on the coarsest level, "lateral{i}" and "smooth{i}" for each other level,
    "fuse", and "norm{i}" with `norm_features`.
    """

    features: int
    bins: tuple[int, ...] = (1, 2, 3, 6)
    norm_features: bool = False
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: Sequence[jax.Array], *, train: bool = False) -> tuple[jax.Array, tuple[jax.Array, ...]]:

        def block(name: str, x: jax.Array, kernel_size: int = 3) -> jax.Array:
            return ConvNormAct(self.features, kernel_size, common=self.common, name=name)(x, train=train)

        if self.norm_features:
            pyramid = [LayerNorm(self.common.dtype, 1e-6, name=f"norm{i}")(x) for i, x in enumerate(pyramid)]
        pooled = PyramidPooling(self.features, self.bins, common=self.common, name="pyramid")(pyramid[-1], train=train)
        sums = [block("bottleneck", pooled)]
        for i in reversed(range(len(pyramid) - 1)):
            sums.insert(0, block(f"lateral{i}", pyramid[i], 1) + resize(sums[0], pyramid[i].shape[1:3]))
        levels = [*(block(f"smooth{i}", x) for i, x in enumerate(sums[:-1])), sums[-1]]
        together = jnp.concatenate([resize(x, levels[0].shape[1:3]) for x in levels], axis=-1)
        return block("fuse", together), tuple(levels)


class UPerNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w: the sizes of the levels are the encoder's own.

    Attributes:
        num_classes: k.
        width: channels of the feature pyramid and after the fusion.
        bins: sides of the grids of the pyramid pooling.
        finest: the smallest stride whose level takes part.
        norm_features: whether each level of the encoder passes a layer norm.
        align_corners: of the last up-sampling, to the image's size.
        dropout: rate at which channels are dropped before the logits, also in the auxiliary head.
        aux_width: channels of the auxiliary head on the second coarsest level, usually with a loss weight of .4; None:
            no head.
        encoder: an `EncoderFactory`; the paper's is ResNet-50.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 512
    bins: tuple[int, ...] = (1, 2, 3, 6)
    finest: int = 4
    norm_features: bool = False
    align_corners: bool = False
    dropout: Share = 0.0
    aux_width: int | None = 256
    encoder: EncoderFactory = encoders.factory("resnet50")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        size = image.shape[1:3]
        pyramid = encoder(image, train=train)
        taken, _ = coarse_levels("UPerNet", pyramid, encoder.strides, self.finest)
        x, levels = UPerDecoder(self.width, self.bins, self.norm_features, common=self.common, name="decoder")(
            taken, train=train
        )
        dropped = Dropout(self.dropout, axis_name=self.common.axis_name, spatial=True, name="dropout")(x, train=train)
        logits = to_logits(dropped, self.num_classes, size, align_corners=self.align_corners, dtype=self.common.dtype)
        aux = auxiliary_logits(self, taken, size, self.aux_width, self.dropout, train=train)
        return logits, {"aux": aux, **name_stages(encoder=pyramid, decoder=levels), "decoder/fused": x}
