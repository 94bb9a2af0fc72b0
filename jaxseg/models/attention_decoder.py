"""An encoder-decoder whose decoder attends to itself.

The decoder applies one kind of stage recursively, from the coarsest feature E_n up: x_n = E_n and
    x_i = act(norm(conv(attend(concat(up(x_{i+1}), E_i))))),
where attend is multi-head self-attention over the h·w positions of the map (Vaswani et al. 2017, "Attention Is All You
Need", equation 1 and section 3.2.2) in residual form, z = x + attention(norm(x)) (Wang et al. 2018, "Non-local Neural
Networks", equation 6). Its last projection starts at zero, so that before training a stage computes what it would
without attention (their section 3.3). The model returns logits; the loss applies the softmax over classes.
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
from jaxseg.nn import (
    AttentionGate,
    ConvNormAct,
    Layers,
    SelfAttention2D,
    avg_pool,
    pad_to_multiple,
    resize,
    resize_windows,
)

Position = Literal["sincos", "learned", "none"]
Kind = Literal["self", "gate"]


class AttentionStage(nn.Module):
    """(f[b,h,w,c], skip f[b,H,W,s]) -> f[b,H,W,features]: up-sample, concatenate, self-attention, conv, activation.

    The cost of attention is quadratic in the number of positions. A map of more than max_tokens positions is averaged
    over squares, whose side is the smallest power of two that leaves at most max_tokens, and the result of attention is
    interpolated back between their centres (the sub-sampling of Wang et al. 2018, section 3.3, here for queries too).
    This bounds the memory for any image. With kind="gate", a gate weights the skip before the concatenation instead
    (Oktay et al. 2018).
    """

    features: int
    num_heads: int = 4
    position: Position = "sincos"
    max_tokens: int = 1024
    attention: bool = True
    kind: Kind = "self"
    sow_attention: bool = False
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        if self.attention and self.kind == "gate":
            skip, _ = AttentionGate(common=self.common, name="gate")(skip, x)
        x = jnp.concatenate([resize(x, skip.shape[1:3]), skip], axis=-1)
        if self.attention and self.kind == "self":
            h, w = x.shape[1:3]
            factor = pooling_factor(h, w, self.max_tokens)
            y = self.common.normalise(x, "attention_norm", train=train)
            y = y if factor == 1 else avg_pool(y, factor, ceil_mode=True)
            y = SelfAttention2D(
                num_heads=self.num_heads,
                qkv_features=self.features,
                position=self.position,
                dtype=self.common.dtype,
                sow_weights=self.sow_attention,
                out_init=jax.nn.initializers.zeros,
                name="attention",
            )(y)
            x = x + (y if factor == 1 else resize_windows(y, (h, w), factor))
        return ConvNormAct(self.features, common=self.common, name="conv")(x, train=train)


class RecursiveDecoder(nn.Module):
    """Pyramid (features finest first) -> decoder features finest first, one level fewer; see the module.

    Attributes:
        widths: channels of each level of the result, finest first.
        num_heads, position, max_tokens, attention, kind, levels, sow_attention: as in `AttentionDecoder`.
    """

    widths: tuple[int, ...]
    num_heads: int = 4
    position: Position = "sincos"
    max_tokens: int = 1024
    attention: bool = True
    kind: Kind = "self"
    levels: int | None = None
    sow_attention: bool = False
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:
        stages = len(pyramid) - 1

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            block = AttentionStage(
                self.widths[i],
                self.num_heads,
                self.position,
                self.max_tokens,
                self.attention and i >= stages - (self.levels or stages),
                self.kind,
                self.sow_attention,
                common=self.common,
                name=f"stage{i}",
            )
            return block(x, skip, train=train)

        return walk_up(stage, pyramid)


class AttentionDecoder(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        widths: channels of each level, finest first, on either path.
        convs: 3x3 convolutions of each encoder level.
        num_heads: attention heads; must divide every width of the decoder.
        position: position encoding of the tokens, "sincos", "learned" or "none".
        max_tokens: the largest number of positions that attend to each other in one stage; larger maps are averaged.
        attention: False removes attention, for comparison.
        kind: "self": self-attention. "gate": the gate of Attention U-Net on the skip, for comparison
            (`jaxseg.nn.AttentionGate`).
        levels: the number of the decoder's levels with attention, from the coarsest; None: all.
        sow_attention: whether the attention weights are stored in the collection "intermediates", for
            `model.apply(variables, image, train=False, mutable=["intermediates"])`. Commands do not read them.
        dropout: rate of the dropout that ends the two deepest stages of the own encoder, as in U-Net's; another encoder
            has its own field, if any.
        encoder: another encoder under the same decoder (an `EncoderFactory`); None: `PlainEncoder`. With another
            encoder, `widths` are those of the decoder's levels, finest first, one fewer than the encoder's.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128, 256, 512)
    convs: int = 2
    num_heads: int = 4
    position: Position = "sincos"
    max_tokens: int = 1024
    attention: bool = True
    kind: Kind = "self"
    levels: int | None = None
    sow_attention: bool = False
    dropout: Share = 0.0
    encoder: EncoderFactory | None = None
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(
            self.encoder or functools.partial(PlainEncoder, self.widths, self.convs, self.dropout), self.common
        )
        self._check(len(encoder.strides))
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        decoded = RecursiveDecoder(
            self.widths[: len(pyramid) - 1],
            self.num_heads,
            self.position,
            self.max_tokens,
            self.attention,
            self.kind,
            self.levels,
            self.sow_attention,
            common=self.common,
            name="decoder",
        )(pyramid, train=train)
        top = decoded[0] if decoded else pyramid[0]
        logits = to_logits(top, self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}

    def _check(self, levels: int) -> None:
        check_widths("AttentionDecoder", self.widths, levels)
        for width in self.widths[: levels - 1] if self.attention and self.kind == "self" else ():
            if width % self.num_heads:
                raise ValueError(f"AttentionDecoder: num_heads {self.num_heads} does not divide the width {width}.")
        if self.max_tokens < 1:
            raise ValueError(f"AttentionDecoder: max_tokens must be at least 1, got {self.max_tokens}.")


def pooling_factor(h: int, w: int, max_tokens: int) -> int:
    """Returns the smallest power of two r with ceil(h/r)·ceil(w/r) <= max_tokens."""
    factor = 1
    while -(-h // factor) * -(-w // factor) > max_tokens:
        factor *= 2
    return factor
