"""Non-local network (Wang, Girshick, Gupta and He 2018, "Non-local Neural Networks", arXiv 1711.07971).

Each pixel of the last features of a dilated encoder adds a mean over all pixels, weighted by how alike they are. The
paper puts its block into networks for videos and objects; for segmentation it stands between the convolutions of
`context_head.with_context`, which is the baseline that later papers on context compare with.
"""

from typing import Any, Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Count, Share
from jaxseg.models import encoders
from jaxseg.models.context_head import attend, classified, encoded, with_context
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, Layers
from jaxseg.nn.ops.product import product

Pairwise = Literal["embedded_gaussian", "dot_product"]


class NonLocal(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: the non-local block, z_i = W y_i + x_i (Wang 2018, eq. 6).

    y_i = Σ_j f(x_i, x_j) g(x_j) / C (eq. 1). With the embedded Gaussian f = exp(θ(x_i) · φ(x_j)) and C = Σ_j f (eq. 3);
    with the dot product f = θ(x_i) · φ(x_j) and C is the number of pixels (eq. 4), which needs no array of all pairs.
    θ, φ, g and W are 1x1 convolutions; W starts at zero, and the block as the identity (section 3.3; no norm follows W,
    as in eq. 6). Children: "query" (θ), "key" (φ), "value" (g), "out" (W). With the embedded Gaussian φ has no bias,
    which the softmax would take away.

    Attributes:
        reduction: θ, φ and g have c / reduction channels (section 3.3: 2).
        pairwise: the function f.
        dtype: compute dtype; the softmax is float32.
    """

    reduction: Count = 2
    pairwise: Pairwise = "embedded_gaussian"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        width = max(1, c // self.reduction)
        softmax = self.pairwise == "embedded_gaussian"
        query, value = (Conv(width, 1, dtype=self.dtype, name=name)(x) for name in ("query", "value"))
        key = Conv(width, 1, use_bias=not softmax, dtype=self.dtype, name="key")(x)
        if softmax:
            y = attend(query, key, value)
        else:
            key, value = (v.reshape(b, -1, width) for v in (key, value))
            pairs = product("btd,bte->bde", key, value / (h * w)).astype(query.dtype)
            y = product("bhwd,bde->bhwe", query, pairs).astype(query.dtype)
        out = Conv(c, 1, dtype=self.dtype, kernel_init=nn.initializers.zeros_init(), name="out")
        return x + out(y)


class NonLocalNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Children: "encoder", "reduce", "nonlocal", "project", "fuse", "head", "aux".

    Attributes:
        num_classes: k.
        width: channels of the features that are related.
        reduction: of the non-local block's inner channels.
        pairwise: how alike two pixels are: "embedded_gaussian", a softmax, or "dot_product".
        dropout: rate at which whole channels are dropped before the classifiers.
        aux_width: channels of the auxiliary head on the second coarsest level; None: no such head.
        encoder: an `EncoderFactory`; by default ResNet-50 at output stride 8.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: Count = 512
    reduction: Count = 2
    pairwise: Pairwise = "embedded_gaussian"
    dropout: Share = 0.1
    aux_width: int | None = 256
    encoder: EncoderFactory = encoders.factory("resnet50", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        pyramid = encoded(self, image, train=train)
        block = NonLocal(self.reduction, self.pairwise, self.common.dtype, name="nonlocal")
        x = with_context(pyramid[-1], block, self.width, self.common, train=train)
        return classified(self, image, pyramid, x, train=train)
