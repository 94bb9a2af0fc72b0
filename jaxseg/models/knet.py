"""K-Net (Zhang, Pang, Chen and Loy 2021, "K-Net: Towards Unified Image Segmentation"), for classes of pixels.

The kernels of a 1x1 classifier, one for each class, are made dependent on the image in rounds (section 3.2, Fig. 2):
each kernel gathers the features of the pixels that its map holds to be of its class (equation 3), is updated by what it
gathered (equations 4 to 6), and attends to the other kernels; its product with the features is the next map. The first
maps are those of any decode head (section 3.4), here UPerNet's or that of an FCN. As in the authors' code each round
has its own 1x1 convolution of the features, and a layer of its own turns kernels of the next round into those of maps.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import auxiliary_logits, coarse_levels, make_encoder, name_stages
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.mask2former import FeedForward
from jaxseg.models.upernet import UPerDecoder
from jaxseg.nn import Conv, ConvNormAct, Dense, Dropout, LayerNorm, Layers, MultiHeadAttention, parameter, resize
from jaxseg.nn.initializers import he_normal
from jaxseg.nn.ops.product import product


class KernelHead(Dense):
    """f[b,h,w,c] -> (f32[b,h,w,k], kernels f[b,k,c]): a 1x1 classifier, and its kernels for each image.

    Its parameters are those of a `Dense`, kernel f32[c,k] and bias f32[k], and are treated like them: weight decay
    shrinks the kernel, adapters are added to it, and it can have few bits.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        k, c = self.features, x.shape[-1]
        kernel = parameter(self, "kernel", self.kernel_init, (c, k))
        bias = parameter(self, "bias", self.bias_init, (k,))
        kernels = jnp.broadcast_to(kernel.T[None], (x.shape[0], k, c)).astype(x.dtype)
        return maps_of(x, kernels) + bias.reshape(1, 1, 1, -1), kernels


class KernelUpdate(nn.Module):
    """(gathered f[b,k,c], kernels f[b,k,c]) -> f[b,k,c]: the adaptive kernel update (equations 4 to 6).

    With g = φ1(gathered) ⊙ φ2(kernels), σ(ψ1(g)) ⊙ ψ4(kernels) + σ(ψ2(g)) ⊙ ψ3(gathered) passes a linear layer, a layer
    norm and a ReLU. Children: "gathered" is φ1 and ψ3, "kernels" φ2 and ψ4, "kernels_gate" ψ1, "gathered_gate" ψ2, and
    "out"; a layer norm follows ψ1 to ψ4 and "out", the child "..._norm".
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, gathered: jax.Array, kernels: jax.Array) -> jax.Array:
        c = kernels.shape[-1]

        def normed(x: jax.Array, name: str) -> jax.Array:
            return LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x)

        def dense(x: jax.Array, features: int, name: str) -> jax.Array:
            return Dense(features, dtype=self.dtype, name=name)(x)

        of_gathered, gathered = jnp.split(dense(gathered, 2 * c, "gathered"), 2, axis=-1)
        of_kernels, kernels = jnp.split(dense(kernels, 2 * c, "kernels"), 2, axis=-1)
        both = of_gathered * of_kernels
        keep = nn.sigmoid(normed(dense(both, c, "kernels_gate"), "kernels_gate"))
        take = nn.sigmoid(normed(dense(both, c, "gathered_gate"), "gathered_gate"))
        updated = keep * normed(kernels, "kernels") + take * normed(gathered, "gathered")
        return jax.nn.relu(normed(dense(updated, c, "out"), "out"))


class KernelAttention(MultiHeadAttention):
    """Attention between kernels, which have no places in the image: `explain` leaves its weights out."""


class KernelRound(nn.Module):
    """(features f[b,h,w,c], kernels f[b,k,c], maps f32[b,h,w,k]) -> (maps f32[b,h,w,k], kernels f[b,k,c]).

    Children: "transform", "update", "attention", "attention_norm", "ffn", "mask" with "mask_norm", and "maps".

    Attributes:
        num_heads: of the attention between kernels.
        hidden: inner width of the feed-forward.
        dtype: compute dtype.
    """

    num_heads: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, kernels: jax.Array, maps: jax.Array) -> tuple[jax.Array, jax.Array]:
        c = features.shape[-1]
        features = Conv(c, 1, dtype=self.dtype, name="transform")(features)
        share = jax.nn.softmax(maps) if maps.shape[-1] > 1 else nn.sigmoid(maps)
        gathered = product("byxk,byxc->bkc", share.astype(features.dtype), features).astype(features.dtype)
        x = KernelUpdate(self.dtype, name="update")(gathered, kernels)
        x = x + KernelAttention(self.num_heads, dtype=self.dtype, name="attention")(x)
        x = LayerNorm(dtype=self.dtype, name="attention_norm")(x)
        kernels = FeedForward(self.hidden, self.dtype, name="ffn")(x)
        x = Dense(c, use_bias=False, dtype=self.dtype, name="mask")(kernels)
        x = jax.nn.relu(LayerNorm(dtype=self.dtype, name="mask_norm")(x))
        return maps_of(features, Dense(c, dtype=self.dtype, name="maps")(x)), kernels


class KNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w: the sizes of the levels are the encoder's own.

    In training `out["aux"]` has the logits of the decode head, those of each round but the last, and those of the
    auxiliary head, if there is one; the authors weigh all but the last of these like the logits, and the last .4. With
    one class (k = 1) a kernel gathers by the sigmoid of its map, with more by their softmax, so that a
    run refuses losses that train one sigmoid for each class.

    Attributes:
        num_classes: k.
        head: the decode head. "upernet": UPerNet's, over all levels; "fcn": a 3x3 convolution of the last level, for an
            encoder of output stride 8.
        width: channels of the decode head, and of the kernels.
        bins: of "upernet": sides of the grids of its pyramid pooling.
        finest: of "upernet": the smallest stride whose level takes part.
        rounds: T of the paper, 3.
        num_heads: of the attention between kernels; must divide the width.
        hidden: inner width of the feed-forwards.
        dropout: rate at which channels are dropped before the first maps, also in the auxiliary head.
        aux_width: channels of the auxiliary head on the second coarsest level; None: no such head.
        encoder: an `EncoderFactory`; the paper's are ResNet-50, ResNet-101 and Swin transformers.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    num_classes: int
    head: Literal["upernet", "fcn"] = "upernet"
    width: int = 512
    bins: tuple[int, ...] = (1, 2, 3, 6)
    finest: int = 4
    rounds: int = 3
    num_heads: int = 8
    hidden: int = 2048
    dropout: Share = 0.1
    aux_width: int | None = 256
    encoder: EncoderFactory = encoders.factory("resnet50")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder, common, size = make_encoder(self.encoder, self.common), self.common, image.shape[1:3]
        pyramid = encoder(image, train=train)
        taken, _ = coarse_levels("KNet", pyramid, encoder.strides, self.finest)
        if self.head == "upernet":
            x, _ = UPerDecoder(self.width, self.bins, common=common, name="decoder")(taken, train=train)
        else:
            x = ConvNormAct(self.width, common=common, name="conv")(taken[-1], train=train)
        y = Dropout(self.dropout, axis_name=common.axis_name, spatial=True, name="dropout")(x, train=train)
        maps, kernels = KernelHead(self.num_classes, kernel_init=he_normal, name="head")(y)
        found = [maps]
        for i in range(1, self.rounds + 1):
            maps, kernels = KernelRound(self.num_heads, self.hidden, common.dtype, name=f"round{i}")(x, kernels, maps)
            found.append(maps)
        aux = tuple(resize(maps, size) for maps in found[:-1]) if train else ()
        aux += auxiliary_logits(self, taken, size, self.aux_width, self.dropout, train=train)
        stages = name_stages(encoder=pyramid, decoder=(x,))
        return resize(maps, size), {"aux": aux, **stages}


def maps_of(features: jax.Array, kernels: jax.Array) -> jax.Array:
    """The product of each kernel with each pixel, f[b,h,w,c] and f[b,k,c] -> f32[b,h,w,k]."""
    return product("byxc,bkc->byxk", features, kernels)
