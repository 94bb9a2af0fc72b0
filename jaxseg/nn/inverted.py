"""The inverted residual block of the mobile networks (Sandler et al. 2018, "MobileNetV2", Fig. 3b and Table 1).

MobileNetV3 adds squeeze-and-excitation after the depthwise convolution (Howard et al. 2019, Fig. 4), and EfficientNet
drops the branch by chance; its authors call the block MBConv (Tan and Le 2019, section 4).
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.nn.attention import SqueezeExcite
from jaxseg.nn.conv import ConvNormAct, check_image
from jaxseg.nn.dropout import StochasticDepth
from jaxseg.types import Activation, NormFactory


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project: f[b,h,w,c] -> f[b,h/stride,w/stride,features] (sizes rounded up).

    The projection has no activation ("linear bottleneck"). Children: "expand" (where expanded differs from c) and
    "depthwise", `ConvNormAct`s; "excite" where squeeze > 0; "project"; "drop" where the block is residual.

    Attributes:
        features: channels of the result.
        expanded: channels of the depthwise convolution.
        kernel_size, stride, dilation: of the depthwise convolution.
        residual: adds the input. A block that shrinks the image in the undilated network has no shortcut, so a stride
            of 1 is not enough to tell.
        squeeze: features between the two layers of the squeeze-and-excitation, 0 for none.
        squeeze_act: the activation between them.
        gate: the activation that ends them.
        drop: rate of the stochastic depth.
        axis_name: mapped axis over which it is drawn.
    """

    features: int
    expanded: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    residual: bool = False
    squeeze: int = 0
    squeeze_act: Activation = nn.relu
    gate: Activation = nn.sigmoid
    drop: float = 0.0
    norm: NormFactory | None = None
    act: Activation = nn.relu6
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "InvertedResidual")
        if self.residual and (self.stride != 1 or x.shape[-1] != self.features):
            raise ValueError(
                f"InvertedResidual cannot add {x.shape[-1]} channels to {self.features} at stride {self.stride}."
            )
        layers = {"norm": self.norm, "dtype": self.dtype}
        h = x
        if self.expanded != x.shape[-1]:
            h = ConvNormAct(self.expanded, 1, act=self.act, **layers, name="expand")(h, train=train)
        h = ConvNormAct(
            self.expanded, self.kernel_size, stride=self.stride, dilation=self.dilation, groups=self.expanded,
            act=self.act, **layers, name="depthwise",
        )(h, train=train)  # fmt: skip
        if self.squeeze:
            h = SqueezeExcite(
                features=self.squeeze, act=self.squeeze_act, gate=self.gate, dtype=self.dtype, name="excite"
            )(h)
        h = ConvNormAct(self.features, 1, act=None, **layers, name="project")(h, train=train)
        if not self.residual:
            return h
        return x + StochasticDepth(self.drop, axis_name=self.axis_name, name="drop")(h, train=train)


def round_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, at least `divisor`, and the next one if that loses over 10 %.

    So the reference networks scale their widths: round_channels(35) == 32 is not more than a tenth below, but
    round_channels(11) == 16, since 8 would be.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
