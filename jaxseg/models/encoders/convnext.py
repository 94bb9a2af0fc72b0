"""ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s", Fig. 4 and section 3), and ConvNeXt V2.

Tiny, small, base and large have 28,589,128, 50,223,688, 88,591,464 and 197,767,336 parameters with the norm and the
classifier of 1000 classes that end them. V2 (Woo et al. 2023, "ConvNeXt V2", section 3.2 and Fig. 5) replaces the layer
scale by a global response normalisation; atto, femto, pico, nano, tiny, base and large have 3,708,400, 5,233,240,
9,066,280, 15,623,800, 28,635,496, 88,717,800 and 197,956,840 parameters.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.nn import BARE, Conv, LayerNorm, Layers, StochasticDepth, drop_rates, pad_to_multiple, parameter
from jaxseg.nn.initializers import truncated_normal

Rounding = Literal["up", "down"]
# Section A.1: a truncated normal distribution.
_init = truncated_normal(0.02)


class ResponseNorm(nn.Module):
    """Global response normalisation, f[b,h,w,c] -> f[b,h,w,c] (Woo 2023, eq. 1-3): x + scale x n + bias.

    n is the length of each channel over the pixels of an image, divided by the mean of these lengths over the channels.
    Parameters: scale and bias f32[c], which start at 0.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros = nn.initializers.zeros_init()
        scale, bias = (parameter(self, name, zeros, (x.shape[-1],)) for name in ("scale", "bias"))
        y = x.astype(jnp.float32)
        squares = jnp.sum(jnp.square(y), axis=(1, 2), keepdims=True)
        length = jnp.sqrt(jnp.maximum(squares, 1e-30))  # whose gradient at 0 is 0
        n = length / (jnp.mean(length, axis=-1, keepdims=True) + 1e-6)
        return (y + y * n * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)).astype(x.dtype)


class ConvNeXtBlock(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: 7x7 depthwise, layer norm, to 4 c channels, GELU, back, scale, add (Fig. 4).

    Children: "depthwise", "norm", "expand", "project", "drop"; parameter "scale" f32[c], the layer scale, or with
    `response_norm` the child "response" after the GELU.

    Attributes:
        layer_scale: initial value of the layer scale.
        response_norm: as in `ConvNeXt`.
        drop: rate of the stochastic depth.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    layer_scale: float = 1e-6
    drop: Share = 0.0
    response_norm: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        c = x.shape[-1]
        layers = {"dtype": self.common.dtype, "kernel_init": _init}
        h = Conv(c, 7, groups=c, **layers, name="depthwise")(x)
        h = LayerNorm(dtype=self.common.dtype, epsilon=1e-6, name="norm")(h)
        h = jax.nn.gelu(Conv(4 * c, 1, **layers, name="expand")(h), approximate=False)
        if self.response_norm:
            h = ResponseNorm(name="response")(h)
        h = Conv(c, 1, **layers, name="project")(h)
        if not self.response_norm:
            scale = parameter(self, "scale", nn.initializers.constant(self.layer_scale), (c,))
            h = h * scale.astype(h.dtype).reshape(1, 1, 1, -1)
        return x + StochasticDepth(self.drop, axis_name=self.common.axis_name, name="drop")(h, train=train)


class ConvNeXtStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/2,w/2,features] (f[b,h,w,c] for the first stage): norm, 2x2 convolution, blocks.

    Children: "norm" and "reduce" (not in the first stage), "block1", "block2", ...

    Attributes:
        features: channels; those of the input in the first stage.
        drops: rate of the stochastic depth of each block.
        first: whether it is the first stage, at the resolution of the stem.
        rounding, layer_scale, response_norm: as in `ConvNeXt`.
        common: gives the dtype and the mapped axis.
    """

    features: int
    drops: tuple[float, ...]
    first: bool = False
    rounding: Rounding = "up"
    layer_scale: float = 1e-6
    response_norm: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        if not self.first:
            x = LayerNorm(dtype=self.common.dtype, epsilon=1e-6, name="norm")(x)
            x = reduce(self.features, 2, self.common.dtype, "reduce")(rounded(x, 2, self.rounding))
        for i, drop in enumerate(self.drops):
            form = (self.layer_scale, drop, self.response_norm, self.common)
            x = ConvNeXtBlock(*form, name=f"block{i + 1}")(x, train=train)
        return x


def reduce(features: int, factor: int, dtype: Any, name: str) -> Conv:
    """Returns the convolution f[b,h,w,c] -> f[b,h/factor,w/factor,features] over tiles that do not overlap."""
    return Conv(features, factor, stride=factor, padding=0, dtype=dtype, kernel_init=_init, name=name)


def rounded(x: jax.Array, factor: int, rounding: Rounding) -> jax.Array:
    """f[b,h,w,c], padded to multiples of `factor` where sizes are rounded up."""
    return pad_to_multiple(x, factor)[0] if rounding == "up" else x


class ConvNeXt(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 4, 8, 16, 32, finest first.

    Children: "stem", "stem_norm", "stage0", "stage1", ... (`ConvNeXtStage`s), and "norm0", ... with `output_norm`.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
        drop: greatest rate of stochastic depth, which grows linearly from 0 at the first block; the paper's are .1 for
            tiny, .4 for small, .5 for base and large (Table 5).
        layer_scale: initial value of the layer scales.
        response_norm: whether global response normalisation replaces the layer scales (V2).
        output_norm: whether each level ends in a layer norm, as in segmentation networks over ConvNeXt (transformers'
            `ConvNextBackbone`).
        rounding: of sizes that the strides do not divide: "up" pads with zeros at the bottom and right, "down" omits
            the last rows and columns, as torch does (then an image needs as many pixels as the largest stride).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    widths: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (3, 3, 9, 3)
    drop: Share = 0.1
    layer_scale: float = 1e-6
    response_norm: bool = False
    output_norm: bool = False
    rounding: Rounding = "up"
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(4 * 2**i for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        if len(self.depths) != len(self.widths):
            raise ValueError(f"ConvNeXt: depths {self.depths} must be as many as widths {self.widths}.")
        norm = functools.partial(LayerNorm, dtype=self.common.dtype, epsilon=1e-6)
        x = reduce(self.widths[0], 4, self.common.dtype, "stem")(rounded(x, 4, self.rounding))
        x = norm(name="stem_norm")(x)
        pyramid = []
        for i, (features, drops) in enumerate(zip(self.widths, drop_rates(self.drop, self.depths))):
            form = (self.rounding, self.layer_scale, self.response_norm, self.common)
            x = ConvNeXtStage(features, drops, i == 0, *form, name=f"stage{i}")(x, train=train)
            pyramid.append(norm(name=f"norm{i}")(x) if self.output_norm else x)
        return tuple(pyramid)
