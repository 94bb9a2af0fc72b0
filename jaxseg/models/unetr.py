"""UNETR (Hatamizadeh et al. 2022, "UNETR: Transformers for 3D Medical Image Segmentation") in 2-D.

A U-shaped decoder over levels of a vision transformer, all at the stride of its patches: transposed convolutions bring
each to a size of its own, 1/8, 1/4 and 1/2 of the image for patches of 16 pixels, and the image itself is the finest
level (Fig. 2). It has the form of MONAI's `UNETR`, which takes the results of the blocks 4, 7 and 10, not 3, 6 and 9.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.errors import counted
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages, to_logits, walk_up
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import BasicBlock, ConvTranspose, Layers, pad_to_multiple


class Enlarged(nn.Module):
    """f[b,h,w,c] -> f[b,2^times h,2^times w,features]: a transposed convolution, then `times` - 1 times one and a unit.

    Children: "up1", "up2", "block2", "up3", "block3", ...
    """

    features: int
    times: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(1, self.times + 1):
            x = ConvTranspose(self.features, 2, 2, use_bias=False, dtype=self.common.dtype, name=f"up{i}")(x)
            if i > 1:
                x = BasicBlock(self.features, common=self.common, name=f"block{i}")(x, train=train)
        return x


class UNETRStage(nn.Module):
    """(f[b,h,w,c], skip f[b,2h,2w,features]) -> f[b,2h,2w,features]. Children: "up", "block"."""

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        x = ConvTranspose(self.features, 2, 2, use_bias=False, dtype=self.common.dtype, name="up")(x)
        block = BasicBlock(self.features, common=self.common, name="block")
        return block(jnp.concatenate([x, skip], -1), train=train)


class UNETRDecoder(nn.Module):
    """The image and the levels f[b,y,x,c] -> decoder features f[b,h/2^i,w/2^i,features 2^i], finest first.

    Children: "skip0", of the image, "skip1", "skip2", ..., and "stage0", "stage1", ...
    """

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(
        self, image: jax.Array, levels: tuple[jax.Array, ...], *, train: bool = False
    ) -> tuple[jax.Array, ...]:
        skips = [BasicBlock(self.features, common=self.common, name="skip0")(image, train=train)]
        for i, level in enumerate(levels[:-1], start=1):
            form = (self.features * 2**i, len(levels) - i, self.common)
            skips.append(Enlarged(*form, name=f"skip{i}")(level, train=train))

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            return UNETRStage(self.features * 2**i, self.common, name=f"stage{i}")(x, skip, train=train)

        return walk_up(stage, (*skips, levels[-1]))


class UNETR(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the patch.

    Attributes:
        num_classes: k.
        features: channels at the size of the image; each halving of the size doubles them.
        encoder: a vision transformer (an `EncoderFactory`) with patches of 2^n pixels and n levels, of which the last
            passes its norm; the paper's is ViT-B/16 with the blocks 3, 6, 9 and 12.
        common: norm, activation, dtype and mapped axis of every layer of the decoder.

    Raises:
        ValueError: for another encoder, a patch that is no power of two, or another number of levels.
    """

    num_classes: int
    features: int = 16
    encoder: EncoderFactory = encoders.factory("vit_base", norm_levels="last")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common, pyramid=False)
        if not hasattr(encoder, "pyramid_width"):
            raise ValueError(
                f"unetr reads levels of one stride, those of a vision transformer; this encoder's are "
                f"{tuple(encoder.strides)}."
            )
        patch, levels = encoder.strides[-1], len(encoder.strides)
        if patch != 2**levels:
            raise ValueError(
                f"unetr needs patches of 2^n pixels and n levels of them, got patches of {patch} and "
                f"{counted(levels, 'level')}: set encoder_args.patch and encoder_args.taps."
            )
        x, size = pad_to_multiple(image, patch)
        pyramid = encoder(x, train=train)
        decoded = UNETRDecoder(self.features, self.common, name="decoder")(x, pyramid, train=train)
        logits = to_logits(decoded[0], self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}
