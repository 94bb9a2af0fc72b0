"""VGG (Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", Table 1).

Configurations A, B, D and E of the paper are VGG-11, 13, 16 and 19: stages of 3x3 convolutions and ReLU, each ended by
2x2 max-pooling. The three dense layers after them are not part of the encoder (FCN and DeepLab have their own).
"""

from typing import Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.nn import Conv, Dropout, Layers, is_identity, max_pool


class VGGStage(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: convolution, norm where there is one, ReLU, `convs` times.

    Children: "conv1", "norm1", "conv2", ...
    """

    features: int
    convs: int = 2
    kernel_size: int = 3
    dilation: int = 1
    use_bias: bool = True
    common: Layers = Layers(norm=None)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(1, self.convs + 1):
            x = Conv(
                self.features,
                self.kernel_size,
                dilation=self.dilation,
                use_bias=self.use_bias or is_identity(self.common.norm),
                dtype=self.common.dtype,
                kernel_init=self.common.kernel_init,
                name=f"conv{i}",
            )(x)
            x = self.common.normalise(x, f"norm{i}", train=train)
            x = jax.nn.relu(x)
        return x


class VGG(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^i,w/2^i,widths[i]], finest first; the defaults are VGG-16.

    Attributes:
        channels: of the convolutions of each stage.
        depths: convolutions of each stage; (1, 1, 2, 2, 2) is VGG-11, (2, 2, 2, 2, 2) 13, (2, 2, 3, 3, 3) 16 and
            (2, 2, 4, 4, 4) 19. Their convolutions have 9,220,480, 9,404,992, 14,714,688 and 20,024,384 parameters.
        kernel_size: side of every convolution, odd.
        use_norm: whether a norm follows each convolution, in the encoders whose names end in "_bn"; not in the paper.
        use_bias: whether there is a bias before a norm too, as in the published weights; without a norm there always
            is one.
        levels: "convolved": each level is the end of a stage, at strides 1, 2, 4, ..., and the last the pooling after
            them all, as in segmentation_models.pytorch. "pooled": the result of each pooling, at strides 2, 4, 8, ...
        output_stride: poolings beyond it keep the size (3x3 windows, stride 1) and the stages after them dilate, as in
            DeepLab (Chen et al. 2015, section 3.1).
        rounding: of the sizes that a 2x2 pooling halves. "floor", as torch does, needs an image of output_stride
            pixels at least.
        dropout: rate after the deeper half of the poolings (Kendall et al. 2017, "Bayesian SegNet", section 3).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    kernel_size: int = 3
    use_norm: bool = False
    use_bias: bool = True
    levels: Literal["convolved", "pooled"] = "convolved"
    output_stride: Literal[2, 4, 8, 16, 32] = 32
    rounding: Literal["ceil", "floor"] = "ceil"
    dropout: Share = 0.0
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        after = tuple(min(2 ** (i + 1), self.output_stride) for i in range(len(self.channels)))
        return after if self.levels == "pooled" else (1, *after)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return self.channels if self.levels == "pooled" else (*self.channels, self.channels[-1])

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        if len(self.channels) != len(self.depths):
            raise ValueError(f"VGG: channels {self.channels} and depths {self.depths} must be of one length.")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"VGG: kernel_size must be odd, got {self.kernel_size}.")
        convolved, pooled = [], []
        for i, (features, convs) in enumerate(zip(self.channels, self.depths)):
            x = VGGStage(
                features,
                convs,
                self.kernel_size,
                dilation=max(1, 2**i // self.output_stride),
                use_bias=self.use_bias,
                common=self.common if self.use_norm else self.common.replace(norm=None),
                name=f"stage{i}",
            )(x, train=train)
            convolved.append(x)
            if 2 ** (i + 1) > self.output_stride:
                x = max_pool(x, 3, 1, padding=1)
            else:
                x = max_pool(x, 2, ceil_mode=self.rounding == "ceil")
            if i >= len(self.channels) // 2:
                x = Dropout(self.dropout, axis_name=self.common.axis_name, name=f"dropout{i}")(x, train=train)
            pooled.append(x)
        return tuple(pooled) if self.levels == "pooled" else (*convolved, x)
