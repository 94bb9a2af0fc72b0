"""MA-Net (Fan, Wang, Li and Zhu 2020, "MA-Net: A Multi-Scale Attention Network for Liver and Tumor Segmentation").

A U-shaped decoder over any encoder. At its bottom, position-wise attention relates all pixels of the coarsest level; in
each of its stages, multi-scale fusion attention weighs the channels of the two features that are concatenated by
squeeze-and-excitation gates of both.

The form of segmentation_models_pytorch's `MAnet` is the default with `attention="all"` (and `full_skip=False` where the
encoder is a VGG).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models import encoders
from jaxseg.models.assembly import check_widths, decoder_levels, make_encoder, name_stages, to_logits, walk_up
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.encoders.plain import conv_layers
from jaxseg.nn import Conv, ConvNormAct, Layers, global_avg_pool, join_upsampled, resize
from jaxseg.nn.ops.product import product

Attention = Literal["rows", "all"]


class PositionAttention(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: attention over the t = h w pixels, added to the input, and a 3x3 convolution.

    Children: "query" and "key" (1x1 convolutions), "value" (3x3), "out" (3x3).

    Attributes:
        features: channels of queries and keys.
        attention: "rows": a softmax over the keys of each query. "all", segmentation_models_pytorch's: one softmax over
            all pairs of pixels, whose result [t,c] is read as an array [c,h,w], in the order of memory.
        dtype: compute dtype; the scores and their softmax are float32.
    """

    features: int = 64
    attention: Attention = "rows"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        query, key = (Conv(self.features, 1, dtype=self.dtype, name=name)(x) for name in ("query", "key"))
        value = Conv(c, dtype=self.dtype, name="value")(x).reshape(b, h * w, c)
        query, key = (y.reshape(b, h * w, self.features) for y in (query, key))
        scores = product("bqc,bkc->bqk", query, key)
        weights = jax.nn.softmax(scores, axis=-1 if self.attention == "rows" else (1, 2)).astype(value.dtype)
        y = jnp.einsum("bqk,bkc->bqc", weights, value)
        y = y.reshape(b, h, w, c) if self.attention == "rows" else y.reshape(b, c, h, w).transpose(0, 2, 3, 1)
        return Conv(c, dtype=self.dtype, name="out")(x + y)


class ChannelGate(nn.Module):
    """f[b,h,w,c] -> f[b,1,1,c]: the gates of squeeze-and-excitation alone. Children: "reduce", "expand"."""

    reduction: int = 16
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        y = Conv(max(1, c // self.reduction), 1, dtype=self.dtype, name="reduce")(global_avg_pool(x))
        return nn.sigmoid(Conv(c, 1, dtype=self.dtype, name="expand")(nn.relu(y)))


class FusionStage(nn.Module):
    """(f[b,h,w,c], skip f[b,H,W,s]) -> f[b,H,W,features]: multi-scale fusion attention.

    The coarse features pass a 3x3 and a 1x1 convolution to the skip's channels and are enlarged; the gates of both are
    added and multiply them; the skip is concatenated, and two 3x3 convolutions follow. A skip without channels only
    gives the size. Children: "high1", "high2", "gate_high", "gate_low" (with a skip), "conv1", "conv2".
    """

    features: int
    reduction: int = 16
    up: Literal["nearest", "bilinear"] = "nearest"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        channels, size = skip.shape[-1], skip.shape[1:3]
        if not channels:
            joined = join_upsampled(x, skip, self.up)
            return conv_layers(joined, self.features, 2, "same", self.common, train=train)
        x = ConvNormAct(x.shape[-1], common=self.common, name="high1")(x, train=train)
        x = ConvNormAct(channels, 1, common=self.common, name="high2")(x, train=train)
        gates = [
            ChannelGate(self.reduction, self.common.dtype, name=name)(y)
            for name, y in (("gate_high", resize(x, size, self.up)), ("gate_low", skip))
        ]
        joined = join_upsampled(x * (gates[0] + gates[1]).astype(x.dtype), skip, self.up)
        return conv_layers(joined, self.features, 2, "same", self.common, train=train)


class MANet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        widths: channels of the decoder's levels, finest first; with `full_resolution` those finer than the encoder's
            come first.
        attention_width: channels of the queries and keys of the position-wise attention.
        attention: of the position-wise attention, see `PositionAttention`.
        reduction: by how much the gates reduce the channels.
        up: how the decoder's features are enlarged.
        full_resolution: whether the decoder continues to the image's resolution over an encoder that starts at a stride
            of 2 or more, in stages without a skip and without gates.
        full_skip: whether features of stride 1 are used as a skip, if the encoder has them.
        head_kernel: side of the last convolution's kernel.
        encoder: an `EncoderFactory`.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    attention_width: int = 64
    attention: Attention = "rows"
    reduction: int = 16
    up: Literal["nearest", "bilinear"] = "nearest"
    full_resolution: bool = True
    full_skip: bool = True
    head_kernel: Literal[1, 3] = 3
    encoder: EncoderFactory = encoders.factory("resnet34")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        size = image.shape[1:3]
        pyramid = encoder(image, train=train)
        skips, strides, added = decoder_levels(
            pyramid, encoder.strides, size, full_resolution=self.full_resolution, full_skip=self.full_skip
        )
        check_widths("MANet", self.widths, len(skips))
        attention = PositionAttention(self.attention_width, self.attention, self.common.dtype, name="attention")
        skips = (*skips[:-1], attention(skips[-1]))
        decoded = _Decoder(self.widths, self.reduction, self.up, added, common=self.common, name="decoder")(
            skips, train=train
        )
        top = decoded[0] if decoded else skips[0]
        whole = top.shape[1:3] if strides[0] == 1 else size
        logits = to_logits(top, self.num_classes, whole, size, kernel_size=self.head_kernel, dtype=self.common.dtype)
        full = {f"decoder/full{i}": x for i, x in enumerate(decoded[:added])}
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded[added:]), **full}


class _Decoder(nn.Module):
    """Pyramid (finest first) -> decoder features, one level fewer. Children: "full0", ..., "stage0", ..."""

    widths: tuple[int, ...]
    reduction: int
    up: Literal["nearest", "bilinear"]
    added: int
    common: Layers

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool) -> tuple[jax.Array, ...]:
        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            name = f"full{i}" if i < self.added else f"stage{i - self.added}"
            return FusionStage(self.widths[i], self.reduction, self.up, common=self.common, name=name)(
                x, skip, train=train
            )

        return walk_up(stage, pyramid)
