"""BiSeNet V2 (Yu et al. 2021, "BiSeNet V2: Bilateral Network with Guided Aggregation", arXiv 2004.02147).

A detail branch of few wide layers and a semantic branch of many narrow ones (Table 1), which guided aggregation joins:
each branch gates the other at its own resolution (Fig. 6). In training each stage of the semantic branch has an
auxiliary head (section 4.3, the booster).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models.assembly import auxiliary_heads, name_stages, to_logits
from jaxseg.nn import Conv, ConvNormAct, Layers, avg_pool, global_avg_pool, max_pool, resize
from jaxseg.nn.norm import uses_batch


class DetailStage(nn.Module):
    """3x3 convolutions, of which the first has stride 2: f[b,h,w,c] -> f[b,h/2,w/2,features]. Children: "conv1", ..."""

    features: int
    convs: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(self.convs):
            stride = 2 if i == 0 else 1
            x = ConvNormAct(self.features, stride=stride, common=self.common, name=f"conv{i + 1}")(x, train=train)
        return x


class Stem(nn.Module):
    """f[b,h,w,c] -> f[b,h/4,w/4,features]: convolutions beside max-pooling (Fig. 4a).

    Children: "conv", "reduce", "down", "fuse".
    """

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common = self.common
        x = ConvNormAct(self.features, stride=2, common=common, name="conv")(x, train=train)
        left = ConvNormAct(max(1, self.features // 2), 1, common=common, name="reduce")(x, train=train)
        left = ConvNormAct(self.features, stride=2, common=common, name="down")(left, train=train)
        both = jnp.concatenate([left, max_pool(x, 3, 2, 1)], axis=-1)
        return ConvNormAct(self.features, common=common, name="fuse")(both, train=train)


class GatherExpand(nn.Module):
    """f[b,h,w,c] -> f[b,h/stride,w/stride,features]: the gather-and-expansion layer (Fig. 5b; with a stride, Fig. 5c).

    A 3x3 convolution, a depthwise one to `expansion` times the channels, and a 1x1 convolution; an activation follows
    the sum. With a stride there is a second depthwise convolution, and the shortcut is separable. Children: "gather",
    "expand", "project"; with a stride "depthwise", "shortcut1", "shortcut2".
    """

    features: int
    stride: int = 1
    expansion: int = 6
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        linear, c = self.common.replace(act=None), x.shape[-1]
        wide = self.expansion * c
        h = ConvNormAct(c, common=self.common, name="gather")(x, train=train)
        # The features of one channel stand side by side, as those of a convolution in groups do.
        h = jnp.repeat(h, self.expansion, axis=-1)
        h = ConvNormAct(wide, stride=self.stride, groups=wide, common=linear, name="expand")(h, train=train)
        if self.stride > 1:
            h = ConvNormAct(wide, groups=wide, common=linear, name="depthwise")(h, train=train)
            x = ConvNormAct(c, stride=self.stride, groups=c, common=linear, name="shortcut1")(x, train=train)
            x = ConvNormAct(self.features, 1, common=linear, name="shortcut2")(x, train=train)
        h = ConvNormAct(self.features, 1, common=linear, name="project")(h, train=train)
        return self.common.activate(h + x)


class SemanticStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/2,w/2,features]: `GatherExpand` layers, of which the first has stride 2.

    Children: "ge1", "ge2", ...
    """

    features: int
    layers: int
    expansion: int = 6
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(self.layers):
            stride = 2 if i == 0 else 1
            x = GatherExpand(self.features, stride, self.expansion, common=self.common, name=f"ge{i + 1}")(
                x, train=train
            )
        return x


class ContextEmbedding(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: the image's mean is added to each pixel (Fig. 4b). Children: "norm", "mean", "out".

    With a single image in the batch, batch norm uses its running statistics for the mean.
    """

    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        c, mean = x.shape[-1], global_avg_pool(x)
        several = uses_batch(self, mean, self.common.axis_name, train=train)
        mean = self.common.normalise(mean, "norm", train=several)
        mean = ConvNormAct(c, 1, common=self.common, name="mean")(mean, train=several)
        init = {"dtype": self.common.dtype, "kernel_init": self.common.kernel_init}
        return Conv(c, use_bias=False, **init, name="out")(x + mean)


class GuidedAggregation(nn.Module):
    """(detail f[b,h,w,c], semantic f[b,h/4,w/4,c]) -> f[b,h,w,c]: each gates the other (Fig. 6).

    Children: "detail_keep1", "detail_keep2", "detail_down", "semantic_up", "semantic_keep1", "semantic_keep2", "fuse".
    """

    common: Layers = Layers()

    @nn.compact
    def __call__(self, detail: jax.Array, semantic: jax.Array, *, train: bool = False) -> jax.Array:
        linear, c, size = self.common.replace(act=None), detail.shape[-1], detail.shape[1:3]

        def kept(x: jax.Array, name: str) -> jax.Array:
            x = ConvNormAct(c, groups=x.shape[-1], common=linear, name=f"{name}_keep1")(x, train=train)
            init = {"dtype": linear.dtype, "kernel_init": linear.kernel_init}
            return Conv(c, 1, use_bias=False, **init, name=f"{name}_keep2")(x)

        up = ConvNormAct(c, common=linear, name="semantic_up")(semantic, train=train)
        fine = kept(detail, "detail") * nn.sigmoid(resize(up, size))
        down = ConvNormAct(c, stride=2, common=linear, name="detail_down")(detail, train=train)
        coarse = avg_pool(down, 3, 2, 1) * nn.sigmoid(kept(semantic, "semantic"))
        return ConvNormAct(c, common=linear, name="fuse")(fine + resize(coarse, size), train=train)


class BiSeNetV2(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        detail_widths: channels of the three stages of the detail branch.
        semantic_widths: channels of the stem and of the three stages of the semantic branch; the last must be those of
            the detail branch.
        layers: gather-and-expansion layers of these stages.
        expansion: by which they widen their channels.
        head_width: channels of the convolution before the logits.
        aux_width: channels of the auxiliary heads on the stem and the three stages, in training; the paper weighs them
            like the logits, an aux_weight of 1. None: no such heads.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    detail_widths: tuple[int, int, int] = (64, 64, 128)
    semantic_widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    layers: tuple[int, int, int] = (2, 2, 4)
    expansion: int = 6
    head_width: int = 1024
    aux_width: int | None = 128
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        size, common = image.shape[1:3], self.common
        if self.detail_widths[-1] != self.semantic_widths[-1]:
            raise ValueError(
                f"BiSeNetV2: both branches must end in the same channels, got detail_widths {self.detail_widths} and "
                f"semantic_widths {self.semantic_widths}."
            )
        detail = image
        for i, (features, convs) in enumerate(zip(self.detail_widths, (2, 3, 3))):
            detail = DetailStage(features, convs, common=common, name=f"detail{i}")(detail, train=train)
        stem, *widths = self.semantic_widths
        semantic = [Stem(stem, common=common, name="stem")(image, train=train)]
        for i, (features, layers) in enumerate(zip(widths, self.layers)):
            stage = SemanticStage(features, layers, self.expansion, common=common, name=f"semantic{i}")
            semantic.append(stage(semantic[-1], train=train))
        context = ContextEmbedding(common=common, name="context")(semantic[-1], train=train)
        joined = GuidedAggregation(common=common, name="aggregation")(detail, context, train=train)
        x = ConvNormAct(self.head_width, common=common, name="hidden")(joined, train=train)
        logits = to_logits(x, self.num_classes, size, dtype=common.dtype)
        on = {f"aux{i}": y for i, y in enumerate(semantic)}
        aux = auxiliary_heads(self, on, size, self.aux_width, train=train)
        return logits, {"aux": aux, **name_stages(encoder=(*semantic, context), decoder=(joined,))}
