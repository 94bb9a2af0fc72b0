"""Mix Transformer encoders MiT-B0 to B5 (Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic ...").

The full title ends "... Segmentation with Transformers"; see its section 3.1 and Table 6. There are no position
embeddings: the 3x3 convolution in each Mix-FFN gives position information, so that images of any size work. As in the
authors' release (and in transformers and segmentation_models.pytorch) the hidden layers of the Mix-FFN are 4 times as
wide in every stage, where Table 6 has 8, 8, 4, 4. Encoder parameters, in millions: B0 3.3, B1 13.2, B2 24.2, B3 44.1,
B4 60.8, B5 81.4.

PVTv2 (Wang et al. 2022, "PVT v2: Improved Baselines with Pyramid Vision Transformer", Table 1) has the same layers with
hidden layers of 8, 8, 4, 4 times the width, and other depths. B0 to B5 have 3,666,760, 14,009,000, 25,362,856,
45,238,696, 62,556,072 and 81,956,008 parameters with the classifier of 1000 classes that ends them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.nn import Conv, LayerNorm, Layers, MultiHeadAttention, StochasticDepth, drop_rates
from jaxseg.nn.initializers import truncated_normal, variance_scaling
from jaxseg.nn.ops.sizes import at_least_zero

dense_init = truncated_normal(0.02)
# As in the authors' release: normal(0, sqrt(2 / fan_out)).
patch_init = variance_scaling(2.0, "fan_out", "normal")
_gelu = functools.partial(jax.nn.gelu, approximate=False)


class EfficientAttention(nn.Module):
    """Self-attention with keys and values from a coarser grid (section 3.1, eq. 2): f[b,h,w,c] -> f[b,h,w,c].

    A convolution with kernel and stride r = `reduction` reduces r² pixels to one key. Pixels at the bottom and right
    that do not fill a window are left out; an image smaller than one window is padded with zeros. Children:
    "attention", and with reduction > 1 "reduce" and "reduce_norm".
    """

    num_heads: int
    reduction: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        keys, r = x, self.reduction
        if r > 1:
            keys = jnp.pad(keys, ((0, 0), (0, at_least_zero(r - h)), (0, at_least_zero(r - w)), (0, 0)))
            keys = Conv(c, r, stride=r, padding=0, kernel_init=patch_init, dtype=self.dtype, name="reduce")(keys)
            keys = LayerNorm(dtype=self.dtype, name="reduce_norm")(keys)
        y = MultiHeadAttention(self.num_heads, kernel_init=dense_init, dtype=self.dtype, name="attention")(
            x.reshape(b, h * w, c), keys.reshape(b, -1, c)
        )
        return y.reshape(b, h, w, c)


class MixFFN(nn.Module):
    """Dense, 3x3 depthwise convolution, GELU, dense (section 3.1, eq. 3): f[b,h,w,c] -> f[b,h,w,c].

    Children: "expand", "depthwise", "reduce".
    """

    ratio: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, hidden = x.shape[-1], self.ratio * x.shape[-1]
        y = Conv(hidden, 1, kernel_init=dense_init, dtype=self.dtype, name="expand")(x)
        y = Conv(hidden, 3, groups=hidden, dtype=self.dtype, name="depthwise")(y)
        return Conv(c, 1, kernel_init=dense_init, dtype=self.dtype, name="reduce")(_gelu(y))


class MixBlock(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)): f[b,h,w,c] -> f[b,h,w,c].

    Children: "norm1", "attention", "norm2", "ffn", and "drop1", "drop2", the stochastic depth of either branch.
    """

    num_heads: int
    reduction: int = 1
    mlp_ratio: int = 4
    drop_path: Share = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        norm = functools.partial(LayerNorm, epsilon=1e-6, dtype=self.common.dtype)
        drop = functools.partial(StochasticDepth, self.drop_path, self.common.axis_name)
        y = EfficientAttention(self.num_heads, self.reduction, self.common.dtype, name="attention")(
            norm(name="norm1")(x)
        )
        x = x + drop(name="drop1")(y, train=train)
        y = MixFFN(self.mlp_ratio, self.common.dtype, name="ffn")(norm(name="norm2")(x))
        return x + drop(name="drop2")(y, train=train)


class MixStage(nn.Module):
    """Overlapping patches and blocks: f[b,h,w,c] -> f[b,h/stride,w/stride,features], sizes rounded up.

    Children: "patch", "patch_norm", "block1", "block2", ..., "norm".
    """

    features: int
    kernel_size: int
    stride: int
    num_heads: int
    reduction: int
    mlp_ratio: int
    drop_path: tuple[float, ...]
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = Conv(
            self.features,
            self.kernel_size,
            stride=self.stride,
            kernel_init=patch_init,
            dtype=self.common.dtype,
            name="patch",
        )(x)
        x = LayerNorm(dtype=self.common.dtype, name="patch_norm")(x)
        for i, rate in enumerate(self.drop_path):
            form = (self.num_heads, self.reduction, self.mlp_ratio)
            x = MixBlock(*form, rate, self.common, name=f"block{i + 1}")(x, train=train)
        return LayerNorm(epsilon=1e-6, dtype=self.common.dtype, name="norm")(x)


class MixTransformer(nn.Module):
    """f[b,h,w,c] -> features f[b,h/strides[i],w/strides[i],widths[i]], finest first; by default MiT-B0, strides 4-32.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
        heads: attention heads of each stage; each must divide its width.
        reductions: R of eq. 2 of each stage, the factor by which the grid of keys and values is coarser.
        kernels: side of each stage's patches.
        steps: stride of each stage.
        mlp_ratio: hidden over outer width of the Mix-FFN.
        mlp_ratios: the same for each stage; None: `mlp_ratio` in all of them.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    widths: tuple[int, ...] = (32, 64, 160, 256)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    kernels: tuple[int, ...] = (7, 3, 3, 3)
    steps: tuple[int, ...] = (4, 2, 2, 2)
    mlp_ratio: int = 4
    mlp_ratios: tuple[int, ...] | None = None
    drop_path: Share = 0.1
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(int(n) for n in np.cumprod(self.steps[: len(self.widths)]))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        levels = len(self.widths)
        for name in ("depths", "heads", "reductions", "kernels", "steps", "mlp_ratios"):
            if getattr(self, name) is not None and len(getattr(self, name)) < levels:
                raise ValueError(f"MixTransformer: {name} needs {levels} numbers, as widths has.")
        pyramid = []
        for i, (features, rates) in enumerate(zip(self.widths, drop_rates(self.drop_path, self.depths[:levels]))):
            x = MixStage(
                features,
                self.kernels[i],
                self.steps[i],
                self.heads[i],
                self.reductions[i],
                self.mlp_ratio if self.mlp_ratios is None else self.mlp_ratios[i],
                rates,
                common=self.common,
                name=f"stage{i}",
            )(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)
