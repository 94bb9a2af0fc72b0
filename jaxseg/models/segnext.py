"""SegNeXt (Guo, Lu, Hou, Liu, Cheng and Hu 2022, "SegNeXt: Rethinking Convolutional Attention Design ...").

The levels of stride 8, 16 and 32 of a convolutional encoder are concatenated, squeezed and passed through a Hamburger
(section 3.2, Fig. 3c): a factorisation of the features into few non-negative parts, as the global context (Geng, Guo,
Chen, Li, Wei and Lin 2021, "Is Attention Better Than Matrix Decomposition?", arXiv 2109.04553). Parameters for the 150
classes of ADE20K, in millions: tiny 4.3, small 13.9, base 27.6, large 48.9, as published.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.arguments import Count, Share
from jaxseg.models import encoders
from jaxseg.models.assembly import coarse_levels, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, ConvNormAct, Dropout, Layers, resize
from jaxseg.nn.ops.product import product

_SMALL = 1e-6  # added to the denominators


def first_parts(features: int, rank: int) -> np.ndarray:
    """f32[features,rank]: the parts that the factorisation starts from, uniform numbers in columns of length 1."""
    parts = np.random.default_rng(0).uniform(size=(features, rank))
    return (parts / np.linalg.norm(parts, axis=0)).astype(np.float32)


def factorised(x: jax.Array, rank: int, steps: int) -> jax.Array:
    """Non-negative f32[b,t,c] -> f32[b,t,c], the nearest product C Dᵀ of f32[b,t,rank] and f32[b,c,rank] (Geng 2021).

    The multiplicative updates of Lee and Seung, as the paper's NMF has them, minimise ||X - C Dᵀ|| with C, D >= 0 in
    `steps` steps from C = softmax(X D) and D = `first_parts`:

        C <- C (X D) / (C DᵀD),    D <- D (Xᵀ C) / (D CᵀC)

    A last update of C follows. The gradient is that of this last update alone, with C and D before it as constants: the
    paper's one-step gradient, which neither vanishes nor needs the memory of all steps.

    Args:
        x: f32[b,t,c], not below 0.
        rank: the number of parts.
        steps: updates of both factors.
    """
    b, _, c = x.shape
    fixed = jax.lax.stop_gradient(x)
    parts = jnp.broadcast_to(jnp.asarray(first_parts(c, rank))[None], (b, c, rank))
    codes = jax.nn.softmax(product("btc,bcr->btr", fixed, parts), axis=-1)
    for _ in range(steps):
        codes = _updated(codes, product("btc,bcr->btr", fixed, parts), parts)
        parts = _updated(parts, product("btc,btr->bcr", fixed, codes), codes)
    codes = _updated(codes, product("btc,bcr->btr", x, parts), parts)
    return product("btr,bcr->btc", codes, parts)


def _updated(factor: jax.Array, wanted: jax.Array, other: jax.Array) -> jax.Array:
    """factor · wanted / (factor otherᵀ other): one multiplicative update of one factor."""
    gram = product("bnr,bns->brs", other, other)
    return factor * wanted / (product("btr,brs->bts", factor, gram) + _SMALL)


class Hamburger(nn.Module):
    """act(x + upper(M(relu(lower(x))))), M a factorisation: f[b,h,w,c] -> f[b,h,w,c] (Geng 2021, Fig. 2).

    Children: "lower" (1x1 convolution), "upper" (1x1 convolution and norm).

    Attributes:
        rank: the number of parts of the factorisation.
        steps: its steps in training.
        eval_steps: its steps in evaluation.
        common: norm, activation and dtype; the factorisation is float32.
    """

    rank: Count = 64
    steps: Count = 6
    eval_steps: Count = 7
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        b, h, w, c = x.shape
        y = jax.nn.relu(Conv(c, 1, dtype=self.common.dtype, name="lower")(x))
        tokens = y.reshape(b, h * w, c).astype(jnp.float32)
        y = factorised(tokens, self.rank, self.steps if train else self.eval_steps).astype(x.dtype).reshape(b, h, w, c)
        y = ConvNormAct(c, 1, common=self.common.replace(act=None), name="upper")(y, train=train)
        return self.common.activate(x + y)


class SegNeXt(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Children: "encoder", "squeeze" (1x1), "hamburger", "align" (1x1), "head".

    Two things differ from the authors' code. Their factorisation starts from other random parts at each call; here they
    are always the same, so that an image has one result. Their gradient runs through all steps of the factorisation;
    here it is the one-step gradient of Geng 2021.

    Attributes:
        num_classes: k.
        width: channels of the decoder: 256 with MSCAN-T and S, 512 with B, 1024 with L.
        rank: the number of parts of the factorisation: 16 with MSCAN-T and S, 64 with B and L.
        steps: of the factorisation in training.
        eval_steps: of the factorisation in evaluation.
        finest: the smallest stride whose level takes part; the logits have its size before they are up-sampled.
        dropout: rate at which whole channels are dropped before the classifier.
        encoder: an `EncoderFactory`.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: Count = 256
    rank: Count = 16
    steps: Count = 6
    eval_steps: Count = 7
    finest: int = 8
    dropout: Share = 0.1
    encoder: EncoderFactory = encoders.factory("mscan_tiny")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder, common = make_encoder(self.encoder, self.common), self.common
        pyramid = encoder(image, train=train)
        levels, _ = coarse_levels("SegNeXt", pyramid, encoder.strides, self.finest)
        x = jnp.concatenate([resize(level, levels[0].shape[1:3]) for level in levels], axis=-1)
        x = ConvNormAct(self.width, 1, common=common, name="squeeze")(x, train=train)
        x = Hamburger(self.rank, self.steps, self.eval_steps, common, name="hamburger")(x, train=train)
        x = ConvNormAct(self.width, 1, common=common, name="align")(x, train=train)
        y = Dropout(self.dropout, axis_name=common.axis_name, spatial=True, name="dropout")(x, train=train)
        logits = to_logits(y, self.num_classes, image.shape[1:3], dtype=common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=(x,))}
