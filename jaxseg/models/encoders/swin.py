"""Swin Transformers (Liu et al. 2021, "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows").

Attention inside windows of 7x7 pixels, moved by half a window in every second block (section 3, Fig. 3), so that memory
and time grow with the number of pixels. Images of any size are padded as in the authors' code for segmentation: whole
patches, whole windows at each stage, pairs of pixels before each merging. Every second block is shifted along a side of
a single window too, as there; classifiers of torchvision and timm leave that out, at 224x224 in the last stage. Tiny,
small, base and large have 28,288,354, 49,606,258, 87,768,224 and 196,532,476 parameters with the norm and the
classifier of 1000 classes that end them.

Swin V2 (Liu et al. 2022, "Swin Transformer V2: Scaling Up Capacity and Resolution", section 3) has its norms after
attention and MLP, attention by cosines, and biases of continuous distances. With windows of 8x8 tiny, small and base
have 28,347,154, 49,725,670 and 87,918,800 parameters, and with windows of 16x16 large has 196,739,932, of which the
weights of windows of 12x12 are published. The scales of its norms start at 1, as in torchvision.
"""

import functools

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.encoders.convnext import Rounding, rounded
from jaxseg.nn import Conv, Dense, LayerNorm, Layers, StochasticDepth, WindowAttention, drop_rates, pad_to_multiple
from jaxseg.nn.initializers import lecun_normal, truncated_normal

_init = truncated_normal(0.02)


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); V2: x + norm(attention(x)), x + norm(mlp(x)): f[b,h,w,c].

    These are Liu 2021, eq. 3, and Liu 2022, Fig. 1. Children: "norm1", "attention", "norm2", "expand", "reduce", and
    "drop1", "drop2", the stochastic depth of either branch.

    Attributes:
        num_heads, side, shift, trained_side: of the attention (`jaxseg.nn.WindowAttention`).
        mlp_ratio, v2: as in `SwinTransformer`.
        drop_path: rate of stochastic depth.
        common: gives the dtype and the mapped axis.
    """

    num_heads: int
    side: int
    shift: int
    trained_side: int | None = None
    mlp_ratio: int = 4
    v2: bool = False
    drop_path: Share = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        dtype, c = self.common.dtype, x.shape[-1]
        dense = functools.partial(Dense, kernel_init=_init, dtype=dtype)
        attention = WindowAttention(
            *(self.num_heads, self.side, self.shift, self.v2, self.trained_side), dtype=dtype, name="attention"
        )

        def mlp(y: jax.Array) -> jax.Array:
            y = jax.nn.gelu(dense(self.mlp_ratio * c, name="expand")(y), approximate=False)
            return dense(c, name="reduce")(y)

        for number, branch in ((1, attention), (2, mlp)):
            norm = LayerNorm(dtype=dtype, name=f"norm{number}")
            y = norm(branch(x)) if self.v2 else branch(norm(x))
            x = x + StochasticDepth(self.drop_path, self.common.axis_name, name=f"drop{number}")(y, train=train)
        return x


class SwinStage(nn.Module):
    """f[b,h,w,c] -> f[b,h/2,w/2,features] (f[b,h,w,c] for the first stage): merging of patches, blocks.

    The merging puts the channels of 2x2 pixels together, column by column, and maps them linearly, after a norm (V2:
    before it); an odd side gets zeros at its end. Children: "norm" and "reduce" (not in the first stage), "block1",
    "block2", ...

    Attributes:
        features: channels; those of the input in the first stage.
        num_heads, side, trained_side, mlp_ratio, v2: as in `SwinBlock`.
        drops: rate of the stochastic depth of each block.
        first: whether it is the first stage, at the resolution of the stem.
        common: gives the dtype and the mapped axis.
    """

    features: int
    num_heads: int
    side: int
    trained_side: int | None
    mlp_ratio: int
    v2: bool
    drops: tuple[float, ...]
    first: bool = False
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        if not self.first:
            norm = LayerNorm(dtype=self.common.dtype, name="norm")
            dense = Dense(self.features, use_bias=False, kernel_init=_init, dtype=self.common.dtype, name="reduce")
            x = _paired(x)
            x = norm(dense(x)) if self.v2 else dense(norm(x))
        for i, drop in enumerate(self.drops):
            shift = self.side // 2 if i % 2 else 0
            form = (self.num_heads, self.side, shift, self.trained_side, self.mlp_ratio, self.v2, drop, self.common)
            x = SwinBlock(*form, name=f"block{i + 1}")(x, train=train)
        return x


def _paired(x: jax.Array) -> jax.Array:
    """f[b,h,w,c] -> f[b,h/2,w/2,4c], of each 2x2 pixels the left column before the right."""
    x, _ = pad_to_multiple(x, 2)
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


class SwinTransformer(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,widths[i]] at s = 4, 8, 16, 32, finest first; by default Swin-T.

    Children: "stem", "stem_norm", "stage0", "stage1", ... (`SwinStage`s), and "norm0", ... with `output_norm`.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage; the second, fourth, ... of a stage are shifted.
        heads: attention heads of each stage; each must divide its width.
        window: side of the windows, in pixels of a stage.
        patch: side of the stem's patches, its stride.
        mlp_ratio: hidden over outer width of the dense layers of a block.
        v2: whether blocks and merging have the form of Swin V2.
        trained_windows: of V2, the side of the windows of each stage in the pretraining; None: `window`. Weights of
            windows of 8 serve windows of 16 with (8, 8, 8, 8).
        output_norm: whether each level ends in a layer norm, as in the authors' code for segmentation and transformers'
            `SwinBackbone`. UPerNet has these norms itself with `norm_features`.
        rounding: of image sides that the patch does not divide: "up" pads with zeros at the bottom and right, "down"
            omits the last rows and columns, as torchvision does.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first. Liu 2021, A2.3:
            .2 for segmentation.
        common: gives the dtype and the mapped axis; norms are layer norms whatever it says.

    Raises:
        ValueError: if depths, heads or trained_windows are not as many as widths, or a head does not divide its width.
    """

    widths: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    patch: int = 4
    mlp_ratio: int = 4
    v2: bool = False
    trained_windows: tuple[int, ...] | None = None
    output_norm: bool = False
    rounding: Rounding = "up"
    drop_path: Share = 0.2
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(self.patch * 2**i for i in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        for name in ("depths", "heads", "trained_windows"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.widths):
                raise ValueError(f"SwinTransformer: {name} {values} must be as many as widths {self.widths}.")
        dtype = self.common.dtype
        stem = Conv(
            *(self.widths[0], self.patch, self.patch),
            padding=0,
            kernel_init=lecun_normal,
            dtype=dtype,
            name="stem",
        )
        x = LayerNorm(dtype=dtype, name="stem_norm")(stem(rounded(x, self.patch, self.rounding)))
        sides = self.trained_windows or (None,) * len(self.widths)
        pyramid = []
        for i, (features, drops) in enumerate(zip(self.widths, drop_rates(self.drop_path, self.depths))):
            form = (features, self.heads[i], self.window, sides[i], self.mlp_ratio, self.v2, drops, i == 0)
            x = SwinStage(*form, self.common, name=f"stage{i}")(x, train=train)
            pyramid.append(LayerNorm(dtype=dtype, name=f"norm{i}")(x) if self.output_norm else x)
        return tuple(pyramid)
