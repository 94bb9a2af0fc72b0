"""Mask2Former (Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation").

Each query of a set predicts a class (or "no object") and a mask. In the pixel decoder (section 3.2.1; section 4.1) the
three coarsest levels of the pyramid attend to each other by multi-scale deformable attention, and the result is brought
to the masks' resolution. Each layer of the transformer decoder (section 3.2, Fig. 2 right) reads one of the three
levels, coarsest first, and each query reads only the pixels within the mask that it predicted last. A pixel's score for
a class is the sum over queries of class probability times mask probability (Cheng et al. 2021, MaskFormer, section
3.4). Train it with the loss `mask_classification`; the paper's encoders are ResNet-50 and Swin transformers.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import (
    Conv,
    DeformableAttention,
    Dense,
    Dropout,
    GroupNorm,
    LayerNorm,
    Layers,
    MultiHeadAttention,
    parameter,
    resize,
)
from jaxseg.nn.deformable import split_tokens
from jaxseg.nn.initializers import normal, variance_scaling, xavier_uniform
from jaxseg.nn.ops.product import product
from jaxseg.nn.ops.sizes import Side, array_module
from jaxseg.types import Array

# Variance 1 / (3 c), as in the authors' release: the first mask logits have a deviation of about 1 at 256 features.
# Variance 1 / c would make it 9, where the sigmoid is saturated.
SMALL = variance_scaling(1 / 3, "fan_in", "uniform")


def sine_position(h: Side, w: Side, c: int) -> Array:
    """Position of each pixel as c / 2 sines and cosines of the row, then of the column, scaled to 2 pi: f32[h,w,c]."""
    half = c // 2
    frequency = (10000.0 ** (2 * (np.arange(half) // 2) / half)).reshape(1, -1)

    xp = array_module(h, w)

    def waves(size: Side) -> Array:
        angle = (xp.arange(size) + 1)[:, None] / (xp.asarray(size) + 1e-6) * 2 * math.pi / frequency
        return xp.where(np.arange(half)[None] % 2 == 0, xp.sin(angle), xp.cos(angle))

    rows, columns = (xp.broadcast_to(x, (h, w, half)) for x in (waves(h)[:, None], waves(w)[None]))
    return xp.concatenate([rows, columns], -1).astype(np.float32)


class FeedForward(nn.Module):
    """LayerNorm(x + reduce(relu(expand(x)))): f[b,t,c] -> f[b,t,c]. Children: "expand", "reduce", "norm"."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.nn.relu(Dense(self.hidden, kernel_init=xavier_uniform, dtype=self.dtype, name="expand")(x))
        y = Dense(x.shape[-1], kernel_init=xavier_uniform, dtype=self.dtype, name="reduce")(y)
        return LayerNorm(dtype=self.dtype, name="norm")(x + y)


class PixelLayer(nn.Module):
    """Deformable self-attention of all levels' tokens, then a feed-forward: f[b,t,c] -> f[b,t,c].

    Children: "attention", "attention_norm", "ffn".
    """

    num_heads: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, position: jax.Array, sizes: tuple[tuple[int, ...], ...]) -> jax.Array:
        y = DeformableAttention(self.num_heads, dtype=self.dtype, name="attention")(x, position, sizes)
        x = LayerNorm(dtype=self.dtype, name="attention_norm")(x + y)
        return FeedForward(self.hidden, self.dtype, name="ffn")(x)


class PixelDecoder(nn.Module):
    """Pyramid (features finest first) -> (`scales` features f[b,.,.,features] coarsest first, mask features).

    The mask features f[b,y,x,features] have the size of the pyramid's finest level. All norms are group norms of 32
    groups (of fewer where 32 does not divide the features), as in the authors' release. Children: "project{i}" and
    "project_norm{i}" (i counts attended levels from the coarsest), "level", "layer1", ..., and for each finer level i
    of the pyramid "lateral{i}", "lateral_norm{i}", "output{i}" and "output_norm{i}"; "mask".
    """

    features: int = 256
    layers: int = 6
    num_heads: int = 8
    hidden: int = 1024
    scales: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, ...], jax.Array]:
        group = functools.partial(GroupNorm, num_groups=32, dtype=self.dtype)
        conv = functools.partial(Conv, self.features, 1, dtype=self.dtype)
        coarse = pyramid[::-1][: self.scales]
        sizes = tuple(x.shape[1:3] for x in coarse)
        levels = parameter(self, "level", normal(1.0), (len(coarse), self.features))
        tokens, positions = [], []
        for i, x in enumerate(coarse):
            x = group(name=f"project_norm{i}")(conv(name=f"project{i}")(x))
            tokens.append(x.reshape(x.shape[0], -1, self.features))
            h, w = sizes[i]
            where = sine_position(h, w, self.features).reshape(1, -1, self.features)
            positions.append((where + levels[i].reshape(1, 1, -1)).astype(self.dtype))
        x, position = jnp.concatenate(tokens, 1), jnp.concatenate(positions, 1)
        for i in range(self.layers):
            x = PixelLayer(self.num_heads, self.hidden, self.dtype, name=f"layer{i + 1}")(x, position, sizes)
        parts = split_tokens(x, sizes)
        attended = tuple(y.reshape(-1, *size, self.features) for y, size in zip(parts, sizes))
        top = attended[-1]
        for i in reversed(range(len(pyramid) - len(coarse))):
            lateral = group(name=f"lateral_norm{i}")(conv(use_bias=False, name=f"lateral{i}")(pyramid[i]))
            top = lateral + resize(top, lateral.shape[1:3])
            top = Conv(self.features, use_bias=False, dtype=self.dtype, name=f"output{i}")(top)
            top = jax.nn.relu(group(name=f"output_norm{i}")(top))
        return attended, conv(name="mask")(top)


class QueryLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward (section 3.2.2): queries f[b,q,c] -> f[b,q,c].

    Children: "cross", "cross_norm", "self", "self_norm", "ffn".
    """

    num_heads: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, query_position: jax.Array, tokens: jax.Array, position: jax.Array, mask: jax.Array
    ) -> jax.Array:
        attention = functools.partial(MultiHeadAttention, self.num_heads, dtype=self.dtype)
        y = attention(name="cross")(x + query_position, tokens + position, tokens, mask)
        x = LayerNorm(dtype=self.dtype, name="cross_norm")(x + y)
        place = x + query_position
        x = LayerNorm(dtype=self.dtype, name="self_norm")(x + attention(name="self")(place, place, x))
        return FeedForward(self.hidden, self.dtype, name="ffn")(x)


class MaskHead(nn.Module):
    """Queries f[b,q,c], mask features f[b,y,x,c] -> mask logits f32[b,y,x,q], by a three-layer perceptron."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, queries: jax.Array, pixels: jax.Array) -> jax.Array:
        x = queries
        for i in range(3):
            x = Dense(pixels.shape[-1], kernel_init=SMALL, dtype=self.dtype, name=f"dense{i + 1}")(x)
            x = jax.nn.relu(x) if i < 2 else x
        return product("byxc,bqc->byxq", pixels, x)


def attention_mask(logits: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Mask logits f32[b,y,x,q] -> bool[b,1,q,h·w] (eq. 3): where a query attends; everywhere if its mask is empty."""
    inside = resize(jax.lax.stop_gradient(logits), size) >= 0
    inside = inside.reshape(inside.shape[0], -1, inside.shape[-1]).swapaxes(1, 2)[:, None]
    return inside | ~inside.any(-1, keepdims=True)


class Mask2Former(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    The logits are log(sum over queries of softmax(class)[..., :-1] · sigmoid(mask)), whose largest is the class that
    the authors choose, and whose softmax is the scores divided by their sum. `out["queries"]` has the inputs of the
    loss `mask_classification`: class logits f32[layers+1,b,q,k+1], the last for "no object", and mask logits
    f32[layers+1,b,y,x,q] of the queries before and after each layer (auxiliary losses, section 3.3). With one class
    (k = 1) queries are of two kinds, background and foreground, and the logit is the difference of the two.

    Attributes:
        num_classes: k.
        features: channels of the decoders and the masks.
        queries: q; more than the number of classes in an image.
        layers: of the transformer decoder, 9 (three rounds over three levels).
        pixel_layers: of the pixel decoder, 6.
        num_heads: of all attention.
        hidden: inner width of the feed-forwards of the transformer decoder.
        pixel_hidden: that of the pixel decoder.
        scales: the number of levels with attention, from the coarsest.
        mask_stride: the masks have the resolution of the finest level with at least this stride; finer levels are not
            used.
        query_dropout: rate of dropout of whole queries, for each image: a query that is dropped begins as zeros, beside
            its learned position. In training, and in Monte Carlo dropout. In no paper.
        encoder: any encoder (an `EncoderFactory`); the paper's are ResNets and Swin transformers. A plain
            vision transformer has its feature pyramid.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    features: int = 256
    queries: int = 100
    layers: int = 9
    pixel_layers: int = 6
    num_heads: int = 8
    hidden: int = 2048
    pixel_hidden: int = 1024
    scales: int = 3
    mask_stride: int = 4
    query_dropout: Share = 0.0
    encoder: EncoderFactory = encoders.factory("resnet50")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        pyramid = encoder(image, train=train)
        used = tuple(x for x, stride in zip(pyramid, encoder.strides) if stride >= self.mask_stride)
        if not used:
            raise ValueError(f"Mask2Former: the encoder's strides {encoder.strides} are all below mask_stride.")
        attended, pixels = PixelDecoder(
            self.features,
            self.pixel_layers,
            self.num_heads,
            self.pixel_hidden,
            self.scales,
            self.common.dtype,
            name="decoder",
        )(used)
        classes, masks = self._queries(attended, pixels, train)
        logits = semantic_logits(classes[-1], resize(masks[-1], image.shape[1:3]), self.num_classes)
        stages = name_stages(encoder=pyramid, decoder=(pixels, *attended[::-1]))
        return logits, {"aux": (), "queries": (jnp.stack(classes), jnp.stack(masks)), **stages}

    def _queries(
        self, attended: tuple[jax.Array, ...], pixels: jax.Array, train: bool
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Class and mask logits of the queries before and after each layer."""
        b, init = pixels.shape[0], normal(1.0)
        level = parameter(self, "level", init, (len(attended), self.features))
        shape = (self.queries, self.features)
        first, position = (
            jnp.broadcast_to(parameter(self, name, init, (1, *shape)), (b, *shape)).astype(self.common.dtype)
            for name in ("query", "query_position")
        )
        tokens, places = [], []
        for i, x in enumerate(attended):
            tokens.append((x + level[i].reshape(1, 1, 1, -1).astype(x.dtype)).reshape(b, -1, self.features))
            h, w = x.shape[1:3]
            where = sine_position(h, w, self.features).reshape(1, -1, self.features)
            places.append(jnp.asarray(where, self.common.dtype))
        norm, mask_head = (
            LayerNorm(dtype=self.common.dtype, name="query_norm"),
            MaskHead(self.common.dtype, name="mask_head"),
        )
        head = Dense(max(self.num_classes, 2) + 1, dtype=self.common.dtype, name="head")
        drop = Dropout(self.query_dropout, self.common.axis_name, tokens=True, name="query_dropout")
        x, classes, masks = drop(first, train=train), [], []
        for i in range(self.layers + 1):
            if i > 0:
                n = (i - 1) % len(attended)
                x = QueryLayer(self.num_heads, self.hidden, self.common.dtype, name=f"layer{i}")(
                    x, position, tokens[n], places[n], attention_mask(masks[-1], attended[n].shape[1:3])
                )
            y = norm(x)
            classes.append(head(y).astype(jnp.float32))
            masks.append(mask_head(y, pixels))
        return classes, masks


def semantic_logits(classes: jax.Array, masks: jax.Array, num_classes: int) -> jax.Array:
    """Class logits f32[b,q,k+1] and mask logits f32[b,h,w,q] -> log of the scores f32[b,h,w,k], see `Mask2Former`."""
    probability = jax.nn.softmax(classes, axis=-1)[..., :-1]
    scores = jnp.einsum("byxq,bqk->byxk", jax.nn.sigmoid(masks), probability, precision="highest")
    logits = jnp.log(scores + 1e-12)
    return logits[..., 1:] - logits[..., :1] if num_classes == 1 else logits
