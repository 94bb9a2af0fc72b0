"""MultiResUNet (Ibtehaz and Rahman 2020, "MultiResUNet: Rethinking the U-Net Architecture ...", Neural Networks 121).

A U-Net whose stages are MultiRes blocks (Fig. 3c): three 3x3 convolutions in a row, whose results are concatenated, so
that they see 3, 5 and 7 pixels, and a 1x1 shortcut. Its skips are Res paths (Fig. 4): residual units that bring the
features of the encoder nearer to those of the decoder, more of them where they are further apart (Table 1).

The authors' release counts 7,262,750 parameters for RGB and one class, the paper's number, with the statistics of
batch norm, without scales in the norms after a convolution and with a norm after the logits. Ours differs in these
alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Positive
from jaxseg.errors import counted
from jaxseg.models.assembly import name_stages, to_logits, walk_up
from jaxseg.nn import ConvNormAct, ConvTranspose, Layers, max_pool, pad_to_multiple

_SHARES = (0.167, 0.333, 0.5)  # of W, for the three convolutions (section 3.1)


def convolution_widths(width: int, alpha: float) -> tuple[int, int, int]:
    """Returns the features of a block's three convolutions, W/6, W/3 and W/2 with W = alpha * width (section 3.4)."""
    first, second, third = (max(1, int(alpha * width * share)) for share in _SHARES)
    return first, second, third


class MultiResBlock(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,f], f the sum of `convolution_widths(width, alpha)` (Fig. 3c).

    act(norm(concatenation) + shortcut), then a norm. Children: "conv1", "conv2", "conv3", "norm1", "shortcut", "norm2".
    """

    width: int
    alpha: float = 1.67
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        widths = convolution_widths(self.width, self.alpha)
        common, y, parts = self.common, x, []
        for i, features in enumerate(widths):
            y = ConvNormAct(features, common=common, name=f"conv{i + 1}")(y, train=train)
            parts.append(y)
        y = common.normalise(jnp.concatenate(parts, -1), "norm1", train=train)
        linear = common.replace(act=None)
        shortcut = ConvNormAct(sum(widths), 1, common=linear, name="shortcut")(x, train=train)
        return common.normalise(common.activate(shortcut + y), "norm2", train=train)


class ResPath(nn.Module):
    """`length` times norm(act(shortcut + conv)): f[b,h,w,c] -> f[b,h,w,width] (Fig. 4).

    Children: "conv1", "shortcut1" (1x1) and "norm1", "conv2", ...
    """

    width: int
    length: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common, linear = self.common, self.common.replace(act=None)
        for i in range(1, self.length + 1):
            y = ConvNormAct(self.width, common=common, name=f"conv{i}")(x, train=train)
            shortcut = ConvNormAct(self.width, 1, common=linear, name=f"shortcut{i}")(x, train=train)
            x = common.normalise(common.activate(shortcut + y), f"norm{i}", train=train)
        return x


class MultiResEncoder(nn.Module):
    """f[b,h,w,c] -> features of each stage, finest first, with 2x2 max-pooling between them. Children: "stage0", ..."""

    widths: tuple[int, ...]
    alpha: float
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        pyramid = []
        for i, width in enumerate(self.widths):
            x = x if i == 0 else max_pool(x, 2)
            x = MultiResBlock(width, self.alpha, self.common, name=f"stage{i}")(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)


class MultiResStage(nn.Module):
    """(f[b,h,w,c], skip f[b,2h,2w,s]) -> f[b,2h,2w,f]. Children: "up" (a transposed convolution), "path", "block"."""

    width: int
    alpha: float
    length: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        x = ConvTranspose(self.width, 2, 2, dtype=self.common.dtype, name="up")(x)
        skip = ResPath(self.width, self.length, self.common, name="path")(skip, train=train)
        x = jnp.concatenate([x, skip], -1)
        return MultiResBlock(self.width, self.alpha, self.common, name="block")(x, train=train)


class MultiResDecoder(nn.Module):
    """Pyramid (finest first) -> decoder features finest first, one level fewer. Children: "stage0", "stage1", ..."""

    widths: tuple[int, ...]
    alpha: float
    lengths: tuple[int, ...]
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            form = (self.widths[i], self.alpha, self.lengths[i], self.common)
            return MultiResStage(*form, name=f"stage{i}")(x, skip, train=train)

        return walk_up(stage, pyramid)


class MultiResUNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the coarsest stride.

    Attributes:
        num_classes: k; the paper has one.
        widths: U of each stage, finest first, the features that a U-Net's convolutions would have; the last is the
            bottom.
        alpha: factor of these (section 3.4).
        lengths: units of each Res path, finest first (Table 1); None: one fewer than stages, ..., 2, 1.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: unless there is a length for each stage but the bottom.
    """

    num_classes: int
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    alpha: Positive = 1.67
    lengths: tuple[int, ...] | None = None
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        levels = len(self.widths) - 1
        lengths = self.lengths or tuple(range(levels, 0, -1))
        if len(lengths) != levels:
            raise ValueError(
                f"multiresunet.lengths must have a number for each stage of widths but the last, got "
                f"{counted(len(lengths), 'number')} for {counted(levels, 'stage')}."
            )
        x, size = pad_to_multiple(image, 2**levels)
        pyramid = MultiResEncoder(self.widths, self.alpha, self.common, name="encoder")(x, train=train)
        decoder = MultiResDecoder(self.widths[:levels], self.alpha, lengths, self.common, name="decoder")
        decoded = decoder(pyramid, train=train)
        top = (*decoded, *pyramid)[0]
        logits = to_logits(top, self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}
