"""STDC (Fan et al. 2021, "Rethinking BiSeNet For Real-time Semantic Segmentation", arXiv 2104.13188, section 3.1).

The convolutions of a block get ever narrower, and all of their results are its features: the first has half of the
channels and sees one pixel, the last an eighth and sees the most (Fig. 3, short-term dense concatenation). With the
classifier of Table 2, STDC1 and STDC2 have the paper's 8.44 and 12.47 million parameters; their convolutions alone,
which are here, have 5.32 and 9.35.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Count
from jaxseg.errors import ArgumentError, counted
from jaxseg.nn import BARE, ConvNormAct, Layers, avg_pool


class ShortTermConcat(nn.Module):
    """f[b,h,w,c] -> f[b,h/stride,w/stride,features]: the results of n convolutions, concatenated (Fig. 3, equation 2).

    Convolution i has features / 2^i channels, the last as many as the one before it; the first is 1x1, the others 3x3.
    With stride 2 a depthwise convolution comes before the second, as in the authors' code, and means over 3x3 pixels
    take the first result to the same size; the zeros of the padding count in the means. Children: "conv1" to "convn",
    with stride 2 "depthwise".

    Raises:
        ArgumentError: for less than two convolutions, or features that cannot be halved as often.
    """

    features: int
    stride: int = 1
    convs: int = 4
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        n, features = self.convs, self.features
        if n < 2 or features % 2 ** (n - 1):
            raise ArgumentError(
                f"An STDC block of {counted(n, 'convolution')} needs at least 2, and channels that 2^{max(n - 1, 1)} "
                f"divides, got {features}."
            )
        first = x = ConvNormAct(features // 2, 1, common=self.common, name="conv1")(x, train=train)
        if self.stride > 1:
            linear, c = self.common.replace(act=None), x.shape[-1]
            x = ConvNormAct(c, stride=self.stride, groups=c, common=linear, name="depthwise")(x, train=train)
            first = avg_pool(jnp.pad(first, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, self.stride)
        parts = [first]
        for i in range(2, n + 1):
            x = ConvNormAct(features // 2 ** min(i, n - 1), common=self.common, name=f"conv{i}")(x, train=train)
            parts.append(x)
        return jnp.concatenate(parts, axis=-1)


class STDCStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/2,w/2,features]: blocks, the first of stride 2. Children: "block1", "block2", ..."""

    features: int
    blocks: int
    convs: int = 4
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(self.blocks):
            stride = 2 if i == 0 else 1
            x = ShortTermConcat(self.features, stride, self.convs, common=self.common, name=f"block{i + 1}")(
                x, train=train
            )
        return x


class STDC(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^(i+1),w/2^(i+1),widths[i]], finest first; the defaults are STDC1 (Table 2).

    Children: "stem1", "stem2", "stage1", "stage2", ...

    Attributes:
        depths: blocks of each stage.
        widths: channels of each level: of the two convolutions of the stem, then of each stage.
        convs: convolutions of a block, 4 in the paper.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    depths: tuple[Count, ...] = (2, 2, 2)
    widths: tuple[int, ...] = (32, 64, 256, 512, 1024)
    convs: int = 4
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(2 ** (i + 1) for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        if len(self.depths) != len(self.widths) - 2:
            raise ArgumentError(
                f"STDC: widths {self.widths} must be those of the two convolutions of the stem and of the "
                f"{counted(len(self.depths), 'stage')} of depths {self.depths}."
            )
        pyramid = []
        for i, features in enumerate(self.widths[:2], start=1):
            x = ConvNormAct(features, stride=2, common=self.common, name=f"stem{i}")(x, train=train)
            pyramid.append(x)
        for i, (features, blocks) in enumerate(zip(self.widths[2:], self.depths), start=1):
            x = STDCStage(features, blocks, self.convs, common=self.common, name=f"stage{i}")(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)
