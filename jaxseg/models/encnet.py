"""EncNet (Zhang et al. 2018, "Context Encoding for Semantic Segmentation").

An encoding layer sums up the content of an image: residuals of its features to learned codewords, softly assigned
(section 3, equation 1). This context gives gates for the channels of the feature map (section 3.1, featuremap
attention) and the presence of each class, which the semantic encoding loss trains
(`jaxseg.losses.semantic_encoding`).

Three details follow the authors' release where the paper does not specify them or differs: the encoded residuals have
one norm for each codeword, they are averaged over codewords (not summed), and the gates multiply as 1 + γ.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import auxiliary_logits, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, Dense, Dropout, Layers, parameter

Aggregate = Literal["sum", "mean"]


class Encoding(nn.Module):
    """f[b,h,w,c] -> f32[b,q,c]: residuals to q codewords, softly assigned and aggregated (Zhang 2018, equation 1).

    e_j = Σ_i a_ij (x_i - d_j), a_ij = exp(-s_j |x_i - d_j|²) / Σ_l exp(-s_l |x_i - d_l|²), over pixels i. Parameters:
    codewords f32[q,c] (d) and scale f32[q] (s). Everything is float32.

    Attributes:
        codewords: q.
        aggregate: "sum" over pixels as in the paper, or their "mean", which does not grow with the image.
    """

    codewords: int = 32
    aggregate: Aggregate = "sum"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        q = self.codewords
        bound = 1.0 / (q * c) ** 0.5

        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        d = parameter(self, "codewords", uniform, (q, c))
        s = parameter(self, "scale", nn.initializers.uniform(1.0), (q,))
        x = x.astype(jnp.float32).reshape(b, h * w, c)
        # |x - d|² and the residuals are expanded: an array [b,h*w,q,c] would need too much memory.
        product = functools.partial(jnp.einsum, precision="highest")
        distance = (
            jnp.sum(x * x, -1, keepdims=True) - 2.0 * product("bnc,qc->bnq", x, d) + jnp.sum(d * d, -1)[None, None]
        )
        share = jax.nn.softmax(-s.reshape(1, 1, q) * distance, axis=-1)
        total = product("bnq,bnc->bqc", share, x) - jnp.sum(share, 1)[..., None] * d[None]
        return total if self.aggregate == "sum" else total / (h * w)


class ContextEncoding(nn.Module):
    """f[b,h,w,c] -> (gated f[b,h,w,c], context f32[b,c]): the context encoding module (Fig. 2 of Zhang 2018).

    Children: "reduce" (1x1 convolution), "encoding", "norm" (of each codeword), "gate" (a dense layer).
    """

    codewords: int = 32
    aggregate: Aggregate = "sum"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        c = x.shape[-1]
        y = ConvNormAct(c, 1, common=self.common, name="reduce")(x, train=train)
        encoded = Encoding(self.codewords, self.aggregate, name="encoding")(y)
        encoded = self.common.normalise(encoded.swapaxes(1, 2), "norm", train=train)  # over [b,c,q]: q are the channels
        context = jnp.mean(self.common.activate(encoded).astype(jnp.float32), axis=-1)
        gate = nn.sigmoid(Dense(c, name="gate")(context))
        return x * (1.0 + gate.reshape(-1, 1, 1, c)).astype(x.dtype), context


class EncNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    `out["semantic_encoding"]` f32[b,k] are the logits of the presence of each class in the image, for the loss term of
    that name (section 3.1; its weight in the paper is .2).

    Attributes:
        num_classes: k.
        width: channels of the features that are encoded (section 4: 512).
        codewords: of the encoding layer (section 4: 32).
        aggregate: over the pixels; the paper's "sum", or "mean" for images of other sizes than in training.
        dropout: rate at which whole channels are dropped before the classifiers, as in the authors' release.
        aux: an auxiliary head on the second coarsest level, in training (section 4.1, after Zhao et al. 2017): the
            `AuxiliaryHead` with a quarter of the level's channels, as in the authors' release.
        encoder: the backbone; by default ResNet-50 with dilated stages at output stride 8 (section 3.2).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 512
    codewords: int = 32
    aggregate: Aggregate = "sum"
    dropout: Share = 0.1
    aux: bool = True
    encoder: EncoderFactory = encoders.factory("resnet50", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        pyramid = make_encoder(self.encoder, self.common)(image, train=train)
        size = image.shape[1:3]
        x = ConvNormAct(self.width, common=self.common, name="neck")(pyramid[-1], train=train)
        x, context = ContextEncoding(self.codewords, self.aggregate, common=self.common, name="context")(x, train=train)
        presence = Dense(self.num_classes, name="presence")(context)
        dropped = Dropout(self.dropout, axis_name=self.common.axis_name, spatial=True, name="dropout")(x, train=train)
        logits = to_logits(dropped, self.num_classes, size, dtype=self.common.dtype)
        width = max(1, pyramid[-2].shape[-1] // 4) if self.aux and len(pyramid) > 1 else None
        aux = auxiliary_logits(self, pyramid, size, width, self.dropout, train=train)
        return logits, {
            "aux": aux,
            "semantic_encoding": presence,
            **name_stages(encoder=pyramid, decoder=(x,)),
        }
