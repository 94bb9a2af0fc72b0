"""ICNet (Zhao et al. 2018, "ICNet for Real-Time Semantic Segmentation on High-Resolution Images", arXiv 1704.08545).

A cascade of three resolutions (section 3.2, Fig. 2): the image at a quarter of its size passes a PSPNet-50, at half of
its size the first layers of the same network, and at its own size three convolutions. Cascade feature fusion joins them
(section 3.3, Fig. 3), and in training the two coarser results have heads of their own (cascade label guidance). As in
the authors' code all layers have half of PSPNet-50's channels, to which the paper compresses it, the coarse branch
continues from the features of the middle one, shrunk by 2, the means of the pyramid pooling are added, and each change
of size aligns corners. The authors' blocks have their stride in the first convolution, ours in the 3x3 one. The loss
compares all results enlarged to the size of the image, the paper's at their own sizes, 1/16, 1/8 and 1/4, with labels
that are shrunk to them (section 3.4).

The paper has no number of parameters, and tables of later papers have 26.5 million: with 19 classes and without
auxiliary heads there are 6.70 million, counted here.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models.assembly import name_stages, to_logits
from jaxseg.models.encoders.resnet import ResNetStage
from jaxseg.nn import BottleneckBlock, ConvNormAct, Layers, adaptive_avg_pool, max_pool, resize


class CascadeFusion(nn.Module):
    """(fine f[b,h,w,c], coarse f[b,h,w,d]) -> f[b,h,w,features]: cascade feature fusion, CFF (Fig. 3).

    act(norm(dilated 3x3 convolution of the coarse features) + norm(1x1 convolution of the fine ones)), where the coarse
    features have been enlarged. Children: "coarse", "fine".
    """

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, fine: jax.Array, coarse: jax.Array, *, train: bool = False) -> jax.Array:
        linear = self.common.replace(act=None)
        x = ConvNormAct(self.features, dilation=2, common=linear, name="coarse")(coarse, train=train)
        return self.common.activate(x + ConvNormAct(self.features, 1, common=linear, name="fine")(fine, train=train))


def _bottleneck(features: int, rates: tuple[int, int], **fields: Any) -> nn.Module:
    return BottleneckBlock(features, dilation=rates[0], **fields)


class ICNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w. The defaults are the paper's network.

    Attributes:
        num_classes: k.
        width: channels of the stem, of the PSPNet and of the branch of the whole image; the four stages of blocks have
            4, 8, 16 and 32 times as many. PSPNet-50 has 64.
        depths: blocks of each stage. The middle branch ends after the first block of the second stage.
        bins: sides of the grids of the pyramid pooling.
        context_width: channels after the pyramid pooling.
        fuse_width: channels of both fusions.
        align_corners: of every change of size; True in the authors' code.
        aux: heads on the coarse features and on the first fusion, in training: `out["aux"]` has that of the first
            fusion, then that of the coarse features. The paper weighs them .4 and .16 (section 3.4).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 32
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    bins: tuple[int, ...] = (1, 2, 3, 6)
    context_width: int = 256
    fuse_width: int = 128
    align_corners: bool = True
    aux: bool = True
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        size = image.shape[1:3]
        middle = self._middle(self._resized(image, _divided(size, 2)), train=train)
        coarse = self._coarse(self._resized(middle, _divided(middle.shape[1:3], 2)), train=train)
        fine = self._convs(image, "fine", train=train)

        coarse = self._resized(coarse, middle.shape[1:3])
        fused = CascadeFusion(self.fuse_width, self.common, name="fuse1")(middle, coarse, train=train)
        enlarged = self._resized(fused, fine.shape[1:3])
        x = CascadeFusion(self.fuse_width, self.common, name="fuse0")(fine, enlarged, train=train)
        # The authors classify at a quarter of the size, after an enlargement that commutes with the classifier.
        logits = self._resized(self._logits(x, _divided(size, 4), "head"), size)
        aux: tuple[jax.Array, ...] = ()
        if self.aux and (train or self.is_initializing()):
            aux = (self._logits(enlarged, size, "aux0"), self._logits(coarse, size, "aux1"))
        return logits, {"aux": aux, **name_stages(encoder=(fine, middle, coarse), decoder=(x, fused))}

    def _middle(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The image at half of its size -> features at stride 8 of it."""
        x = max_pool(self._convs(x, "stem", strides=(2, 1, 1), train=train), 3, 2, padding=1)
        x = self._stage(x, 1, self.depths[0], "stage1", train=train)
        return self._stage(x, 2, 1, "stage2a", stride=2, train=train)

    def _coarse(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The rest of a PSPNet, whose last two stages are dilated."""
        x = self._stage(x, 2, self.depths[1] - 1, "stage2b", project=False, train=train)
        x = self._stage(x, 3, self.depths[2], "stage3", rate=2, train=train)
        x = self._stage(x, 4, self.depths[3], "stage4", rate=4, train=train)
        means = [self._resized(adaptive_avg_pool(x, (side, side)), x.shape[1:3]) for side in self.bins]
        total = functools.reduce(jnp.add, means, x)
        return ConvNormAct(self.context_width, 1, common=self.common, name="compress")(total, train=train)

    def _convs(self, x: jax.Array, name: str, strides: tuple[int, int, int] = (2, 2, 2), *, train: bool) -> jax.Array:
        """Three 3x3 convolutions: "name1" to "name3"."""
        for i, (stride, factor) in enumerate(zip(strides, (1, 1, 2)), start=1):
            conv = ConvNormAct(factor * self.width, stride=stride, common=self.common, name=f"{name}{i}")
            x = conv(x, train=train)
        return x

    def _stage(
        self,
        x: jax.Array,
        number: int,
        blocks: int,
        name: str,
        *,
        stride: int = 1,
        rate: int = 1,
        project: bool = True,
        train: bool,
    ) -> jax.Array:
        block = functools.partial(_bottleneck, common=self.common)
        features, rates = 2 * 2**number * self.width, (rate,) * blocks
        return ResNetStage(block, features, stride, project, rates, rate, name=name)(x, train=train)

    def _resized(self, x: jax.Array, size: tuple[int, ...]) -> jax.Array:
        return resize(x, size, align_corners=self.align_corners)

    def _logits(self, x: jax.Array, size: tuple[int, ...], name: str) -> jax.Array:
        fields = {"align_corners": self.align_corners, "dtype": self.common.dtype}
        return to_logits(x, self.num_classes, size, **fields, name=name)


def _divided(size: tuple[int, ...], by: int) -> tuple[int, ...]:
    """The height and width, divided and rounded up."""
    return tuple(-(-side // by) for side in size)
