"""Residual blocks: the general form y = g(W_c x + W_r h(x)) and its basic, bottleneck and pre-activation cases.

`shortcut` chooses the two linear maps:

- "identity": W_c = W_r = 1 (He 2016); the branch must keep the shape;
- "projection": W_c is a strided 1x1 convolution, W_r = 1;
- "learned": W_c and W_r are both 1x1 convolutions, whatever the shapes;
- "none": W_c = 0, W_r = 1, the plain block that an ablation compares with;
- "auto": identity where the shape allows, else projection.

Children: "shortcut" is W_c (with "shortcut_norm" after it where the block is post-activation), "weight" is W_r.

`shortcut_pool` is the side of the window of the average pooling that carries the shortcut's stride in place of W_c
(He 2019, "Bag of Tricks", Fig. 2c: 2); 1: no pooling. `squeeze_ratio` ends the branch in squeeze-and-excitation gates
(Hu 2018, Fig. 3), child "squeeze"; None: no gates.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.attention import SqueezeExcite
from jaxseg.nn.conv import Conv, ConvNormAct, check_image
from jaxseg.nn.norm import is_identity
from jaxseg.nn.ops.pooling import avg_pool
from jaxseg.types import Activation, NormFactory

SHORTCUTS = ("auto", "identity", "projection", "learned", "none")


def _combine(
    x: jax.Array,
    branch: jax.Array,
    *,
    shortcut: str,
    stride: int,
    norm: NormFactory | None,
    dtype: Any,
    train: bool,
    pool: int = 1,
) -> jax.Array:
    """W_c x + W_r branch; x f[b,h,w,c], branch f[b,y,x,o] -> f[b,y,x,o]. To be called within a compact method."""
    if shortcut not in SHORTCUTS:
        raise ValueError(f"A shortcut is one of {', '.join(SHORTCUTS)}; got {shortcut!r}.")
    same = x.shape == branch.shape
    if shortcut == "auto":
        shortcut = "identity" if same else "projection"
    if shortcut == "none":
        return branch
    if shortcut == "identity":
        if not same:
            raise ValueError(
                f"An identity shortcut needs a branch that keeps the shape {x.shape[1:]}, this one gives "
                f"{branch.shape[1:]}; take shortcut='projection' or 'auto'."
            )
        return x + branch
    features = branch.shape[-1]
    if pool > 1:
        x, stride = _mean_around(x, pool, stride), 1
    # The branch ends in a bias or in a norm that has one; a second bias would add nothing.
    x = Conv(features, 1, stride=stride, use_bias=False, dtype=dtype, name="shortcut")(x)
    if norm is not None:
        x = norm(name="shortcut_norm")(x, train=train)
    if shortcut == "learned":
        branch = Conv(features, 1, use_bias=False, dtype=dtype, name="weight")(branch)
    if x.shape != branch.shape:
        raise ValueError(
            f"The shortcut gives {x.shape[1:]} and the branch {branch.shape[1:]}; is stride={stride} right?"
        )
    return x + branch


def _mean_around(x: jax.Array, window: int, stride: int) -> jax.Array:
    """f[b,h,w,c] -> f[b,h/stride,w/stride,c] (rounded up): means of windows of the image's own pixels.

    At stride 1, where dilation took the stride's place, zeros at the bottom and right stand for the missing ones, as in
    timm.
    """
    if stride > 1:
        return avg_pool(x, window, stride, ceil_mode=True)
    before, after = (window - 1) // 2, window // 2
    return avg_pool(jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0))), window, 1)


class ResidualBlock(nn.Module):
    """The general residual form y = g(W_c x + W_r h(x)): f[b,h,w,c] -> f[b,y,x,o], for any branch h.

    Attributes:
        branch: builds h: `branch(name="branch")(x, train=train)`.
        stride: by how much h shrinks the image; the shortcut does the same.
        shortcut: see the module.
        act: g; None is the identity.
        norm: factory of the norm after W_c, None for none.
        dtype: compute dtype of W_c and W_r.

    Raises:
        ValueError: for an unknown shortcut, or an identity where the branch changes the shape.
    """

    branch: Callable[..., nn.Module]
    stride: int = 1
    shortcut: str = "auto"
    act: Activation | None = nn.relu
    norm: NormFactory | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "ResidualBlock")
        h = self.branch(name="branch")(x, train=train)
        y = _combine(
            x, h, shortcut=self.shortcut, stride=self.stride, norm=self.norm, dtype=self.dtype, train=train
        )  # fmt: skip
        return y if self.act is None else self.act(y)


class BasicBlock(nn.Module):
    """conv-norm-act, conv-norm, add, act (He 2015, Fig. 5 left): f[b,h,w,c] -> f[b,h/stride,w/stride,features].

    Children: "conv1" and "conv2" (`ConvNormAct`s), and those of the shortcut, see the module.

    Attributes:
        dilation: of both convolutions.
        first_dilation: of the first one where it differs.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    first_dilation: int | None = None
    shortcut: str = "auto"
    shortcut_pool: int = 1
    squeeze_ratio: int | None = None
    norm: NormFactory | None = None
    act: Activation = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "BasicBlock")
        common = dict(norm=self.norm, dtype=self.dtype)
        first = self.first_dilation or self.dilation
        h = ConvNormAct(self.features, stride=self.stride, dilation=first, act=self.act, **common, name="conv1")(
            x, train=train
        )
        h = ConvNormAct(self.features, dilation=self.dilation, act=None, **common, name="conv2")(h, train=train)
        return _finish(self, x, h, train=train)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions, add, act (He 2015, Fig. 5 right): f[b,h,w,c] -> f[b,h/stride,w/stride,features].

    `features` counts the output channels; the 3x3 convolution works on features / ratio of them and carries the stride
    (as torchvision has it). Children: "reduce", "conv", "expand", and those of the shortcut, see the module.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    ratio: int = 4
    shortcut: str = "auto"
    shortcut_pool: int = 1
    squeeze_ratio: int | None = None
    norm: NormFactory | None = None
    act: Activation = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "BottleneckBlock")
        width = max(1, self.features // self.ratio)
        common = dict(norm=self.norm, dtype=self.dtype)
        h = ConvNormAct(width, 1, act=self.act, **common, name="reduce")(x, train=train)
        h = ConvNormAct(
            width, stride=self.stride, dilation=self.dilation, groups=self.groups, act=self.act, **common, name="conv"
        )(h, train=train)
        h = ConvNormAct(self.features, 1, act=None, **common, name="expand")(h, train=train)
        return _finish(self, x, h, train=train)


def _finish(block: BasicBlock | BottleneckBlock, x: jax.Array, h: jax.Array, *, train: bool) -> jax.Array:
    """What both blocks end in: gates, the sum with the shortcut, the activation."""
    if block.squeeze_ratio is not None:
        h = SqueezeExcite(block.squeeze_ratio, dtype=block.dtype, name="squeeze")(h)
    return block.act(
        _combine(
            x, h, shortcut=block.shortcut, stride=block.stride, norm=block.norm, dtype=block.dtype, train=train,
            pool=block.shortcut_pool,
        )
    )  # fmt: skip


class PreActBlock(nn.Module):
    """norm-act-conv twice, then add (He 2016b, Fig. 4e; Zhang 2018, Fig. 1b): f[b,h,w,c] -> f[b,h/s,w/s,features].

    Nothing follows the sum, so that an identity shortcut is a clear path through the network; a projection has neither
    norm nor activation. The stride s is the first convolution's. Children: "norm1", "conv1", "norm2", "conv2", and
    those of the shortcut, see the module.

    Attributes:
        first_preact: whether norm1 and its activation stand before conv1. False for the first block of a network, whose
            input is the image (Zhang 2018, Table 1).
    """

    features: int
    stride: int = 1
    dilation: int = 1
    shortcut: str = "auto"
    first_preact: bool = True
    norm: NormFactory | None = None
    act: Activation = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "PreActBlock")
        h = x
        if self.first_preact:
            if self.norm is not None:
                h = self.norm(name="norm1")(h, train=train)
            h = self.act(h)
        common = dict(dilation=self.dilation, dtype=self.dtype)
        h = Conv(
            self.features, stride=self.stride, use_bias=is_identity(self.norm), **common, name="conv1"
        )(h)  # fmt: skip
        if self.norm is not None:
            h = self.norm(name="norm2")(h, train=train)
        h = Conv(self.features, use_bias=True, **common, name="conv2")(self.act(h))
        return _combine(x, h, shortcut=self.shortcut, stride=self.stride, norm=None, dtype=self.dtype, train=train)
