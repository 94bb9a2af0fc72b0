"""Residual blocks: the general form y = g(W_c x + W_r h(x)) and its basic, bottleneck and pre-activation cases.

`shortcut` chooses the two linear maps:

- "identity": W_c = W_r = 1 (He 2016); the branch must keep the shape;
- "projection": W_c is a strided 1x1 convolution, W_r = 1;
- "learned": W_c and W_r are both 1x1 convolutions, whatever the shapes;
- "scaled": W_c = 1 where the shape allows, else a 1x1 convolution; W_r = α, one learned number that starts at 0
  (Bachlechner 2020, "ReZero", equation 3; De & Smith 2020, "SkipInit", section 3);
- "scaled_channels": the same with one such number for each channel;
- "weighted": W_c = diag(w), one learned number for each channel, which starts at 1, where the shape allows, else a 1x1
  convolution; W_r = 1. The unit is y = w ⊙ x + h(x), as code samples for the general form often have it: W_c scales
  each channel and mixes none;
- "none": W_c = 0, W_r = 1, the plain block, for comparison in an ablation;
- "auto": identity where the shape allows, else projection.

Children: "shortcut" is W_c (with "shortcut_norm" after it where the block is post-activation), "weight" is W_r, and the
parameters "branch_scale" f32[1] or f32[features] is α and "identity_scale" f32[features] is w.

Before training, W_c and W_r are the identity wherever the channels of x and h are equal: their kernels are identity
matrices, so that a deep network starts with the variances and gradients of one with identity shortcuts, whatever its
depth. Where the channels differ, W_c is drawn with gain 1, which keeps the mean square of a linear map. He's gain of 2
is for a map that a ReLU follows: with it the first sum of pre-activation units is two thirds shortcut, and each later
one more, so that a network of few units learns slowly (docs/networks.md). Two kinds of W_c keep He's kernel: one that
changes the channels in front of a norm, which undoes any gain, and that of "auto" in post-activation blocks.

In a network without norms (`make_norm("none")`) the last convolution of a branch starts at 0, so that a unit starts as
its shortcut (Zhang 2019, "Fixup", section 3): with any other start the variance doubles at each unit. The plain block,
and those whose α starts at 0, keep their kernels.

`shortcut_pool` is the side of the window of an average pooling that has the shortcut's stride; W_c then has stride 1
(He 2019, "Bag of Tricks", Fig. 2c: 2). 1: no pooling. `squeeze_ratio` ends the branch in squeeze-and-excitation gates
(Hu 2018, Fig. 3), child "squeeze"; None: no gates. `drop_path` is the rate of the stochastic depth of the branch (Huang
2016), child "drop". `dropout` is that of the dropout before the last convolution of a branch (Zagoruyko & Komodakis
2016, "Wide Residual Networks", section 2.4), child "dropout".
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import check_value
from jaxseg.nn.attention import SqueezeExcite
from jaxseg.nn.conv import Conv, ConvNormAct, check_image, identity_kernel, unit_gain
from jaxseg.nn.dense import parameter
from jaxseg.nn.dropout import Dropout, StochasticDepth
from jaxseg.nn.joined import Features, whole
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.norm import is_identity
from jaxseg.nn.ops.pooling import avg_pool
from jaxseg.types import Initializer

Shortcut = Literal["auto", "identity", "projection", "learned", "scaled", "scaled_channels", "weighted", "none"]
SHORTCUTS: tuple[str, ...] = get_args(Shortcut)


def _combine(
    block: nn.Module,
    x: Features,
    branch: jax.Array,
    *,
    shortcut: str,
    stride: int,
    common: Layers,
    train: bool,
    pool: int = 1,
) -> jax.Array:
    """W_c x + W_r branch; x f[b,h,w,c], branch f[b,y,x,o] -> f[b,y,x,o]. Call it in the compact method of `block`."""
    if shortcut not in SHORTCUTS:  # raises an error that names them
        check_value(f"{type(block).__name__}.shortcut", shortcut, Shortcut)
    same, features = x.shape == branch.shape, branch.shape[-1]
    if shortcut == "none":
        return branch
    if shortcut in ("scaled", "scaled_channels"):
        size = 1 if shortcut == "scaled" else features
        scale = parameter(block, "branch_scale", nn.initializers.zeros_init(), (size,))
        branch = branch * scale.astype(branch.dtype).reshape(1, 1, 1, -1)
    if shortcut == "identity" and not same:
        raise ValueError(
            f"An identity shortcut needs a branch that keeps the shape {x.shape[1:]}, this one gives "
            f"{branch.shape[1:]}; take shortcut='projection' or 'auto'."
        )
    if same and shortcut == "weighted":
        x = whole(x)
        weight = parameter(block, "identity_scale", nn.initializers.ones_init(), (features,))
        return x * weight.astype(x.dtype).reshape(1, 1, 1, -1) + branch
    if same and shortcut not in ("projection", "learned"):
        return whole(x) + branch
    if pool > 1:
        x, stride = _mean_around(whole(x), pool, stride), 1
    # The branch ends in a bias or in a norm that has one, so the shortcut needs no bias.
    init = _shortcut_init(shortcut, x.shape[-1], features, common)
    y = Conv(features, 1, stride=stride, use_bias=False, dtype=common.dtype, kernel_init=init, name="shortcut")(x)
    y = common.normalise(y, "shortcut_norm", train=train)
    if shortcut == "learned":
        weight = Conv(features, 1, use_bias=False, dtype=common.dtype, kernel_init=identity_kernel, name="weight")
        branch = weight(branch)
    if y.shape != branch.shape:
        raise ValueError(
            f"The shortcut gives {y.shape[1:]} and the branch {branch.shape[1:]}; is stride={stride} right?"
        )
    return y + branch


def _shortcut_init(shortcut: str, c: int, features: int, common: Layers) -> Initializer:
    """Returns the initialiser of W_c from c channels to `features`; see the module."""
    if shortcut == "auto" and common.norm is not None:
        return common.kernel_init
    if c == features:
        return identity_kernel
    return unit_gain if is_identity(common.norm) else common.kernel_init


def _last_of_branch(common: Layers, shortcut: str) -> Layers:
    """Returns `common` with the initialiser of the last convolution of a branch; see the module."""
    if common.norm is None or not is_identity(common.norm) or shortcut in ("scaled", "scaled_channels", "none"):
        return common
    return common.replace(kernel_init=nn.initializers.zeros_init())


def _mean_around(x: jax.Array, window: int, stride: int) -> jax.Array:
    """f[b,h,w,c] -> f[b,h/stride,w/stride,c] (rounded up): means of windows; padding is not counted.

    At stride 1, where dilation replaces the stride, the input is padded with zeros at the bottom and right, which are
    counted, as in timm.
    """
    if stride > 1:
        return avg_pool(x, window, stride, ceil_mode=True)
    before, after = (window - 1) // 2, window // 2
    return avg_pool(jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0))), window, 1)


class ResidualBlock(nn.Module):
    """The general residual form y = g(W_c x + W_r h(x)): f[b,h,w,c] -> f[b,y,x,o], for any branch h.

    For units of your own; the networks of jaxseg use the three blocks below, which are this form with a fixed branch.

    Attributes:
        branch: builds h: `branch(name="branch")(x, train=train)`.
        stride: the factor by which h reduces height and width; the shortcut has the same stride.
        shortcut: see the module.
        common: gives g (act; None is the identity), the norm after W_c, and the dtype of W_c and W_r.

    Raises:
        ValueError: for an unknown shortcut, or an identity where the branch changes the shape.
    """

    branch: Callable[..., nn.Module]
    stride: int = 1
    shortcut: str = "auto"
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "ResidualBlock")
        h = self.branch(name="branch")(x, train=train)
        y = _combine(self, x, h, shortcut=self.shortcut, stride=self.stride, common=self.common, train=train)
        return self.common.activate(y)


class BasicBlock(nn.Module):
    """conv-norm-act, conv-norm, add, act (He 2015, Fig. 5 left): f[b,h,w,c] -> f[b,h/stride,w/stride,features].

    Children: "conv1" and "conv2" (3x3 `ConvNormAct`s), and those of the shortcut, see the module.

    Attributes:
        features: output channels.
        stride: of the first convolution and of the shortcut; sizes are rounded up.
        dilation: of both convolutions.
        first_dilation: of the first convolution, if it differs.
        shortcut, shortcut_pool, squeeze_ratio, dropout, drop_path: see the module.
        last_act: whether the activation follows the sum.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: for an unknown shortcut, an identity where the branch changes the shape, or `drop_path` without a
            shortcut.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    first_dilation: int | None = None
    shortcut: str = "auto"
    shortcut_pool: int = 1
    squeeze_ratio: int | None = None
    dropout: float = 0.0
    drop_path: float = 0.0
    last_act: bool = True
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: Features, *, train: bool = False) -> jax.Array:
        check_image(x, "BasicBlock")
        first = self.first_dilation or self.dilation
        conv1 = ConvNormAct(self.features, stride=self.stride, dilation=first, common=self.common, name="conv1")
        last = _last_of_branch(self.common, self.shortcut).replace(act=None)
        conv2 = ConvNormAct(self.features, dilation=self.dilation, common=last, name="conv2")
        h = conv2(_drop_entries(self, conv1(x, train=train), train=train), train=train)
        return _finish(self, x, h, train=train)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions, add, act (He 2015, Fig. 5 right): f[b,h,w,c] -> f[b,h/stride,w/stride,features].

    `features` counts the output channels; the 3x3 convolution works on features / ratio of them and carries the stride
    (as torchvision has it). Children: "reduce", "conv", "expand", and those of the shortcut, see the module.

    Attributes:
        features: output channels.
        stride, dilation, groups: of the 3x3 convolution; the shortcut has the stride too.
        ratio: features / ratio is the width of the 3x3 convolution, rounded down, at least 1.
        shortcut, shortcut_pool, squeeze_ratio, dropout, drop_path: see the module.
        last_act, common, errors: as in `BasicBlock`.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    ratio: int = 4
    shortcut: str = "auto"
    shortcut_pool: int = 1
    squeeze_ratio: int | None = None
    dropout: float = 0.0
    drop_path: float = 0.0
    last_act: bool = True
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "BottleneckBlock")
        width = max(1, self.features // self.ratio)
        h = ConvNormAct(width, 1, common=self.common, name="reduce")(x, train=train)
        h = ConvNormAct(
            width, stride=self.stride, dilation=self.dilation, groups=self.groups, common=self.common, name="conv"
        )(h, train=train)
        last = _last_of_branch(self.common, self.shortcut).replace(act=None)
        h = _drop_entries(self, h, train=train)
        h = ConvNormAct(self.features, 1, common=last, name="expand")(h, train=train)
        return _finish(self, x, h, train=train)


def _finish(block: BasicBlock | BottleneckBlock, x: Features, h: jax.Array, *, train: bool) -> jax.Array:
    """The end of both blocks: gates, stochastic depth, the sum with the shortcut, the activation."""
    common = block.common
    if block.squeeze_ratio is not None:
        h = SqueezeExcite(block.squeeze_ratio, dtype=common.dtype, name="squeeze")(h)
    h = _drop_branch(block, h, train=train)
    pool = block.shortcut_pool
    y = _combine(block, x, h, shortcut=block.shortcut, stride=block.stride, common=common, train=train, pool=pool)
    return common.activate(y) if block.last_act else y


def _drop_entries(block: "BasicBlock | BottleneckBlock | PreActBlock", h: jax.Array, *, train: bool) -> jax.Array:
    if block.dropout == 0.0:
        return h
    return Dropout(block.dropout, axis_name=block.common.axis_name, name="dropout")(h, train=train)


def _drop_branch(block: "BasicBlock | BottleneckBlock | PreActBlock", h: jax.Array, *, train: bool) -> jax.Array:
    if block.drop_path == 0.0:
        return h
    if block.shortcut == "none":
        raise ValueError("drop_path drops the branch of a residual unit, and shortcut='none' leaves nothing beside it.")
    return StochasticDepth(block.drop_path, axis_name=block.common.axis_name, name="drop")(h, train=train)


class PreActBlock(nn.Module):
    """norm-act-conv twice, then add (He 2016b, Fig. 4e; Zhang 2018, Fig. 1b): f[b,h,w,c] -> f[b,h/s,w/s,features].

    Nothing follows the sum, so that an identity shortcut passes the input on unchanged; a projection has neither norm
    nor activation. The stride s is the first convolution's. Children: "norm1", "conv1", "norm2", "conv2", and
    those of the shortcut, see the module.

    Attributes:
        features: output channels.
        stride: of the first convolution and of the shortcut; sizes are rounded up.
        dilation: of both convolutions.
        shortcut, dropout, drop_path: see the module.
        first_preact: whether norm1 and an activation come before conv1. False for the first block of a network, whose
            input is the image (Zhang 2018, Table 1).
    """

    features: int
    stride: int = 1
    dilation: int = 1
    shortcut: str = "auto"
    first_preact: bool = True
    dropout: float = 0.0
    drop_path: float = 0.0
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: Features, *, train: bool = False) -> jax.Array:
        check_image(x, "PreActBlock")
        common = self.common
        h = common.activate(common.normalise(x, "norm1", train=train)) if self.first_preact else x
        space: dict[str, Any] = {"dilation": self.dilation, "dtype": common.dtype}
        bias, first = is_identity(common.norm), common.kernel_init
        h = Conv(self.features, stride=self.stride, use_bias=bias, kernel_init=first, **space, name="conv1")(h)
        h = _drop_entries(self, common.activate(common.normalise(h, "norm2", train=train)), train=train)
        last = _last_of_branch(common, self.shortcut).kernel_init
        h = Conv(self.features, use_bias=True, kernel_init=last, **space, name="conv2")(h)
        h = _drop_branch(self, h, train=train)
        linear = common.replace(norm=None)
        return _combine(self, x, h, shortcut=self.shortcut, stride=self.stride, common=linear, train=train)
