"""Fast-SCNN (Poudel, Liwicki and Cipolla 2019, "Fast-SCNN: Fast Semantic Segmentation Network", arXiv 1902.04502).

Three convolutions of stride 2 learn to down-sample (Table 1); inverted residuals and pyramid pooling at a quarter of
that resolution find the context; both are added (Table 3), and two separable convolutions classify. With 19 classes and
without auxiliary heads it has 1.14 million parameters, where the paper has 1.11 and leaves the layers of its pyramid
pooling open: they are those of PSPNet here.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import auxiliary_heads, name_stages, to_logits
from jaxseg.nn import ConvNormAct, Dropout, InvertedResidual, Layers, PyramidPooling, resize


class BottleneckStage(nn.Module):
    """Inverted residuals, of which the first has the stride (Table 2): f[b,h,w,c] -> f[b,h/stride,w/stride,features].

    Children: "block1", "block2", ...
    """

    features: int
    stride: int
    blocks: int = 3
    expansion: int = 6
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = InvertedResidual(
                self.features,
                self.expansion * x.shape[-1],
                stride=stride,
                residual=stride == 1 and x.shape[-1] == self.features,
                common=self.common,
                name=f"block{i + 1}",
            )(x, train=train)
        return x


class FeatureFusion(nn.Module):
    """(fine f[b,h,w,c], coarse f[b,y,x,d]) -> f[b,h,w,features]: the fusion of both resolutions (Table 3).

    The coarse features are enlarged and pass an atrous depthwise convolution ("depthwise") and a 1x1 convolution
    ("coarse"); the fine ones pass a 1x1 convolution ("fine"); an activation follows the sum.
    """

    features: int
    rate: int = 4
    common: Layers = Layers()

    @nn.compact
    def __call__(self, fine: jax.Array, coarse: jax.Array, *, train: bool = False) -> jax.Array:
        linear, c = self.common.replace(act=None), coarse.shape[-1]
        x = resize(coarse, fine.shape[1:3])
        x = ConvNormAct(c, dilation=self.rate, groups=c, common=self.common, name="depthwise")(x, train=train)
        x = ConvNormAct(self.features, 1, common=linear, name="coarse")(x, train=train)
        y = ConvNormAct(self.features, 1, common=linear, name="fine")(fine, train=train)
        return self.common.activate(x + y)


class Separable(nn.Module):
    """Depthwise 3x3 and 1x1 convolution, with a norm after each and one activation at the end (section 3.2.1).

    f[b,h,w,c] -> f[b,h/stride,w/stride,features]. Children: "depthwise" (a `ConvNormAct`), "pointwise".
    """

    features: int
    stride: int = 1
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        c, linear = x.shape[-1], self.common.replace(act=None)
        x = ConvNormAct(c, stride=self.stride, groups=c, common=linear, name="depthwise")(x, train=train)
        return ConvNormAct(self.features, 1, common=self.common, name="pointwise")(x, train=train)


class FastSCNN(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        down_widths: channels of the three layers that learn to down-sample.
        widths: channels of the three stages of inverted residuals.
        width: channels of the fusion and of the classifier.
        blocks: inverted residuals of each stage.
        expansion: by which they widen their channels.
        bins: sides of the grids of the pyramid pooling.
        dropout: rate at which channels are dropped before the logits (section 4).
        aux_width: channels of the auxiliary heads on both resolutions, in training, with a loss weight of .4 in the
            paper (section 4); None: no such heads.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    down_widths: tuple[int, int, int] = (32, 48, 64)
    widths: tuple[int, int, int] = (64, 96, 128)
    width: int = 128
    blocks: int = 3
    expansion: int = 6
    bins: tuple[int, ...] = (1, 2, 3, 6)
    dropout: Share = 0.1
    aux_width: int | None = 32
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        size, common = image.shape[1:3], self.common
        stem, *down = self.down_widths
        x = ConvNormAct(stem, stride=2, common=common, name="stem")(image, train=train)
        for i, features in enumerate(down, start=1):
            x = Separable(features, 2, common=common, name=f"down{i}")(x, train=train)
        fine, context = x, []
        for i, (features, stride) in enumerate(zip(self.widths, (2, 2, 1))):
            x = BottleneckStage(features, stride, self.blocks, self.expansion, common=common, name=f"context{i}")(
                x, train=train
            )
            context.append(x)
        share = max(1, x.shape[-1] // len(self.bins))
        x = PyramidPooling(share, self.bins, common=common, name="pyramid")(x, train=train)
        coarse = ConvNormAct(self.width, 1, common=common, name="compress")(x, train=train)
        fused = FeatureFusion(self.width, common=common, name="fuse")(fine, coarse, train=train)
        x = fused
        for i in (1, 2):
            x = Separable(self.width, common=common, name=f"refine{i}")(x, train=train)
        x = Dropout(self.dropout, axis_name=common.axis_name, spatial=True, name="dropout")(x, train=train)
        logits = to_logits(x, self.num_classes, size, dtype=common.dtype)
        on = {"aux_fine": fine, "aux_coarse": coarse}
        aux = auxiliary_heads(self, on, size, self.aux_width, self.dropout, train=train)
        return logits, {"aux": aux, **name_stages(encoder=(fine, *context), decoder=(fused,))}
