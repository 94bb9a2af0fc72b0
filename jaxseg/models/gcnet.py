"""GCNet (Cao, Xu, Lin, Wei and Hu 2019, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond").

The attention of a non-local block is almost the same for every pixel (section 3), so that one weighted mean over the
image is added to all of them, at the cost of squeeze-and-excitation. The block stands between the convolutions of
`context_head.with_context`, as the authors have it for Cityscapes (Cao et al. 2020, "Global Context Networks").
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Count, Share
from jaxseg.models import encoders
from jaxseg.models.context_head import classified, encoded, with_context
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, LayerNorm, Layers
from jaxseg.nn.ops.product import product


class GlobalContext(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: the global context block (Cao 2019, eq. 5 and Fig. 4d).

    z_i = x_i + W_v2 act(LN(W_v1 Σ_j α_j x_j)), α = softmax over the pixels of W_k x. W_v2 starts at zero, and the block
    as the identity. Children: "score" (W_k, without bias, as the softmax removes one), "transform1" (W_v1), "norm",
    "transform2" (W_v2).

    Attributes:
        ratio: r; the transform has c / r inner channels, at least 1 (section 4.3).
        common: gives the activation and the dtype; softmax and norm are float32.
    """

    ratio: Count = 16
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, _, _, c = x.shape
        dtype = self.common.dtype
        score = Conv(1, 1, use_bias=False, dtype=dtype, name="score")(x).reshape(b, -1)
        share = jax.nn.softmax(score.astype(jnp.float32), axis=-1).astype(x.dtype)
        context = product("bt,btc->bc", share, x.reshape(b, -1, c)).astype(x.dtype).reshape(b, 1, 1, c)
        y = Conv(max(1, c // self.ratio), 1, dtype=dtype, name="transform1")(context)
        y = self.common.activate(LayerNorm(dtype=dtype, name="norm")(y))
        zeros = nn.initializers.zeros_init()
        return x + Conv(c, 1, dtype=dtype, kernel_init=zeros, name="transform2")(y)


class GCNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Children: "encoder", "reduce", "context", "project", "fuse", "head", "aux".

    Attributes:
        num_classes: k.
        width: channels of the features that get the context.
        ratio: of the bottleneck in the context's transform; 16 in the paper's experiments.
        dropout: rate at which whole channels are dropped before the classifiers.
        aux_width: channels of the auxiliary head on the second coarsest level; None: no such head.
        encoder: an `EncoderFactory`; by default ResNet-50 at output stride 8.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: Count = 512
    ratio: Count = 16
    dropout: Share = 0.1
    aux_width: int | None = 256
    encoder: EncoderFactory = encoders.factory("resnet50", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        pyramid = encoded(self, image, train=train)
        block = GlobalContext(self.ratio, self.common, name="context")
        x = with_context(pyramid[-1], block, self.width, self.common, train=train)
        return classified(self, image, pyramid, x, train=train)
