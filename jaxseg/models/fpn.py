"""Semantic FPN (Kirillov, Girshick, He and Dollár 2019, "Panoptic Feature Pyramid Networks", section 3.1, Fig. 3).

The feature pyramid of Lin et al. 2017 ("Feature Pyramid Networks for Object Detection", Fig. 3) under the semantic
branch of Kirillov et al.: each level is brought to the finest one's resolution by convolutions and doublings, all are
summed, and a 1x1 convolution gives the logits.

The form of segmentation_models_pytorch's `FPN` is `smooth=False`, `align_corners=True`, `dropout=.2`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models import encoders
from jaxseg.models.assembly import coarse_levels, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, ConvNormAct, Dropout, is_identity, make_norm, resize
from jaxseg.types import Activation, NormFactory


class FeaturePyramid(nn.Module):
    """Pyramid of any widths -> pyramid of `features` channels (Lin et al. 2017, Fig. 3), finest first.

    Each level is its own 1x1 convolution plus the level above it, enlarged to the same size; with `smooth` a 3x3
    convolution follows each sum. Children: "lateral{i}", "smooth{i}".
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

    A 3x3 convolution, norm and activation before each enlargement by one level. `sizes` are those of the levels that
    are finer than this one, finest first; without any there is one convolution and no enlargement. Children: "conv1",
    "conv2", ...
    """

    features: int
    sizes: tuple[tuple[int, int], ...]
    align_corners: bool = False
    norm: NormFactory = make_norm("group", num_groups=32)
    act: Activation = jax.nn.relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(max(1, len(self.sizes))):
            x = ConvNormAct(self.features, norm=self.norm, act=self.act, dtype=self.dtype, name=f"conv{i + 1}")(
                x, train=train
            )
            if self.sizes:
                x = resize(x, self.sizes[-1 - i], align_corners=self.align_corners)
        return x


class FPN(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w: the sizes of the levels are the encoder's own.

    Attributes:
        num_classes: k.
        width: channels of the feature pyramid.
        branch_width: channels of the semantic branch.
        finest: the smallest stride whose level takes part; the branches meet there.
        smooth: whether a 3x3 convolution follows each sum of the feature pyramid, as in Lin et al. 2017.
        merge: how the branches meet: their sum, or side by side.
        branch_norm: "group": the paper's group norm of 32 groups in the branches, whatever `norm` is (but none where
            that is none); "same": `norm`.
        align_corners: of the bilinear enlargements.
        dropout: rate at which channels are dropped before the logits.
        encoder: an `EncoderFactory`; the paper's is ResNet-50 or deeper.
        axis_name: mapped axis over which dropout is drawn.
    """

    num_classes: int
    width: int = 256
    branch_width: int = 128
    finest: int = 4
    smooth: bool = True
    merge: Literal["add", "concat"] = "add"
    branch_norm: Literal["group", "same"] = "group"
    align_corners: bool = False
    dropout: float = 0.0
    encoder: EncoderFactory = encoders.factory("resnet50")
    norm: NormFactory = make_norm("batch")
    act: Activation = jax.nn.relu
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, norm=self.norm, act=self.act, dtype=self.dtype)
        pyramid = encoder(image, train=train)
        taken, _ = coarse_levels("FPN", pyramid, encoder.strides, self.finest)
        levels = FeaturePyramid(self.width, self.smooth, dtype=self.dtype, name="decoder")(taken)
        norm = self.norm
        if self.branch_norm == "group" and not is_identity(norm):
            norm = make_norm("group", num_groups=32, dtype=self.dtype)
        branches = []
        for i, level in enumerate(levels):
            branch = SemanticBranch(
                self.branch_width,
                tuple(finer.shape[1:3] for finer in levels[:i]),
                self.align_corners,
                norm=norm,
                act=self.act,
                dtype=self.dtype,
                name=f"branch{i}",
            )
            branches.append(branch(level, train=train))
        x = sum(branches) if self.merge == "add" else jnp.concatenate(branches[::-1], axis=-1)
        x = Dropout(self.dropout, axis_name=self.axis_name, spatial=True, name="dropout")(x, train=train)
        logits = to_logits(x, self.num_classes, image.shape[1:3], align_corners=self.align_corners, dtype=self.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=levels, branch=branches)}
