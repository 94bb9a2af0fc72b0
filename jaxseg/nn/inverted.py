"""The inverted residual block of the mobile networks (Sandler et al. 2018, "MobileNetV2", Fig. 3b and Table 1).

MobileNetV3 adds squeeze-and-excitation after the depthwise convolution (Howard et al. 2019, Fig. 4). EfficientNet adds
stochastic depth; its authors call the block MBConv (Tan and Le 2019, section 4). EfficientNetV2 joins the first two
convolutions of its early blocks to one, "Fused-MBConv" (Tan and Le 2021, Fig. 2).
"""

import functools

import jax
from flax import linen as nn

from jaxseg.errors import counted
from jaxseg.nn.attention import SqueezeExcite
from jaxseg.nn.conv import ConvNormAct, Padding, check_image
from jaxseg.nn.dropout import StochasticDepth
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.norm import is_identity
from jaxseg.types import Activation


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project: f[b,h,w,c] -> f[b,h/stride,w/stride,features] (sizes rounded up).

    The projection has no activation ("linear bottleneck"). Children: "expand" (where expanded differs from c) and
    "depthwise", `ConvNormAct`s; "excite" where squeeze > 0; "project"; "drop" where the block is residual.

    Attributes:
        features: channels of the result.
        expanded: channels of the depthwise convolution.
        kernel_size, stride, dilation: of the depthwise convolution.
        residual: whether the input is added. It does not follow from the stride: a block whose stride dilation has
            replaced has stride 1 and no shortcut.
        squeeze: features between the two layers of the squeeze-and-excitation, 0 for none.
        squeeze_act: the activation between them.
        gate: the activation that ends them.
        drop: rate of the stochastic depth.
        padding: of the depthwise convolution, as in `Conv`.
        common: norm, dtype, mapped axis, and the activation after "expand" and "depthwise".
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
    padding: Padding = None
    common: Layers = BARE.replace(act=nn.relu6)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "InvertedResidual")
        if self.residual and (self.stride != 1 or x.shape[-1] != self.features):
            raise ValueError(
                f"InvertedResidual cannot add {counted(x.shape[-1], 'channel')} to {self.features} at stride "
                f"{self.stride}."
            )
        h = x
        if self.expanded != x.shape[-1]:
            h = ConvNormAct(self.expanded, 1, common=self.common, name="expand")(h, train=train)
        h = ConvNormAct(
            self.expanded,
            self.kernel_size,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.expanded,
            padding=self.padding,
            common=self.common,
            name="depthwise",
        )(h, train=train)
        if self.squeeze:
            h = SqueezeExcite(
                features=self.squeeze, act=self.squeeze_act, gate=self.gate, dtype=self.common.dtype, name="excite"
            )(h)
        last = self.common.replace(act=None)
        if self.residual and self.common.norm is not None and is_identity(self.common.norm):  # see `residual`
            last = last.replace(kernel_init=nn.initializers.zeros_init())
        h = ConvNormAct(self.features, 1, common=last, name="project")(h, train=train)
        if not self.residual:
            return h
        return x + StochasticDepth(self.drop, axis_name=self.common.axis_name, name="drop")(h, train=train)


class FusedInvertedResidual(nn.Module):
    """Expand and filter in one convolution, project: f[b,h,w,c] -> f[b,h/stride,w/stride,features] (sizes rounded up).

    Children: "expand" and "project"; or "conv" alone, with the activation, where expanded = c; "drop" where the block
    is residual.

    Attributes:
        features, expanded, kernel_size, stride, dilation, residual, drop, padding, common: as in `InvertedResidual`,
            where `kernel_size`, `stride`, `dilation` and `padding` are those of the first convolution.
    """

    features: int
    expanded: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    residual: bool = False
    drop: float = 0.0
    padding: Padding = None
    common: Layers = BARE.replace(act=nn.silu)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "FusedInvertedResidual")
        space = {"stride": self.stride, "dilation": self.dilation, "padding": self.padding}
        first = functools.partial(ConvNormAct, kernel_size=self.kernel_size, **space, common=self.common)
        if self.expanded == x.shape[-1]:
            h = first(self.features, name="conv")(x, train=train)
        else:
            h = first(self.expanded, name="expand")(x, train=train)
            last = self.common.replace(act=None)
            h = ConvNormAct(self.features, 1, common=last, name="project")(h, train=train)
        if not self.residual:
            return h
        return x + StochasticDepth(self.drop, axis_name=self.common.axis_name, name="drop")(h, train=train)


def round_channels(channels: float, divisor: int = 8) -> int:
    """Returns the nearest multiple of `divisor`, at least `divisor`, or the next one if that loses more than 10 %.

    The reference networks scale their widths in this way: round_channels(35) == 32, which is less than a tenth below
    35, but round_channels(11) == 16, since 8 is more than a tenth below 11.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
