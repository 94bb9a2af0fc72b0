"""Semantic FPN (Kirillov, Girshick, He and Dollár 2019, "Panoptic Feature Pyramid Networks", section 3.1, Fig. 3).

The feature pyramid of Lin et al. 2017 ("Feature Pyramid Networks for Object Detection", Fig. 3) under the semantic
branch of Kirillov et al.: convolutions and up-sampling by 2 bring each level to the resolution of the finest, the sum
of all passes a 1x1 convolution, which gives the logits.

The form of segmentation_models_pytorch's `FPN` is `smooth=False`, `align_corners=True`, `dropout=.2`.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import coarse_levels, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, ConvNormAct, Dropout, Layers, is_identity, make_norm, resize


class FeaturePyramid(nn.Module):
    """Pyramid of any widths -> pyramid of `features` channels (Lin et al. 2017, Fig. 3), finest first.

    Each level is a 1x1 convolution of the encoder's level plus the next coarser level, enlarged to the same size; with
    `smooth` a 3x3 convolution follows each sum. Children: "lateral{i}", "smooth{i}".
    """

    features: int
    smooth: bool = True
    up: Literal["nearest", "bilinear"] = "nearest"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pyramid: Sequence[jax.Array], *, train: bool = False) -> tuple[jax.Array, ...]:
        del train
        levels = [Conv(self.features, 1, dtype=self.dtype, name=f"lateral{i}")(x) for i, x in enumerate(pyramid)]
        for i in reversed(range(len(levels) - 1)):
            levels[i] = levels[i] + resize(levels[i + 1], levels[i].shape[1:3], self.up)
        if self.smooth:
            levels = [Conv(self.features, dtype=self.dtype, name=f"smooth{i}")(x) for i, x in enumerate(levels)]
        return tuple(levels)


class SemanticBranch(nn.Module):
    """One level f[b,h,w,c] -> f[b,*sizes[0],features] (Kirillov et al. 2019, Fig. 3).

    A 3x3 convolution, norm and activation precede each enlargement by one level. `sizes` are those of the levels that
    are finer than this one, finest first; if there are none, there is one convolution and no enlargement. Children:
    "conv1", "conv2", ...
    """

    features: int
    sizes: tuple[tuple[int, ...], ...]
    align_corners: bool = False
    common: Layers = Layers(norm=make_norm("group", num_groups=32))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(max(1, len(self.sizes))):
            x = ConvNormAct(self.features, common=self.common, name=f"conv{i + 1}")(x, train=train)
            if self.sizes:
                x = resize(x, self.sizes[-1 - i], align_corners=self.align_corners)
        return x


def semantic_features(
    pyramid: Sequence[jax.Array],
    width: int,
    branch_width: int,
    *,
    smooth: bool = True,
    merge: Literal["add", "concat"] = "add",
    branch_norm: Literal["group", "same"] = "group",
    align_corners: bool = False,
    dropout: float = 0.0,
    common: Layers,
    train: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...], list[jax.Array]]:
    """Returns the features f[b,h,w,.] that a Semantic FPN classifies, its feature pyramid, and its branches.

    Call it in the compact method of a network, whose fields the arguments are (`FPN`). Its children: "decoder",
    "branch0", "branch1", ..., "dropout".
    """
    levels = FeaturePyramid(width, smooth, dtype=common.dtype, name="decoder")(pyramid)
    inner = common
    if branch_norm == "group" and not is_identity(common.norm):
        inner = common.replace(norm=make_norm("group", num_groups=32, dtype=common.dtype))
    branches = []
    for i, level in enumerate(levels):
        sizes = tuple(finer.shape[1:3] for finer in levels[:i])
        branch = SemanticBranch(branch_width, sizes, align_corners, common=inner, name=f"branch{i}")
        branches.append(branch(level, train=train))
    x = cast(jax.Array, sum(branches)) if merge == "add" else jnp.concatenate(branches[::-1], axis=-1)
    x = Dropout(dropout, axis_name=common.axis_name, spatial=True, name="dropout")(x, train=train)
    return x, levels, branches


class FPN(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w: the sizes of the levels are the encoder's own.

    Attributes:
        num_classes: k.
        width: channels of the feature pyramid.
        branch_width: channels of the semantic branch.
        finest: the smallest stride whose level takes part; the branches are merged there.
        smooth: whether a 3x3 convolution follows each sum of the feature pyramid, as in Lin et al. 2017.
        merge: how the branches are merged: their sum, or their concatenation.
        branch_norm: "group": the paper's group norm of 32 groups in the branches, unless the network has no norm;
            "same": the network's norm.
        align_corners: of the bilinear enlargements.
        dropout: rate at which channels are dropped before the logits.
        encoder: an `EncoderFactory`; the paper's is ResNet-50 or deeper.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 256
    branch_width: int = 128
    finest: int = 4
    smooth: bool = True
    merge: Literal["add", "concat"] = "add"
    branch_norm: Literal["group", "same"] = "group"
    align_corners: bool = False
    dropout: Share = 0.0
    encoder: EncoderFactory = encoders.factory("resnet50")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        pyramid = encoder(image, train=train)
        taken, _ = coarse_levels("FPN", pyramid, encoder.strides, self.finest)
        x, levels, branches = semantic_features(
            taken,
            self.width,
            self.branch_width,
            smooth=self.smooth,
            merge=self.merge,
            branch_norm=self.branch_norm,
            align_corners=self.align_corners,
            dropout=self.dropout,
            common=self.common,
            train=train,
        )
        logits = to_logits(
            x, self.num_classes, image.shape[1:3], align_corners=self.align_corners, dtype=self.common.dtype
        )
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=levels, branch=branches)}
