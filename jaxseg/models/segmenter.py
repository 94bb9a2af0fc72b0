"""Segmenter (Strudel et al. 2021, "Segmenter: Transformer for Semantic Segmentation"), with its mask transformer.

A learned token for each class passes a few transformer blocks beside the patches of the encoder's last level (section
3.2, Fig. 2). A patch's score for a class is the cosine of the two results, normalised over the classes, and enlarged
bilinearly. The paper's linear decoder is `linear_head`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.encoders.vit import ViTBlock
from jaxseg.nn import Dense, LayerNorm, Layers, crop_to, drop_rates, pad_to_multiple, resize
from jaxseg.nn.dense import parameter
from jaxseg.nn.initializers import normal, truncated_normal
from jaxseg.nn.ops.product import product
from jaxseg.nn.ops.unit import unit_vectors

_init = truncated_normal(0.02)


class ClassTokens(nn.Module):
    """The token of each class, and the norm of its scores. Parameters "embedding" f32[width,k], "scale", "bias" f32[k].

    Attributes:
        num_classes: k. With one class there is nothing to normalise over, and the score is scaled and shifted alone.
        width: channels of a token.
        epsilon: of the norm.
    """

    num_classes: int
    width: int
    epsilon: float = 1e-5

    def setup(self) -> None:
        k = self.num_classes
        self.embedding = parameter(self, "embedding", _init, (self.width, k))
        self.scale = parameter(self, "scale", nn.initializers.ones_init(), (k,))
        self.bias = parameter(self, "bias", nn.initializers.zeros_init(), (k,))

    def tokens(self, images: int, dtype: Any) -> jax.Array:
        """Returns the tokens f[b,k,width]."""
        return jnp.broadcast_to(self.embedding.T[None], (images, self.num_classes, self.width)).astype(dtype)

    def __call__(self, scores: jax.Array) -> jax.Array:
        """f32[b,y,x,k] -> f32[b,y,x,k], of mean 0 and variance 1 over the classes, then scaled and shifted."""
        if self.num_classes > 1:
            scores = scores - scores.mean(-1, keepdims=True)
            scores = scores * jax.lax.rsqrt(jnp.square(scores).mean(-1, keepdims=True) + self.epsilon)
        return scores * self.scale.reshape(1, 1, 1, -1) + self.bias.reshape(1, 1, 1, -1)


class MaskTransformer(nn.Module):
    """Patches f[b,y,x,c] and class tokens f[b,k,width] -> f[b,y,x,width] and f[b,k,width], both of length 1 (eq. 3).

    Children: "block1", "block2", ..., "norm", "patches" and "classes", projections without bias.

    Attributes:
        depth, num_heads, drop_path: as in `Segmenter`.
        common: gives the dtype and the mapped axis.
    """

    depth: int
    num_heads: int
    drop_path: Share
    common: Layers

    @nn.compact
    def __call__(self, x: jax.Array, classes: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        b, h, w, c = x.shape
        k = classes.shape[1]
        tokens = jnp.concatenate([classes, x.reshape(b, h * w, c)], 1)
        (rates,) = drop_rates(self.drop_path, (self.depth,))
        for i, rate in enumerate(rates):
            form = (self.num_heads, 4 * c, "gelu", 1e-5)
            block = ViTBlock(*form, drop_path=rate, common=self.common, name=f"block{i + 1}")
            tokens = block(tokens, train=train)
        tokens = LayerNorm(dtype=self.common.dtype, name="norm")(tokens)
        init = normal(c**-0.5)
        results = []
        for name, part in (("patches", tokens[:, k:]), ("classes", tokens[:, :k])):
            y = Dense(c, use_bias=False, kernel_init=init, dtype=self.common.dtype, name=name)(part)
            results.append(unit_vectors(y).astype(y.dtype))
        return results[0].reshape(b, h, w, c), results[1]


class Segmenter(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the coarsest stride.

    `norm` and `act` have no effect: all norms are layer norms.

    Attributes:
        num_classes: k.
        width: channels of the mask transformer; None is that of the encoder, as in the paper.
        depth: blocks of the mask transformer, 2.
        num_heads: of their attention; must divide the width. None is one for each 64 channels, as in the paper.
        drop_path: rate of stochastic depth of the mask transformer's last block.
        encoder: an encoder (an `EncoderFactory`), whose last level is read; the paper's are ViTs.
        common: gives the dtype and the mapped axis.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    num_classes: int
    width: int | None = None
    depth: int = 2
    num_heads: int | None = None
    drop_path: Share = 0.0
    encoder: EncoderFactory = encoders.factory("vit_base")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common, pyramid=False)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        width = self.width or pyramid[-1].shape[-1]
        heads = self.num_heads or max(1, width // 64)
        if width % heads:
            raise ValueError(
                f"segmenter.num_heads must divide the width of the mask transformer, {width}, got {heads}"
                f"{'' if self.num_heads else ', the width // 64 of None'}."
            )
        head = ClassTokens(self.num_classes, width, name="head")
        y = Dense(width, kernel_init=_init, dtype=self.common.dtype, name="project")(pyramid[-1])
        decoder = MaskTransformer(self.depth, heads, self.drop_path, self.common, name="decoder")
        patches, classes = decoder(y, head.tokens(y.shape[0], y.dtype), train=train)
        scores = head(product("byxc,bkc->byxk", patches, classes))
        logits = crop_to(resize(scores, x.shape[1:3]), size)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=(patches,))}
