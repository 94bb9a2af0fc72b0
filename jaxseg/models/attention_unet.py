"""Attention U-Net (Oktay et al. 2018, "Attention U-Net: Learning Where to Look for the Pancreas").

A U-Net with gated skips: before the concatenation, each pixel of a skip is multiplied by a weight that depends on the
coarser decoder level (equations 1-2, Fig. 1 and 2; `jaxseg.nn.AttentionGate`). The paper has no gate on the finest
skip, which represents the input in a space of low dimension (section 2.2); `gate_finest` adds one. The convolutions and
up-convolutions around the gates are those of our U-Net, in two dimensions.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import check_widths, make_encoder, name_stages, to_logits, walk_up
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.encoders.plain import PlainEncoder
from jaxseg.models.unet import UNetStage
from jaxseg.nn import AttentionGate, Layers, pad_to_multiple

Supervision = Literal["aux", "fused", "none"]


class GatedDecoder(nn.Module):
    """Pyramid (features finest first) -> (decoder features, {"gate/stage{i}": f[b,h_i,w_i,1]}), finest first.

    The decoder features are one level fewer than the pyramid. Children: "gate{i}", "stage{i}".

    Attributes:
        widths: channels of each level of the result, finest first.
        strides: those of the pyramid, one more than widths.
        convs, gate_finest: as in `AttentionUNet`.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    convs: int = 2
    gate_finest: bool = False
    common: Layers = Layers()

    @nn.compact
    def __call__(
        self, pyramid: tuple[jax.Array, ...], *, train: bool = False
    ) -> tuple[tuple[jax.Array, ...], dict[str, jax.Array]]:
        gates = {}

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            if i > 0 or self.gate_finest:
                skip, gates[f"gate/stage{i}"] = AttentionGate(common=self.common, name=f"gate{i}")(skip, x)
            factor = self.strides[i + 1] // self.strides[i]
            return UNetStage(self.widths[i], factor, self.convs, common=self.common, name=f"stage{i}")(
                x, skip, train=train
            )

        return walk_up(stage, pyramid), gates


class AttentionUNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w. `out["gate/stage{i}"]` f[b,h_i,w_i,1] is the gate of skip i.

    Attributes:
        num_classes: k.
        widths: channels of each level, finest first; the last is the bottom of the U.
        convs: 3x3 convolutions of each level, on either path.
        gate_finest: gates the finest skip too.
        deep_supervision: how the coarser decoder levels learn to predict classes (section 2.2, after Lee et al. 2015,
            "Deeply-Supervised Nets"). "aux": each has its own 1x1 classifier and loss, with the weight of the auxiliary
            heads. "fused": the form of the authors' release: the classifiers' scores of all levels are concatenated at
            the image's size and mixed by a 1x1 convolution. "none": neither.
        dropout: rate of the dropout that ends the two deepest stages of the own encoder, as in U-Net's; another encoder
            has its own field, if any.
        encoder: another encoder under the same decoder (an `EncoderFactory`); None: U-Net's contracting path. With
            another encoder, `widths` are those of the decoder's levels, finest first, one fewer than the encoder's.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    convs: int = 2
    gate_finest: bool = False
    deep_supervision: Supervision = "aux"
    dropout: Share = 0.0
    encoder: EncoderFactory | None = None
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(
            self.encoder or functools.partial(PlainEncoder, self.widths, self.convs, self.dropout), self.common
        )
        levels = len(encoder.strides)
        check_widths("AttentionUNet", self.widths, levels)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        decoded, gates = GatedDecoder(
            self.widths[: levels - 1], encoder.strides, self.convs, self.gate_finest, common=self.common, name="decoder"
        )(pyramid, train=train)

        def classify(
            feature: jax.Array, name: str, crop: tuple[int, ...] | None = None, final: bool = True
        ) -> jax.Array:
            return to_logits(
                feature, self.num_classes, x.shape[1:3], crop, dtype=self.common.dtype, final=final, name=name
            )

        tops = decoded or pyramid
        aux: tuple[jax.Array, ...] = ()
        if self.deep_supervision == "fused":
            scores = [classify(feature, f"head{i}", final=False) for i, feature in enumerate(tops)]
            logits = classify(jnp.concatenate(scores, axis=-1), "head", size)
        else:
            logits = classify(tops[0], "head", size)
        if self.deep_supervision == "aux" and (train or self.is_initializing()):
            aux = tuple(classify(feature, f"aux{i}", size) for i, feature in enumerate(tops) if i > 0)
        return logits, {"aux": aux, **name_stages(encoder=pyramid, decoder=decoded), **gates}
